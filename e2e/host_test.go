package e2e

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// Host is a network namespace: a machine of its own, as far as the network goes. A nil Host is this machine.
type Host struct {
	name    string
	address string
	hub     *Host  // of newLAN: where the network is
	port    string // and the interface there that leads to it
}

// Address returns the address at which the other hosts reach it.
func (h *Host) Address() string {
	if h == nil {
		return "127.0.0.1"
	}
	return h.address
}

// Command returns what has to stand before a command that is to run on the host, with env in its environment. It runs as
// the user of the test.
func (h *Host) Command(env ...string) []string {
	if h == nil {
		return nil
	}
	enter := asRoot("ip", "netns", "exec", h.name)
	if os.Getuid() != 0 {
		enter = append(enter, "setpriv", "--reuid", strconv.Itoa(os.Getuid()), "--regid", strconv.Itoa(os.Getgid()), "--init-groups", "--")
	}
	// sudo hands on next to nothing of the environment.
	return append(append(enter, "env", "PATH="+os.Getenv("PATH")), env...)
}

// relayed returns a client of a server at a loopback address of the host: unix sockets are in no network namespace, so a process there
// can relay from one. Each question is a connection of its own, as there are outages in between.
func (h *Host) relayed(tb testing.TB, listen string) *http.Client {
	tb.Helper()
	_, port, err := net.SplitHostPort(listen)
	if err != nil {
		tb.Fatal(err)
	}
	socket := filepath.Join(tempDir(tb), "relay.sock")
	argv := append(h.Command(), "node", filepath.Join(root, "e2e", "testdata", "relay.js"), socket, port)
	startProcess(tb, "relay", nil, argv...).waitFor(20*time.Second, "relays")
	return &http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", socket)
		},
	}}
}

// lan numbers the networks of a test process.
var lan atomic.Int32

// newHosts makes n hosts behind a hub, a host too: hub reaches each of them, and they reach whatever address hub has.
func newHosts(tb testing.TB, n int) (hub *Host, hosts []*Host) {
	tb.Helper()
	prefix := fmt.Sprintf("sl%d-%d", os.Getpid(), lan.Add(1))
	hub = newHost(tb, prefix+"-hub", "10.203.0.1")
	ip(tb, hub, "address", "add", "10.203.0.1/32", "dev", "lo")
	for i := 1; i <= n; i++ {
		h := newHost(tb, fmt.Sprintf("%s-%d", prefix, i), fmt.Sprintf("10.203.%d.2", i))
		inside := fmt.Sprintf("v%d", i)
		ip(tb, hub, "link", "add", inside, "type", "veth", "peer", "name", "eth0", "netns", h.name)
		ip(tb, hub, "address", "add", fmt.Sprintf("10.203.%d.1/24", i), "dev", inside)
		ip(tb, hub, "link", "set", inside, "up")
		ip(tb, h, "address", "add", h.address+"/24", "dev", "eth0")
		ip(tb, h, "link", "set", "eth0", "up")
		ip(tb, h, "route", "add", "default", "via", fmt.Sprintf("10.203.%d.1", i))
		hosts = append(hosts, h)
	}
	return hub, hosts
}

// newLAN makes n hosts on one network that this machine is on as well: all of them reach each other. Its addresses are of
// 198.18.0.0/15, which is reserved for tests of networks (RFC 2544).
func newLAN(tb testing.TB, n int) []*Host {
	tb.Helper()
	id := lan.Add(1)
	prefix := fmt.Sprintf("sl%d-%d", os.Getpid(), id)
	hub := newHost(tb, prefix+"-lan", "")
	ip(tb, hub, "link", "add", "lan", "type", "bridge")
	ip(tb, hub, "link", "set", "lan", "up")
	// Of several tests that run at once, one may have the same network: it is taken by who has the first address.
	ours := fmt.Sprintf("sl%d-%d", os.Getpid()%100000, id)
	ip(tb, hub, "link", "add", "uplink", "master", "lan", "type", "veth", "peer", "name", ours)
	ip(tb, hub, "link", "set", ours, "netns", strconv.Itoa(os.Getpid()))
	ip(tb, hub, "link", "set", "uplink", "up")
	network := freeNetwork(tb)
	ip(tb, nil, "address", "add", network+".1/24", "dev", ours)
	ip(tb, nil, "link", "set", ours, "up")
	var hosts []*Host
	for i := 1; i <= n; i++ {
		h := newHost(tb, fmt.Sprintf("%s-%d", prefix, i), fmt.Sprintf("%s.%d", network, 10+i))
		h.hub, h.port = hub, fmt.Sprintf("v%d", i)
		ip(tb, hub, "link", "add", h.port, "master", "lan", "type", "veth", "peer", "name", "eth0", "netns", h.name)
		ip(tb, hub, "link", "set", h.port, "up")
		ip(tb, h, "address", "add", h.address+"/24", "dev", "eth0")
		ip(tb, h, "link", "set", "eth0", "up")
		hosts = append(hosts, h)
	}
	return hosts
}

// freeNetwork returns the first three bytes of a network that this machine is not on.
func freeNetwork(tb testing.TB) string {
	tb.Helper()
	for range 100 {
		network := fmt.Sprintf("198.%d.%d", 18+rand.IntN(2), rand.IntN(256))
		addrs, err := net.InterfaceAddrs()
		if err != nil {
			tb.Fatal(err)
		}
		if !slices.ContainsFunc(addrs, func(a net.Addr) bool { return strings.HasPrefix(a.String(), network+".") }) {
			return network
		}
	}
	tb.Fatal("this machine is on all networks")
	return ""
}

// Plug takes a host of newLAN off the network, or puts it there again.
func (h *Host) Plug(tb testing.TB, in bool) {
	tb.Helper()
	state := "down"
	if in {
		state = "up"
	}
	ip(tb, h.hub, "link", "set", h.port, state)
}

// Part keeps two hosts from reaching each other, or lets them again. Others reach both.
func (h *Host) Part(tb testing.TB, other *Host, apart bool) {
	tb.Helper()
	verb := "delete"
	if apart {
		verb = "add"
	}
	ip(tb, h, "route", verb, "blackhole", other.address+"/32")
	ip(tb, other, "route", verb, "blackhole", h.address+"/32")
}

func newHost(tb testing.TB, name, address string) *Host {
	tb.Helper()
	ip(tb, nil, "netns", "add", name)
	tb.Cleanup(func() { ip(tb, nil, "netns", "delete", name) })
	h := &Host{name: name, address: address}
	ip(tb, h, "link", "set", "lo", "up")
	return h
}

// ip runs ip(8), in the namespace of h unless it is nil.
func ip(tb testing.TB, h *Host, args ...string) {
	tb.Helper()
	if h != nil {
		args = append([]string{"-netns", h.name}, args...)
	}
	argv := asRoot(append([]string{"ip"}, args...)...)
	if out, err := exec.Command(argv[0], argv[1:]...).CombinedOutput(); err != nil {
		tb.Fatalf("%s: %v: %s(network namespaces need root, or sudo without a password)", strings.Join(argv, " "), err, out)
	}
}

// asRoot returns the command that runs argv as root.
func asRoot(argv ...string) []string {
	if os.Getuid() == 0 {
		return argv
	}
	return append([]string{"sudo", "-n"}, argv...)
}
