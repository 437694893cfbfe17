package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
)

// Host is a network namespace: a machine of its own, as far as the network goes. A nil Host is this machine.
type Host struct {
	name    string
	address string
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
