package e2e

import (
	"context"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"sluice/controlplane"
)

// store is a registry in a process of its own.
type store interface {
	Kill()
	Start()
	Wipe()
}

// stores are the registries that a test runs on.
var stores = map[string]func(testing.TB) (url string, s store){
	"etcd": func(tb testing.TB) (string, store) {
		e := startEtcd(tb, nil)
		return e.URL, e
	},
	"consul": func(tb testing.TB) (string, store) {
		c := startConsul(tb, nil)
		return c.URL, c
	},
}

// onEachStore runs a test on each registry.
func onEachStore(t *testing.T, test func(t *testing.T, url string, s store)) {
	for name, start := range stores {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			url, s := start(t)
			test(t, url, s)
		})
	}
}

// guarded is an upstream whose checks are quick, and prove who answers.
func guarded(port int) string {
	const check = "check: {type: http, path: /health, interval: 1s, timeout: 1s, fall: 3, rise: 1, identity: {header: X-Node-Id}}, "
	return strings.Replace(document(port, "round_robin"), "io: {", "io: {"+check, 1)
}

// register puts a server into the registry once; it does not beat.
func (g *Gateway) register(s *Server, ttl time.Duration) {
	g.tb.Helper()
	_, port, _ := strings.Cut(s.Address, ":")
	body := fmt.Sprintf(`{"address": "127.0.0.1", "port": %s, "ttl": %q}`, port, ttl)
	eventually(g.tb, 20*time.Second, "node "+s.ID+" is registered", func(ctx context.Context) error {
		req, err := http.NewRequestWithContext(ctx, http.MethodPut, g.API+"/v1/services/"+service+"/nodes/"+s.ID, strings.NewReader(body))
		if err != nil {
			return err
		}
		req.Header.Set("Content-Type", "application/json")
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		if resp.StatusCode != http.StatusOK {
			return fmt.Errorf("%s", resp.Status)
		}
		return nil
	})
}

// waitGuard waits until so many nodes are up, so many of them held, and what is wanted is live.
func (g *Gateway) waitGuard(within time.Duration, up, held int) controlplane.Status {
	g.tb.Helper()
	return g.Wait(within, fmt.Sprintf("%d nodes up, %d held", up, held), func(s controlplane.Status) error {
		u := controlplane.UpstreamStatus{}
		if len(s.Upstreams) > 0 {
			u = s.Upstreams[0]
		}
		if s.Phase != controlplane.InStep || s.Nodes != up || u.Held != held || (held > 0) != strings.Contains(u.Alarm, "held") {
			return fmt.Errorf("%d nodes, %+v, %s", s.Nodes, u, s.Phase)
		}
		return nil
	})
}

