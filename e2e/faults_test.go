package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"sluice/controlplane"
)

// wantFailed waits until the gateway says that it could not apply what is wanted, for a reason that contains want.
func (g *Gateway) wantFailed(within time.Duration, want string) controlplane.Status {
	g.tb.Helper()
	return g.Wait(within, "failed: "+want, func(s controlplane.Status) error {
		if s.Phase != controlplane.Failed || s.Failure == nil || !strings.Contains(s.Failure.Message, want) {
			return fmt.Errorf("%s, %+v", s.Phase, s.Failure)
		}
		return nil
	})
}

// wantProblem waits until a problem of the gateway contains all of parts.
func (g *Gateway) wantProblem(within time.Duration, parts ...string) {
	g.tb.Helper()
	g.Wait(within, "problem: "+strings.Join(parts, ", "), func(s controlplane.Status) error {
		for _, p := range s.Problems {
			missing := false
			for _, part := range parts {
				missing = missing || !strings.Contains(p.String(), part)
			}
			if !missing {
				return nil
			}
		}
		return fmt.Errorf("problems: %v", s.Problems)
	})
}

// wantCLIStatus fails the test unless what `sluice status` prints for people contains want.
func (g *Gateway) wantCLIStatus(want string) {
	g.tb.Helper()
	text, err := g.CLI(g.tb.Context(), "", "status")
	if err != nil || !strings.Contains(text, want) {
		g.tb.Errorf("sluice status does not say %q (%v):\n%s", want, err, text)
	}
}

// serves waits until a request through nginx is answered by a node.
func (g *Gateway) serves(within time.Duration) {
	g.tb.Helper()
	eventually(g.tb, within, "nginx serves", func(ctx context.Context) error {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, g.URL()+"/whoami", nil)
		if err != nil {
			return err
		}
		resp, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true}}).Do(req)
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		if resp.StatusCode != http.StatusOK {
			return errors.New(resp.Status)
		}
		return nil
	})
}

// leaving has nginx outlive sluice, as it does by default.
var leaving = []string{"--on-exit", "leave"}

func TestBrokenTemplateOverride(t *testing.T) {
	t.Parallel()
	overrides := tempDir(t)
	g := startGateway(t, GatewayOptions{Args: []string{"--templates", overrides}})
	g.Apply(document(g.Port, "ip_hash"))
	g.StartNodes(2)
	load := startLoad(t, g.Addr(), LoadOptions{})
	override := filepath.Join(overrides, "upstream.conf.tmpl")
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(override, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}

	write("upstream {{if}")
	g.wantFailed(10*time.Second, "upstream.conf.tmpl")
	write("upstream sluice_io { bogus on; }\n")
	g.wantFailed(10*time.Second, `unknown directive "bogus"`)
	g.wantCLIStatus(`unknown directive "bogus"`)
	if err := os.Remove(override); err != nil {
		t.Fatal(err)
	}
	g.WaitNodes(10*time.Second, 2)
	t.Logf("request loop: %s", load.WantNoFailure())
}

// nginx -t does not notice that a port is taken; the reload does, and is undone.
func TestPortTakenByAnotherProcess(t *testing.T) {
	t.Parallel()
	g := startGateway(t, GatewayOptions{})
	g.Apply(document(g.Port, "ip_hash"))
	g.StartNodes(2)
	load := startLoad(t, g.Addr(), LoadOptions{})
	thief, err := net.Listen("tcp", ":"+strconv.Itoa(g.Port2))
	if err != nil {
		t.Fatal(err)
	}
	defer thief.Close()

	listeners := fmt.Sprintf("[{port: %d}, {port: %d}]", g.Port, g.Port2)
	g.Apply(strings.Replace(document(g.Port, "ip_hash"), fmt.Sprintf("[{port: %d}]", g.Port), listeners, 1))
	g.wantProblem(20*time.Second, "site/chat", "Address already in use", "it stays as it was")
	g.wantCLIStatus("Address already in use")
	g.StartNode("n3") // what is not concerned goes on
	g.WaitNodes(20*time.Second, 3)
	g.serves(time.Second)
	if err := thief.Close(); err != nil {
		t.Fatal(err)
	}
	eventually(t, time.Minute, "the second listener is there, at the next try", func(ctx context.Context) error {
		conn, err := dialerFrom(0).DialContext(ctx, "tcp", "127.0.0.1:"+strconv.Itoa(g.Port2))
		if err == nil {
			err = conn.Close()
		}
		return err
	})
	t.Logf("request loop: %s", load.WantNoFailure())
}

