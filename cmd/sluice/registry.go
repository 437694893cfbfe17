package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/pflag"

	"sluice/registry"
	"sluice/registry/etcd"
	"sluice/registry/keyspace"
)

// embeddedRegistry is the value of --registry that starts etcd inside sluice.
const embeddedRegistry = "embedded"

// registryFlags say where the registry is, and who we are there.
type registryFlags struct {
	fleet        string
	caFile       string
	certFile     string
	keyFile      string
	serverName   string
	user         string
	passwordFile string
	secretsKey   string
}

func (r *registryFlags) register(flags *pflag.FlagSet) {
	flags.StringVar(&r.fleet, "fleet", keyspace.DefaultFleet, "name of the fleet: the instances that share the desired state and the nodes")
	flags.StringVar(&r.caFile, "etcd-ca", "", "PEM file of the certificate authority that etcd's certificate must be from (default: the system's)")
	flags.StringVar(&r.certFile, "etcd-cert", "", "PEM file of our client certificate for etcd")
	flags.StringVar(&r.keyFile, "etcd-key", "", "PEM file of its key")
	flags.StringVar(&r.serverName, "etcd-server-name", "", "name to expect in etcd's certificate (default: the host of the endpoint)")
	flags.StringVar(&r.user, "etcd-user", "", "etcd user, with --etcd-password-file")
	flags.StringVar(&r.passwordFile, "etcd-password-file", "", "file with the etcd user's password")
	flags.StringVar(&r.secretsKey, "secrets-key-file", "", "file with a key of 32 bytes, as hex or base64, that encrypts private keys in the registry")
}

// open returns the registry that url names, and the function that closes it. server is the embedded one, if it is that.
func (r *registryFlags) open(ctx context.Context, url string, server *etcd.Embedded, log *slog.Logger) (registry.Registry, func() error, error) {
	cfg := etcd.Config{
		Server: server, Fleet: r.fleet, Logger: log,
		CAFile: r.caFile, CertFile: r.certFile, KeyFile: r.keyFile, ServerName: r.serverName, Username: r.user,
	}
	if server == nil {
		endpoints, err := endpoints(url)
		if err != nil {
			return nil, nil, err
		}
		cfg.Endpoints = endpoints
	}
	if r.passwordFile != "" {
		password, err := readSecret(r.passwordFile)
		if err != nil {
			return nil, nil, fmt.Errorf("read --etcd-password-file: %w", err)
		}
		cfg.Password = password
	}
	opened, err := etcd.New(ctx, cfg)
	if err != nil {
		return nil, nil, fmt.Errorf("open registry %s: %w", url, err)
	}
	if r.secretsKey == "" {
		return opened, opened.Close, nil
	}
	key, err := readKey(r.secretsKey)
	if err != nil {
		return nil, nil, errors.Join(fmt.Errorf("read --secrets-key-file: %w", err), opened.Close())
	}
	sealed, err := registry.Seal(opened, key)
	if err != nil {
		return nil, nil, errors.Join(err, opened.Close())
	}
	return sealed, opened.Close, nil
}

// endpoints turns etcd://a:2379,b:2379 into the URLs that the etcd client takes; etcds:// means TLS, and etcd:///path a
// unix socket.
func endpoints(url string) ([]string, error) {
	scheme, hosts, ok := strings.Cut(url, "://")
	var prefix string
	switch scheme {
	case "etcd":
		prefix = "http://"
	case "etcds":
		prefix = "https://"
	default:
		ok = false
	}
	if !ok || hosts == "" {
		return nil, fmt.Errorf("registry %q: write %q, etcd://host:2379,host:2379, etcds://host:2379 (TLS) or etcd:///path/of.sock", url, embeddedRegistry)
	}
	var list []string
	for host := range strings.SplitSeq(hosts, ",") {
		if strings.HasPrefix(host, "/") {
			list = append(list, "unix://"+host)
		} else {
			list = append(list, prefix+host)
		}
	}
	return list, nil
}

func readSecret(path string) (string, error) {
	data, err := os.ReadFile(filepath.Clean(path))
	if err != nil {
		return "", err
	}
	return strings.TrimSpace(string(data)), nil
}
