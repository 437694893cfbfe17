package e2e

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"
)

// Real clients, 60 at once from as many addresses: each gets its session, and the session stays on its node.
func TestSocketIOSessionsStayOnTheirNode(t *testing.T) {
	t.Parallel()
	onEachStore(t, func(t *testing.T, url string, _ store) {
		g := startGateway(t, GatewayOptions{Registry: url})
		g.Apply(document(g.Port, "ip_hash"))
		g.StartNodes(3)
		clients := startClients(t, nil)
		for name, transports := range map[string][]string{
			"polling then upgrade": upgrading,
			"polling only":         pollingOnly,
			"websocket only":       websocketOnly,
		} {
			t.Run(name, func(t *testing.T) {
				nodes := map[string]int{}
				for i, s := range openClients(t, clients, name, g.URL(), transports, nil) {
					nodes[s.Node]++
					if want := transports[len(transports)-1]; s.Transport != want {
						t.Errorf("client %d is on %s, want %s", i, s.Transport, want)
					}
					if s.Address != clientAddress(i) {
						t.Errorf("the node sees %s of client %d at %s", s.Address, i, clientAddress(i))
					}
				}
				if len(nodes) != 3 {
					t.Errorf("clients are on %v, want all of 3 nodes", nodes)
				}
				for client, reason := range clients.Ended() {
					t.Errorf("session of client %s has ended: %s", client, reason)
				}
			})
		}
	})
}

// Clients of the same address get the same node over every transport, and when they connect again.
func TestSocketIOSameAddressSameNode(t *testing.T) {
	t.Parallel()
	g := startGateway(t, GatewayOptions{})
	g.Apply(document(g.Port, "ip_hash"))
	g.StartNodes(3)
	clients := startClients(t, nil)
	upgraded := openClients(t, clients, "first", g.URL(), upgrading, nil)
	again := openClients(t, clients, "again", g.URL(), websocketOnly, nil)
	for i := range upgraded {
		if upgraded[i].Node != again[i].Node {
			t.Errorf("client %s was on %s and is on %s", clientAddress(i), upgraded[i].Node, again[i].Node)
		}
	}
}

// Round robin sends a session's next poll to a node that does not know it. This is why ip_hash is the default; were it not
// so, the tests above would prove nothing.
func TestSocketIORoundRobinBreaksPolling(t *testing.T) {
	t.Parallel()
	g := startGateway(t, GatewayOptions{})
	g.Apply(document(g.Port, "round_robin"))
	g.StartNodes(3)
	clients := startClients(t, nil)
	var errs []error
	openClients(t, clients, "polling", g.URL(), upgrading, &errs)
	broken := slices.DeleteFunc(errs, func(err error) bool { return err == nil })
	t.Logf("round robin: %d of %d clients failed, the first: %v", len(broken), len(errs), broken[0])
	if len(broken) < len(errs)/2 {
		t.Errorf("%d of %d clients failed, want most of them", len(broken), len(errs))
	}
	if !slices.ContainsFunc(broken, func(err error) bool { return strings.Contains(err.Error(), "400") }) {
		t.Errorf("no client was told 400, that its session is unknown: %v", broken[0])
	}
	openClients(t, clients, "websocket", g.URL(), websocketOnly, nil) // needs no stickiness
}

// openClients opens 60 clients at once, from as many addresses, and then has each ask its node three times. The answers
// must all come from the same node and session. Errors fail the test, or go to errs, by client.
func openClients(t *testing.T, clients *Clients, name, url string, transports []string, errs *[]error) []Session {
	t.Helper()
	const count = 60
	ctx, cancel := context.WithTimeout(t.Context(), 45*time.Second)
	defer cancel()
	sessions, failures := make([]Session, count), make([]error, count)
	var group errgroup.Group
	for i := range count {
		group.Go(func() error {
			sessions[i], failures[i] = openAndAsk(ctx, clients, fmt.Sprintf("%s %d", name, i), ClientOptions{
				URL: url, Transports: transports, LocalAddress: clientAddress(i),
			})
			return nil
		})
	}
	_ = group.Wait() // the failures are kept by client
	if errs != nil {
		*errs = failures
		return sessions
	}
	for i, err := range failures {
		if err != nil {
			t.Errorf("client %d over %v: %v", i, transports, err)
		}
	}
	return sessions
}

func openAndAsk(ctx context.Context, clients *Clients, name string, o ClientOptions) (Session, error) {
	s, err := clients.Open(ctx, name, o)
	if err != nil {
		return s, err
	}
	for range 3 {
		again, err := clients.Ask(ctx, name)
		if err != nil {
			return s, err
		}
		if again.Node != s.Node || again.SID != s.SID {
			return s, fmt.Errorf("session %s of node %s is now %s of node %s", s.SID, s.Node, again.SID, again.Node)
		}
	}
	return s, nil
}