func TestNginxMasterKilled(t *testing.T) {
	t.Parallel()
	g := startGateway(t, GatewayOptions{})
	g.Apply(document(g.Port, "round_robin"))
	g.StartNodes(2)
	fleet := openFleet(t, g.Addr(), 20)
	load := startLoad(t, g.Addr(), LoadOptions{Clients: 2})

	for range 2 {
		before := g.Status().Nginx.PID
		if err := syscall.Kill(before, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		g.Wait(15*time.Second, "another master", func(s controlplane.Status) error {
			if !s.Nginx.Running || s.Nginx.PID == before || s.Phase != controlplane.InStep {
				return fmt.Errorf("%s, pid %d", s.Phase, s.Nginx.PID)
			}
			return nil
		})
		g.serves(time.Second)
		fleet.WantAlive()
	}
	t.Logf("request loop over two deaths of the master: %s", load.Stop())
}

func TestAllOfNginxKilled(t *testing.T) {
	t.Parallel()
	g := startGateway(t, GatewayOptions{})
	g.Apply(document(g.Port, "ip_hash"))
	g.StartNodes(2)
	g.serves(time.Second)
	died := time.Now()
	for _, pid := range g.Nginx() {
		_ = syscall.Kill(pid, syscall.SIGKILL) // a worker may have ended with its master
	}
	g.serves(10 * time.Second)
	t.Logf("nginx serves again %s after all of it was killed", time.Since(died).Round(time.Millisecond))
	g.WaitNodes(5*time.Second, 2)
}

// Killed at any moment while it makes changes live, sluice leaves something that serves, and its successor goes on.
func TestSluiceKilledAtAnyMoment(t *testing.T) {
	t.Parallel()
	onEachStore(t, func(t *testing.T, url string, _ store) {
		g := startGateway(t, GatewayOptions{Registry: url, Args: leaving})
		g.Apply(document(g.Port, "least_conn"))
		other := startGateway(t, GatewayOptions{Name: "other", Registry: url, Args: []string{"--group", "other"}})
		nodes := other.startServers(3)
		g.WaitNodes(20*time.Second, 3)
		fleet := openFleet(t, g.Addr(), 20)
		load := startLoad(t, g.Addr(), LoadOptions{Clients: 2})

		rng := rand.New(rand.NewPCG(3, 7))
		for i := range 8 {
			other.putNode("extra", nodes[i%len(nodes)].Port, i%2 == 0)
			pause(t, time.Duration(rng.IntN(200))*time.Millisecond)
			g.Kill()
			g.Start()
		}
		other.putNode("extra", nodes[0].Port, false)
		g.WaitNodes(20*time.Second, 3)
		fleet.WantAlive()
		t.Logf("request loop over 8 kills: %s", load.WantNoFailure())
	})
}

// A change of many objects is made as a whole or not at all, whenever the instance that makes it is killed.
func TestChangeIsAllOrNothing(t *testing.T) {
	t.Parallel()
	onEachStore(t, func(t *testing.T, url string, _ store) {
		const objects, rounds = 50, 10
		g := startGateway(t, GatewayOptions{Registry: url, Args: leaving})
		other := startGateway(t, GatewayOptions{Name: "other", Registry: url})
		change := func(weight int) string {
			var b strings.Builder
			for i := range objects {
				fmt.Fprintf(&b, `, "io/n%d": {"weight": %d}`, i, weight)
			}
			return `{"overrides": {` + b.String()[2:] + "}}"
		}
		apply := func(weight int) error {
			req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, g.API+"/v1/apply", strings.NewReader(change(weight)))
			if err != nil {
				return err
			}
			req.Header.Set("Content-Type", "application/json")
			// A connection of the instance that was killed would be used again, and the change would not reach the next one.
			resp, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true}}).Do(req)
			if err != nil {
				return err
			}
			defer resp.Body.Close()
			if resp.StatusCode != http.StatusOK {
				return errors.New(resp.Status)
			}
			return nil
		}
		weights := func() (all map[int]int, seq uint64) {
			t.Helper()
			text, err := other.get(t.Context(), "/v1/overrides")
			var list struct {
				Seq   uint64
				Items []struct{ Spec struct{ Weight int } }
			}
			if err == nil {
				err = json.Unmarshal(text, &list)
			}
			if err != nil {
				t.Fatal(err)
			}
			all = map[int]int{}
			for _, i := range list.Items {
				all[i.Spec.Weight]++
			}
			return all, list.Seq
		}
		if err := apply(1); err != nil {
			t.Fatal(err)
		}
		made := 0
		for round := range rounds {
			_, before := weights()
			ended := make(chan error, 1)
			go func() { ended <- apply(round + 2) }()
			if round < rounds-1 { // the last one gets to its end
				pause(t, time.Duration(round)*2*time.Millisecond)
			} else {
				said := <-ended
				ended <- said
			}
			g.Kill()
			said := <-ended
			all, after := weights()
			if len(all) != 1 || said == nil && all[round+2] != objects || after > before+1 {
				t.Errorf("round %d, seq %d to %d, apply said %v: objects by weight %v", round, before, after, said, all)
			}
			made += int(after - before)
			g.Start()
		}
		if made == 0 {
			t.Error("no change was made: all kills came too early to show anything")
		}
		t.Logf("killed -9 %d times: %d changes of %d objects were made, the others not at all", rounds, made, objects)
	})
}

