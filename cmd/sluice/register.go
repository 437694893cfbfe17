package main

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"sluice/api"
	"sluice/registry"
)

// registerFlags are the settings of sluice register.
type registerFlags struct {
	client       clientFlags
	registry     string
	registryConn registryFlags
	log          logFlags

	service  string
	id       string
	address  string
	weight   int
	maxConns int
	zone     string
	tags     []string
	meta     map[string]string
	ttl      time.Duration
	grace    time.Duration
}

func newRegisterCommand() *cobra.Command {
	var f registerFlags
	cmd := &cobra.Command{
		Use:   "register --service NAME --id ID --address HOST:PORT [-- COMMAND ARGS...]",
		Short: "Register a node for as long as it runs",
		Long: `Register a node for as long as it runs.

With a command: it is started, registered when its address accepts connections, and gets the signals that register gets.
On SIGTERM or SIGINT the node is taken out of the rotation first. The signal follows when all gateways are in step, after
--grace at the latest, or at once when it comes twice. If the command ends by itself, the node leaves at once. register exits with the command's code, 128 + N if
signal N ended it, 127 if it was not found.

Without a command the node is registered until register is told to stop.`,
		Example: `  sluice register --service io --id n1 --address 127.0.0.1:6001 -- node server.js
  sluice register --service io --id n2 --address unix:/run/n2.sock --api http://10.0.0.1:7070,http://10.0.0.2:7070
  sluice register --service io --id n3 --address '[fd00::3]:6001' --registry etcds://10.0.0.1:2379 --meta version=1.2`,
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := fillFlags(cmd.Flags(), ""); err != nil {
				return usageError(err)
			}
			return f.run(cmd.Context(), args, cmd.ErrOrStderr())
		},
	}
	flags := cmd.Flags()
	flags.SetInterspersed(false) // the command's flags are its own, with or without the two dashes
	flags.StringVar(&f.service, "service", "", "service that the node belongs to")
	flags.StringVar(&f.id, "id", "", "id of the node, unique in its service")
	flags.StringVar(&f.address, "address", "", "where nginx reaches it: 10.0.0.7:6001, [fd00::1]:6001 or unix:/path")
	flags.IntVar(&f.weight, "weight", 1, "share of new connections, 1 to 1000")
	flags.IntVar(&f.maxConns, "max-conns", 0, "connections at once, per gateway; 0 is no limit")
	flags.StringVar(&f.zone, "zone", "", "where it runs")
	flags.StringSliceVar(&f.tags, "tag", nil, "word by which upstreams choose nodes; may be given several times")
	flags.StringToStringVar(&f.meta, "meta", nil, "free text by which they choose as well, as version=1.2; may be given several times")
	flags.DurationVar(&f.ttl, "ttl", registry.DefaultTTL, "how long the node stays without a sign of life; one is given each third of it")
	flags.DurationVar(&f.grace, "grace", 10*time.Second, "time that the gateways have to let go of the node before SIGTERM is passed on")
	flags.StringVar(&f.registry, "registry", "", "write to this registry instead of asking an instance: etcd://host:2379,…, consul://host:8500,… (etcds://, consuls://: TLS)")
	f.client.register(flags)
	f.registryConn.register(flags)
	f.log.register(flags)
	return cmd
}

func (f *registerFlags) run(ctx context.Context, argv []string, stderr io.Writer) (err error) {
	log, err := f.log.logger(stderr)
	if err != nil {
		return usageError(err)
	}
	node, err := f.node()
	if err != nil {
		return usageError(err)
	}
	nodes, gateways, closeNodes, err := f.open(ctx, log)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, closeNodes()) }()
	m := newMembership(nodes, gateways, node, f.ttl, log)
	if len(argv) > 0 {
		return supervise(ctx, m, argv, f.grace)
	}
	ctx, stop := signal.NotifyContext(ctx, syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP)
	defer stop()
	m.join()
	<-ctx.Done()
	m.leave()
	return nil
}

// node is what is registered.
func (f *registerFlags) node() (registry.Node, error) {
	for flag, value := range map[string]string{"--service": f.service, "--id": f.id, "--address": f.address} {
		if value == "" {
			return registry.Node{}, fmt.Errorf("%s is missing: --service, --id and --address name the node", flag)
		}
	}
	incarnation := make([]byte, 8)
	_, _ = rand.Read(incarnation) // never fails
	n := registry.Node{
		Service: f.service, ID: f.id, Weight: f.weight, MaxConns: f.maxConns, Zone: f.zone, Tags: f.tags, Meta: f.meta,
		Incarnation: hex.EncodeToString(incarnation),
	}
	if strings.HasPrefix(f.address, "unix:") {
		n.Address = f.address
	} else {
		host, port, err := net.SplitHostPort(f.address)
		if err != nil {
			return n, fmt.Errorf("--address %q: write it as 10.0.0.7:6001, [fd00::1]:6001 or unix:/path", f.address)
		}
		if n.Port, err = strconv.Atoi(port); err != nil {
			return n, fmt.Errorf("--address %q: the port must be a number", f.address)
		}
		n.Address = host
	}
	if f.ttl < time.Second || f.ttl > time.Hour {
		return n, fmt.Errorf("--ttl %s is not between 1s and 1h", f.ttl)
	}
	if f.grace < 0 {
		return n, fmt.Errorf("--grace %s is negative", f.grace)
	}
	return n, n.Validate()
}

// nodeWriter is what registers and removes: an instance's API, or a registry.
type nodeWriter interface {
	registry.Putter
	Remove(ctx context.Context, ref registry.NodeRef) error
}

func (f *registerFlags) open(ctx context.Context, log *slog.Logger) (nodeWriter, gatewayLister, func() error, error) {
	if f.registry != "" {
		reg, closeRegistry, err := f.registryConn.open(ctx, f.registry, nil, log)
		if err != nil {
			return nil, nil, nil, err
		}
		return reg, gatewaysOfRegistry(reg), closeRegistry, nil
	}
	client, err := f.client.client()
	if err != nil {
		return nil, nil, nil, err
	}
	return api.NewNodesClient(client), gatewaysOfAPI(client, api.ListGatewaysParams{}), func() error { return nil }, nil
}
