package e2e

import (
	"fmt"
	"testing"
	"time"
)

// From 3 nodes to 5 to 2 under live WebSockets and a request loop: no socket of a node that stays ends, no request fails.
// The long version goes on like that; each round leaves workers behind that live for their sockets, so that reloads are
// spaced further and further.
func TestScaleUnderLoad(t *testing.T) {
	t.Parallel()
	within, until := 20*time.Second, time.Now().Add(soak(t))
	if soak(t) > 0 {
		within = 2 * time.Minute
	}
	g := startGateway(t, GatewayOptions{})
	g.Apply(document(g.Port, "round_robin"))
	g.StartNodes(2)
	third := g.StartNode("n3")
	g.WaitNodes(within, 3)
	fleet := openFleet(t, g.Addr(), 500)
	load := startLoad(t, g.Addr(), LoadOptions{Clients: 4})

	for round := 1; ; round++ {
		leaving := []*Node{third, g.StartNode(fmt.Sprintf("n4-%d", round)), g.StartNode(fmt.Sprintf("n5-%d", round))}
		g.WaitNodes(within, 5)
		fleet.WantAlive(gone(round)...)
		fleet.Open(50)
		before := fleet.Alive()
		for _, n := range leaving[1:] {
			if before[n.ID] == 0 {
				t.Errorf("round %d: no new socket is on %s: %v", round, n.ID, before)
			}
		}

		for _, n := range leaving {
			n.Leave()
		}
		for _, n := range leaving {
			<-n.Done()
		}
		g.WaitNodes(within, 2)
		fleet.WantAlive(gone(round + 1)...)
		if after := fleet.Alive(); after["n1"] != before["n1"] || after["n2"] != before["n2"] {
			t.Errorf("round %d: sockets before %v, after %v", round, before, after)
		}
		if t.Failed() || time.Now().After(until) {
			t.Logf("%d rounds, %d WebSockets; request loop: %s", round, fleet.Len(), load.WantNoFailure())
			return
		}
		third = g.StartNode(fmt.Sprintf("n3-%d", round+1))
		g.WaitNodes(within, 3)
	}
}

// gone returns the nodes that have left before a round.
func gone(round int) []string {
	if round == 1 {
		return nil
	}
	ids := []string{"n3"}
	for r := 1; r < round; r++ {
		ids = append(ids, fmt.Sprintf("n3-%d", r), fmt.Sprintf("n4-%d", r), fmt.Sprintf("n5-%d", r))
	}
	return ids
}

// A node that dies without a word leaves the rotation when its lease has run out; one that deregisters, with the next
// reload, and before its process ends.
func TestNodesLeave(t *testing.T) {
	t.Parallel()
	onEachStore(t, func(t *testing.T, url string, _ store) {
		const ttl = 3 * time.Second
		g := startGateway(t, GatewayOptions{Registry: url})
		g.Apply(document(g.Port, "ip_hash"))
		nodes := g.StartNodes(3, "--ttl", ttl.String())

		killed := time.Now()
		nodes[0].Kill()
		g.WaitNodes(20*time.Second, 2)
		t.Logf("killed with -9: out after %s, with a ttl of %s", time.Since(killed).Round(10*time.Millisecond), ttl)

		left := time.Now()
		nodes[1].Leave()
		g.WaitNodes(20*time.Second, 1)
		t.Logf("deregistered: out after %s", time.Since(left).Round(10*time.Millisecond))
		select {
		case <-nodes[1].Done():
			t.Error("the node ended before it was out of the rotation")
		default:
		}
		if code := nodes[1].ExitCode(); code != 0 {
			t.Errorf("sluice register ends with code %d; its command ended with 0", code)
		}
	})
}

// nginx closes idle keep-alive connections at a reload, and a request that races with that is reset. It is nginx's, not
// sluice's: as many bare HUPs of a hand-written nginx do the same, and the two are printed side by side.
func TestKeepAliveResetsBesideBareHUP(t *testing.T) {
	t.Parallel()
	reloads := 6
	if d := soak(t); d > 0 {
		reloads = int(d/(10*time.Second)) + 2
	}
	options := LoadOptions{Clients: 16, KeepAlive: true, Post: true}

	g := startGateway(t, GatewayOptions{})
	g.Apply(document(g.Port, "ip_hash"))
	node := g.StartNodes(1)[0]
	spare := startServer(t, nil, "spare").Address
	load := startLoad(t, g.Addr(), options)
	var registered *Process
	for i := range reloads {
		if i%2 == 0 {
			registered = g.Register("spare", spare)
			g.WaitNodes(20*time.Second, 2)
		} else {
			registered.Stop()
			g.WaitNodes(20*time.Second, 1)
		}
	}
	ours := load.WantNoFailure()

	bare := startBareNginx(t, proxyTo(fmt.Sprintf("127.0.0.1:%d", node.Port)))
	load = startLoad(t, bare.Addr(), options)
	for range reloads {
		pause(t, time.Second) // as sluice spaces its reloads
		bare.Reload()
	}
	theirs := load.WantNoFailure()

	t.Logf("keep-alive POST clients, %d reloads:", reloads)
	t.Logf("  sluice:   %6d requests, %3d reset", ours.Requests, ours.Reset)
	t.Logf("  bare HUP: %6d requests, %3d reset", theirs.Requests, theirs.Reset)
}