// Without etcd and without nginx, sluice serves what it last knew, and says that it is stale.
func TestEtcdAwayAtStart(t *testing.T) {
	t.Parallel()
	etcd := startEtcd(t, nil)
	g := startGateway(t, GatewayOptions{Registry: etcd.URL})
	g.Apply(document(g.Port, "ip_hash"))
	g.StartNodes(2)
	live := g.Status().RevisionLive
	g.Stop() // and nginx with it
	etcd.Kill()

	g.Start()
	s := g.Wait(20*time.Second, "serves from the disk", func(s controlplane.Status) error {
		if s.Phase != controlplane.InStep || !s.Stale {
			return fmt.Errorf("%s, stale %t", s.Phase, s.Stale)
		}
		return nil
	})
	if s.RevisionLive != live || s.Registry.Connected {
		t.Errorf("revision %s, before %s; registry %+v", s.RevisionLive, live, s.Registry)
	}
	g.serves(time.Second)
	g.wantCLIStatus("last proven good")
	etcd.Start()
	g.Wait(20*time.Second, "not stale any more", func(s controlplane.Status) error {
		if s.Stale || s.Nodes != 2 {
			return fmt.Errorf("stale %t, %d nodes", s.Stale, s.Nodes)
		}
		return nil
	})
}

// What somebody writes into etcd by hand can spoil nothing but itself.
func TestHostileNodesInEtcd(t *testing.T) {
	t.Parallel()
	etcd := startEtcd(t, nil)
	g := startGateway(t, GatewayOptions{Registry: etcd.URL})
	g.Apply(document(g.Port, "round_robin"))
	g.StartNodes(2)
	load := startLoad(t, g.Addr(), LoadOptions{})
	put := func(id, value string) { etcd.Ctl("put", "/sluice/default/state/nodes/io/"+id, value) }
	node := func(id, address string) string {
		return fmt.Sprintf(`{"v":1,"ttl":15,"node":{"service":"io","id":%q,"address":%q,"port":6001}}`, id, address)
	}

	put("garbage", "\xff{not json")
	g.wantProblem(10*time.Second, "garbage")
	put("escape", node("escape", "127.0.0.1:1; } } evil {"))
	g.wantProblem(10*time.Second, "escape", "is not an IP address")
	put("name", node("name", "localhost"))
	g.wantProblem(10*time.Second, "name", "host names are not resolved")
	put("socket", `{"v":1,"ttl":15,"node":{"service":"io","id":"socket","address":"unix:/tmp/a;}b"}}`)
	g.wantProblem(10*time.Second, "socket", "unix socket")
	put("n$host", node("n$host", "10.0.0.1\n;load_module x;"))
	g.wantProblem(10*time.Second, "n$host")

	g.StartNode("n3")
	if s := g.WaitNodes(20*time.Second, 3); len(s.Problems) != 5 {
		t.Errorf("problems: %v", s.Problems)
	}
	g.wantCLIStatus("host names are not resolved")
	etcd.Ctl("del", "--prefix", "/sluice/default/state/nodes/io/g")
	g.Wait(10*time.Second, "one problem less", func(s controlplane.Status) error {
		if len(s.Problems) != 4 {
			return fmt.Errorf("problems: %v", s.Problems)
		}
		return nil
	})
	t.Logf("request loop: %s", load.WantNoFailure())
}

