package e2e

import (
	"context"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// Two gateways on hosts of their own share an etcd. While nodes come and go they render the same bytes, the order of the
// ip_hash slots included, so that a client lands on the same node through either.
func TestTwoGatewaysRenderTheSame(t *testing.T) {
	t.Parallel()
	hub, hosts := newHosts(t, 2)
	etcd := startEtcd(t, hub)
	var gateways []*Gateway
	for i, host := range hosts {
		gateways = append(gateways, startGateway(t, GatewayOptions{Name: fmt.Sprintf("gw%d", i+1), Registry: etcd.URL, Host: host}))
	}
	// One port on both hosts, as a fleet has it.
	gateways[1].Port = gateways[0].Port
	gateways[0].Apply(document(gateways[0].Port, "ip_hash"))
	clients := startClients(t, hub)
	for i := range 12 {
		ip(t, hub, "address", "add", fmt.Sprintf("10.204.%d.1/32", i), "dev", "lo")
	}

	registered := map[string]*Process{}
	step := 0
	join := func(id string) {
		step++
		registered[id] = gateways[step%2].Register(id, startServer(t, hub, id).Address)
	}
	leave := func(id string) {
		step++
		registered[id].Stop()
		delete(registered, id)
	}
	compare := func() {
		sameFiles(t, gateways, len(registered))
		sameNodes(t, clients, gateways, step)
	}
	for _, change := range []func(){
		func() { join("a"); join("b"); join("c") },
		func() { leave("b") },            // its slot stays, down
		func() { join("d") },             // takes the free slot
		func() { join("e"); leave("a") }, // at once
	} {
		change()
		compare()
	}
	// The long version goes on by chance.
	for until := time.Now().Add(soak(t)); time.Now().Before(until) && !t.Failed(); compare() {
		id := string(rune('a' + rand.IntN(6)))
		if registered[id] == nil {
			join(id)
		} else if len(registered) > 1 {
			leave(id)
		}
	}
}

// sameFiles waits until both gateways have n nodes live, and compares their files.
func sameFiles(t *testing.T, gateways []*Gateway, n int) {
	t.Helper()
	eventually(t, 20*time.Second, "both gateways have the same revision live", func(context.Context) error {
		a, b := gateways[0].WaitNodes(20*time.Second, n), gateways[1].WaitNodes(20*time.Second, n)
		if a.RevisionLive != b.RevisionLive {
			return fmt.Errorf("%s has %s, %s has %s", a.Gateway, a.RevisionLive, b.Gateway, b.RevisionLive)
		}
		return nil
	})
	a, b := rendered(t, gateways[0]), rendered(t, gateways[1])
	if len(a) == 0 {
		t.Fatal("nothing is rendered")
	}
	if diff := cmp.Diff(a, b); diff != "" {
		t.Errorf("the gateways' files differ with %d nodes (-%s +%s):\n%s", n, gateways[0].Name, gateways[1].Name, diff)
	}
}

// sameNodes opens clients from several addresses through both gateways: each address must get the same node from both.
func sameNodes(t *testing.T, clients *Clients, gateways []*Gateway, step int) {
	t.Helper()
	for i := range 12 {
		var nodes []string
		for _, g := range gateways {
			name := fmt.Sprintf("%d %d %s", step, i, g.Name)
			s, err := clients.Open(t.Context(), name, ClientOptions{
				URL: g.URL(), Transports: upgrading, LocalAddress: fmt.Sprintf("10.204.%d.1", i),
			})
			if err != nil {
				t.Fatalf("client %d through %s: %v", i, g.Name, err)
			}
			nodes = append(nodes, s.Node)
			// One that stayed would keep the workers of this generation, and so the next reload would have to wait.
			if err := clients.Close(t.Context(), name); err != nil {
				t.Fatal(err)
			}
		}
		if nodes[0] != nodes[1] {
			t.Errorf("client %d is on %s through one gateway, on %s through the other", i, nodes[0], nodes[1])
		}
	}
}

// rendered returns the files that nginx reads, by path, but for those that belong to one machine and one reload.
func rendered(t *testing.T, g *Gateway) map[string]string {
	t.Helper()
	files := map[string]string{}
	dir, err := filepath.EvalSymlinks(filepath.Join(g.Dir, "nginx", "current"))
	if err != nil {
		t.Fatal(err)
	}
	err = filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case entry.Name() == "control":
			return fs.SkipDir
		case entry.IsDir() || entry.Name() == "sluice.json":
			return nil
		}
		text, err := os.ReadFile(path)
		files[path[len(dir):]] = string(text)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}
