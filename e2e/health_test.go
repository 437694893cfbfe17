package e2e

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"sluice/controlplane"
	"sluice/internal/testport"
)

// withCheck is document with a check of the nodes.
func withCheck(port int, check string) string {
	return strings.Replace(document(port, "round_robin"), "{service: "+service, "{check: {"+check+"}, service: "+service, 1)
}

// A node that hangs keeps its lease and its port, and leaves the rotation all the same; its WebSockets stay, and it comes back.
func TestHungNodeLeavesTheRotation(t *testing.T) {
	t.Parallel()
	g := startGateway(t, GatewayOptions{})
	g.Apply(withCheck(g.Port, "type: engineio, interval: 2s, fall: 2, identity: {sid: true}"))
	nodes := g.StartNodes(4, "--ttl", "15s")
	fleet := openFleet(t, g.Addr(), 40)

	server := descendants(nodes[3].PID())[1]
	hung := time.Now()
	if err := syscall.Kill(server, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = syscall.Kill(server, syscall.SIGCONT) }()
	g.WaitNodes(time.Minute, 3)
	t.Logf("hung: out after %s, with a check every other second, and two that must fail", time.Since(hung).Round(10*time.Millisecond))
	t.Logf("request loop: %s", requests(t, g, 100))

	if err := syscall.Kill(server, syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	g.WaitNodes(time.Minute, 4)
	fleet.WantAlive()
}

// requests makes n requests on fresh connections, which all have to be answered.
func requests(t *testing.T, g *Gateway, n int) string {
	t.Helper()
	by := map[string]int{}
	for i := range n {
		node, err := (&client{addr: g.Addr(), dialer: dialerFrom(i % 10)}).request()
		if err != nil {
			t.Errorf("request %d: %v", i, err)
		}
		by[node]++
	}
	return fmt.Sprint(by)
}

// healthy is a node in the test whose /health can turn red.
type healthy struct {
	port int
	red  atomic.Bool
}

func startHealthy(t *testing.T) *healthy {
	t.Helper()
	h := &healthy{port: testport.Free(t)}
	listener, err := net.Listen("tcp", "127.0.0.1:"+strconv.Itoa(h.port))
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{ReadHeaderTimeout: time.Minute, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if h.red.Load() && r.URL.Path == "/health" {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
	})}
	go func() { _ = server.Serve(listener) }()
	t.Cleanup(func() { _ = server.Close() })
	return h
}

// One node whose /health turns red leaves. When all of them do, something that they share has died, and not the nodes: they
// stay, with an alarm.
func TestRedHealth(t *testing.T) {
	t.Parallel()
	g := startGateway(t, GatewayOptions{})
	g.Apply(withCheck(g.Port, "type: http, path: /health, interval: 1s"))
	nodes := make([]*healthy, 4)
	for i := range nodes {
		nodes[i] = startHealthy(t)
		g.putNode(fmt.Sprint("n", i), nodes[i].port, true)
	}
	g.WaitNodes(30*time.Second, len(nodes))

	nodes[0].red.Store(true)
	g.WaitNodes(time.Minute, len(nodes)-1)
	nodes[0].red.Store(false)
	g.WaitNodes(time.Minute, len(nodes))

	for _, n := range nodes {
		n.red.Store(true)
	}
	g.Wait(time.Minute, "an alarm, and all nodes", func(s controlplane.Status) error {
		if len(s.Alarms) == 0 {
			return errors.New("no alarm")
		}
		return nil
	})
	s := g.WaitNodes(time.Minute, len(nodes))
	t.Logf("alarms: %v", s.Alarms)
	for _, n := range nodes {
		n.red.Store(false)
	}
	g.Wait(time.Minute, "no alarm", func(s controlplane.Status) error {
		if len(s.Alarms) > 0 || s.Nodes != len(nodes) {
			return fmt.Errorf("%d nodes, alarms: %v", s.Nodes, s.Alarms)
		}
		return nil
	})
}