// What happens to a fleet whose registrations run out while it answers, that turns red as a whole, that hangs, whose address is
// taken by another, and that is really killed.
func TestGuard(t *testing.T) {
	t.Parallel()
	onEachStore(t, func(t *testing.T, url string, _ store) {
		const n = 10
		g := startGateway(t, GatewayOptions{Registry: url, Args: leaving})
		g.Apply(guarded(g.Port))
		var servers []*Server
		for i := range n {
			servers = append(servers, startServer(t, nil, fmt.Sprintf("n%d", i)))
		}
		for _, s := range servers {
			g.register(s, 8*time.Second)
		}
		g.waitGuard(30*time.Second, n, 0)
		fleet := openFleet(t, g.Addr(), 40)
		load := startLoad(t, g.Addr(), LoadOptions{Pause: 20 * time.Millisecond})

		// Nobody beats: all registrations run out.
		g.waitGuard(90*time.Second, n, n)
		g.wantCLIStatus("sluice approve io")
		g.Kill() // in the middle of the hold
		g.Start()
		g.waitGuard(30*time.Second, n, n)
		for _, s := range servers {
			g.register(s, 10*time.Minute)
		}
		g.waitGuard(30*time.Second, n, 0)

		// All checks fail at once: what they have in common died.
		for _, s := range servers {
			s.Signal(syscall.SIGUSR2)
		}
		g.Wait(30*time.Second, "checks are ignored", func(s controlplane.Status) error {
			if len(s.Alarms) != 1 || !strings.Contains(s.Alarms[0].Message, "ignored") || s.Nodes != n {
				return fmt.Errorf("%d nodes, alarms %v", s.Nodes, s.Alarms)
			}
			return nil
		})
		for _, s := range servers {
			s.Signal(syscall.SIGUSR2)
		}
		g.Wait(30*time.Second, "all is well", func(s controlplane.Status) error {
			if len(s.Alarms) != 0 || len(s.Exceptions) != 0 || s.Nodes != n {
				return fmt.Errorf("%d nodes, alarms %v, %v", s.Nodes, s.Alarms, s.Exceptions)
			}
			return nil
		})
		fleet.WantAlive()
		t.Logf("request loop: %s", load.WantNoFailure())

		// One hangs; it comes back.
		hung := time.Now()
		servers[0].Signal(syscall.SIGSTOP)
		g.waitGuard(30*time.Second, n-1, 0)
		t.Logf("a hung node is out after %s, with checks each second that may fail twice", time.Since(hung).Round(10*time.Millisecond))
		servers[0].Signal(syscall.SIGCONT)
		g.waitGuard(30*time.Second, n, 0)

		// Another process gets the address of one.
		_, port, _ := strings.Cut(servers[1].Address, ":")
		servers[1].Kill()
		at, err := strconv.Atoi(port)
		if err != nil {
			t.Fatal(err)
		}
		stranger := startServerAt(t, nil, "stranger", at)
		g.Wait(30*time.Second, "the stranger is out", func(s controlplane.Status) error {
			if s.Nodes != n-1 || len(s.Exceptions) != 1 || s.Exceptions[0].State != controlplane.NodeStranger {
				return fmt.Errorf("%d nodes, %+v", s.Nodes, s.Exceptions)
			}
			return nil
		})
		stranger.Kill()

		// All are killed: they refuse, so nobody is held.
		killed := time.Now()
		for _, s := range servers {
			s.Kill()
		}
		g.waitGuard(60*time.Second, 0, 0)
		t.Logf("%d nodes that were killed are out after %s", n-1, time.Since(killed).Round(10*time.Millisecond))
	})
}

// A registry that is wiped and started empty takes nothing away: what was there stands, and is put back.
func TestRegistryWiped(t *testing.T) {
	t.Parallel()
	onEachStore(t, func(t *testing.T, url string, s store) {
		g := startGateway(t, GatewayOptions{Registry: url})
		g.Apply(document(g.Port, "ip_hash"))
		g.StartNodes(3)
		before := g.WaitLive(20 * time.Second)
		fleet := openFleet(t, g.Addr(), 20)
		load := startLoad(t, g.Addr(), LoadOptions{Pause: 20 * time.Millisecond})

		s.Kill()
		s.Wipe()
		s.Start()
		back := time.Now()
		eventually(t, 60*time.Second, "the objects are in the registry again", func(ctx context.Context) error {
			_, err := g.get(ctx, "/v1/sites/chat")
			return err
		})
		after := g.Wait(60*time.Second, "all is as before", func(s controlplane.Status) error {
			if s.Phase != controlplane.InStep || s.Nodes != 3 || len(s.Alarms) != 0 || s.SeqLive == 0 || s.SeqLive != s.SeqWanted || !s.Registry.Connected {
				return fmt.Errorf("%s, %d nodes, seq %d, alarms %v", s.Phase, s.Nodes, s.SeqLive, s.Alarms)
			}
			return nil
		})
		t.Logf("right again %s after the empty registry answered", time.Since(back).Round(10*time.Millisecond))
		if after.RevisionLive != before.RevisionLive {
			t.Errorf("revision %s, before %s", after.RevisionLive, before.RevisionLive)
		}
		if b, a := before.Nginx.Generations[0].Number, after.Nginx.Generations[0].Number; a != b {
			t.Errorf("generation %d, before %d: it reloaded", a, b)
		}
		g.StartNode("n4")
		g.WaitNodes(30*time.Second, 4)
		fleet.WantAlive()
		t.Logf("request loop: %s", load.WantNoFailure())
	})
}