func TestFullDisk(t *testing.T) {
	t.Parallel()
	etcd := startEtcd(t, nil)
	disk := tempDir(t)
	mount := asRoot("mount", "-t", "tmpfs", "-o", "size=1m,mode=755,uid="+strconv.Itoa(os.Getuid()), "sluice-e2e", disk)
	if out, err := exec.Command(mount[0], mount[1:]...).CombinedOutput(); err != nil {
		t.Fatalf("mount a small file system: %v: %s", err, out)
	}
	t.Cleanup(func() {
		// Lazily: nginx, which ends after this, still has its logs there.
		umount := asRoot("umount", "-l", disk)
		if out, err := exec.Command(umount[0], umount[1:]...).CombinedOutput(); err != nil {
			t.Errorf("umount: %v: %s", err, out)
		}
	})
	g := startGateway(t, GatewayOptions{Registry: etcd.URL, Args: []string{"--state-dir", filepath.Join(disk, "gw")}})
	g.Apply(document(g.Port, "ip_hash"))
	g.StartNodes(2)
	load := startLoad(t, g.Addr(), LoadOptions{Pause: 20 * time.Millisecond})

	filler := filepath.Join(disk, "filler")
	if err := os.WriteFile(filler, make([]byte, 2<<20), 0o600); !errors.Is(err, syscall.ENOSPC) {
		t.Fatalf("filling the disk: %v", err)
	}
	g.StartNode("n3")
	g.wantFailed(20*time.Second, "no space left on device")
	g.serves(time.Second)
	if err := os.Remove(filler); err != nil {
		t.Fatal(err)
	}
	g.WaitNodes(30*time.Second, 3)
	t.Logf("request loop: %s", load.WantNoFailure())
}

// A restart and a kill -9 of sluice cost no socket and no reload.
func TestRestartOfSluice(t *testing.T) {
	t.Parallel()
	onEachStore(t, func(t *testing.T, url string, _ store) {
		g := startGateway(t, GatewayOptions{Registry: url, Args: leaving})
		g.Apply(document(g.Port, "ip_hash"))
		other := startGateway(t, GatewayOptions{Name: "other", Registry: url, Args: []string{"--group", "other"}})
		other.startServers(3)
		g.WaitNodes(20*time.Second, 3)
		fleet := openFleet(t, g.Addr(), 50)
		load := startLoad(t, g.Addr(), LoadOptions{})
		workers := fmt.Sprint(g.Nginx())

		for name, end := range map[string]func(){"SIGTERM": g.Stop, "SIGKILL": g.Kill} {
			end()
			g.serves(time.Second)
			g.Start()
			g.WaitNodes(20*time.Second, 3)
			if now := fmt.Sprint(g.Nginx()); now != workers {
				t.Errorf("%s: nginx's processes were %s, and are %s", name, workers, now)
			}
		}
		fleet.WantAlive()
		t.Logf("request loop: %s", load.WantNoFailure())
	})
}

// startServers starts n servers of the example and registers them with long leases through the gateway's API.
func (g *Gateway) startServers(n int) []*Node {
	g.tb.Helper()
	var nodes []*Node
	for i := range n {
		nodes = append(nodes, g.StartNode(fmt.Sprintf("n%d", i+1)))
	}
	return nodes
}

// putNode registers a node through the API once, or removes it.
func (g *Gateway) putNode(id string, port int, present bool) {
	g.tb.Helper()
	if err := g.tryNode(g.tb.Context(), id, "127.0.0.1", port, present); err != nil {
		g.tb.Fatal(err)
	}
}

// tryNode is putNode with an address, and returns what went wrong.
func (g *Gateway) tryNode(ctx context.Context, id, address string, port int, present bool) error {
	method, body := http.MethodDelete, ""
	if present {
		method, body = http.MethodPut, fmt.Sprintf(`{"address": %q, "port": %d, "ttl": "10m"}`, address, port)
	}
	url := fmt.Sprintf("%s/v1/services/%s/nodes/%s", g.API, service, id)
	req, err := http.NewRequestWithContext(ctx, method, url, strings.NewReader(body))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode >= 300 && (present || resp.StatusCode != http.StatusNotFound) {
		return fmt.Errorf("%s %s: %s", method, url, resp.Status)
	}
	return nil
}
