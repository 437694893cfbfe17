package e2e

import (
	"context"
	"fmt"
	"net"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"sluice/controlplane"
	"sluice/internal/testport"
)

// oldGenerations counts the generations of workers that live on for their open connections.
func oldGenerations(s controlplane.Status) (old, workers int) {
	for _, g := range s.Nginx.Generations {
		workers += len(g.Workers)
		if g.Old {
			old++
		}
	}
	return old, workers
}

// storm opens a WebSocket every 50 ms and makes requests while run changes the fleet, and then asks for what must hold
// after it: at most 4 old generations, no socket dropped, no request failed, and n nodes within a minute.
func storm(t *testing.T, g *Gateway, n int, run func(ctx context.Context) error) {
	t.Helper()
	fleet := openFleet(t, g.Addr(), 20)
	load := startLoad(t, g.Addr(), LoadOptions{Clients: 2})
	ctx, cancel := context.WithCancel(t.Context())
	var sockets errgroup.Group
	sockets.Go(func() error {
		tick := time.NewTicker(50 * time.Millisecond)
		defer tick.Stop()
		for i := 0; ; i++ {
			select {
			case <-ctx.Done():
				return nil
			case <-tick.C:
			}
			// Not ctx: the end of the storm must not look like a failure.
			open, done := context.WithTimeout(t.Context(), 10*time.Second)
			err := fleet.OpenOne(open, i)
			done()
			if err != nil {
				return err
			}
		}
	})
	began := time.Now()
	err := run(ctx)
	took := time.Since(began)
	cancel()
	if err != nil {
		t.Errorf("the storm: %v", err)
	}
	if err := sockets.Wait(); err != nil {
		t.Errorf("a WebSocket was refused: %v", err)
	}
	old, workers := oldGenerations(g.Status())
	most := 4
	if late := took - 40*time.Second; late > 0 { // a machine that can't keep up makes it a longer storm
		most += 1 + int(late/(30*time.Second))
	}
	if old > most {
		t.Errorf("%d old generations live after a storm of %s, want at most %d", old, took, most)
	}
	ended := time.Now()
	g.WaitNodes(time.Minute, n)
	fleet.WantAlive()
	t.Logf("a storm of %s: %d WebSockets, %d old generations and %d workers at its end, the right set after %s; %s",
		took.Round(100*time.Millisecond), fleet.Len(), old, workers, time.Since(ended).Round(100*time.Millisecond), load.WantNoFailure())
}

// One node comes and goes 20 times a second.
func TestStormOfOneNode(t *testing.T) {
	t.Parallel()
	onEachStore(t, func(t *testing.T, url string, _ store) {
		g := startGateway(t, GatewayOptions{Registry: url})
		g.Apply(document(g.Port, "round_robin"))
		g.StartNodes(3)
		_, port, err := net.SplitHostPort(startServer(t, nil, "flip").Address)
		if err != nil {
			t.Fatal(err)
		}
		at, err := strconv.Atoi(port)
		if err != nil {
			t.Fatal(err)
		}
		storm(t, g, 4, func(ctx context.Context) error {
			tick := time.NewTicker(50 * time.Millisecond)
			defer tick.Stop()
			for i := range 201 { // the last one comes
				<-tick.C
				if err := g.keepTrying(ctx, "flip", "127.0.0.1", at, i%2 == 0); err != nil {
					return err
				}
			}
			return nil
		})
	})
}

// A thousand different nodes come and go within half a minute.
func TestStormOfManyNodes(t *testing.T) {
	t.Parallel()
	onEachStore(t, func(t *testing.T, url string, _ store) {
		g := startGateway(t, GatewayOptions{Registry: url})
		g.Apply(document(g.Port, "round_robin"))
		g.StartNodes(3)
		everywhere := startEverywhere(t, "many")
		const nodes, stay = 1000, 1500 * time.Millisecond
		const atOnce = 100 // twice as many as there are when all goes well: a machine that can't keep up makes it a longer storm
		storm(t, g, 3, func(ctx context.Context) error {
			tick := time.NewTicker(30 * time.Second / nodes)
			defer tick.Stop()
			group, ctx := errgroup.WithContext(ctx)
			group.SetLimit(atOnce)
			for i := range nodes {
				<-tick.C
				group.Go(func() error {
					if err := g.keepTrying(ctx, manyID(i), manyAddress(i), everywhere, true); err != nil {
						return err
					}
					pause(t, stay)
					return g.keepTrying(ctx, manyID(i), "", 0, false)
				})
			}
			return group.Wait()
		})
	})
}

// keepTrying is tryNode as a node does it: what a busy registry does not take is tried again.
func (g *Gateway) keepTrying(ctx context.Context, id, address string, port int, present bool) error {
	for attempt := 0; ; attempt++ {
		err := g.tryNode(ctx, id, address, port, present)
		if err == nil || attempt == 10 || !strings.Contains(err.Error(), "503") {
			return err
		}
		timer := time.NewTimer(500 * time.Millisecond)
		select {
		case <-ctx.Done():
			timer.Stop()
			return ctx.Err()
		case <-timer.C:
		}
	}
}

func manyID(i int) string { return fmt.Sprintf("many-%d", i) }

// manyAddress returns one of the loopback addresses that no client of the tests has.
func manyAddress(i int) string { return fmt.Sprintf("127.9.%d.%d", i/250, i%250+1) }

// startEverywhere runs a server of the example that answers on all loopback addresses, and returns its port.
func startEverywhere(tb testing.TB, id string) int {
	tb.Helper()
	port := testport.Free(tb)
	p := startProcess(tb, "server "+id, []string{"HOST=0.0.0.0", "PORT=" + strconv.Itoa(port), "NODE_ID=" + id},
		"node", example+"/server.js")
	p.waitFor(10*time.Second, "listens")
	return port
}
