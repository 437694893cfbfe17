package e2e

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"sluice/internal/testport"
)

// service is the name under which the tests' nodes register.
const service = "io"

// Node is a Socket.IO server of the example, run and registered by `sluice register`.
type Node struct {
	*Process

	ID   string
	Port int
}

// StartNode starts a node that registers with the gateway. args are further flags of sluice register.
func (g *Gateway) StartNode(id string, args ...string) *Node {
	g.tb.Helper()
	port := testport.Free(g.tb)
	argv := []string{sluiceBinary, "register", "--api", g.API, "--service", service, "--id", id,
		"--address", "127.0.0.1:" + strconv.Itoa(port)}
	argv = append(argv, args...)
	argv = append(argv, "--", "node", example+"/server.js")
	env := []string{"PORT=" + strconv.Itoa(port), "NODE_ID=" + id}
	return &Node{Process: startProcess(g.tb, "node "+id, env, argv...), ID: id, Port: port}
}

// StartNodes starts n nodes, n1 and so on, and waits until they are live.
func (g *Gateway) StartNodes(n int, args ...string) []*Node {
	g.tb.Helper()
	nodes := make([]*Node, n)
	for i := range nodes {
		nodes[i] = g.StartNode(fmt.Sprintf("n%d", i+1), args...)
	}
	g.WaitNodes(20*time.Second, n)
	return nodes
}

// Leave has the node deregister and end, as an operator's SIGTERM does, without waiting for it.
func (n *Node) Leave() { n.Signal(syscall.SIGTERM) }

// Server is a server of the example that nothing registers.
type Server struct {
	*Process

	ID      string
	Address string // host:port
}

// startServer starts a server on host, or on this machine when it is nil, and waits until it listens.
func startServer(tb testing.TB, host *Host, id string) *Server {
	tb.Helper()
	return startServerAt(tb, host, id, testport.Free(tb))
}

func startServerAt(tb testing.TB, host *Host, id string, port int) *Server {
	tb.Helper()
	at := strconv.Itoa(port)
	env := []string{"HOST=" + host.Address(), "PORT=" + at, "NODE_ID=" + id}
	p := startProcess(tb, "server "+id, env, append(host.Command(env...), "node", example+"/server.js")...)
	eventually(tb, 30*time.Second, "server "+id+" listens", func(context.Context) error {
		if !strings.Contains(p.Output(), "listens") {
			return errors.New("it has not said so")
		}
		return nil
	})
	return &Server{p, id, host.Address() + ":" + at}
}

// Register keeps a node registered that runs already, until the process that it returns is stopped.
func (g *Gateway) Register(id, address string, args ...string) *Process {
	g.tb.Helper()
	argv := append(g.host.Command(), sluiceBinary, "register", "--api", g.API, "--service", service, "--id", id, "--address", address)
	return startProcess(g.tb, "register "+id, nil, append(argv, args...)...)
}

// document is the desired state that most tests begin with: one site on port, with all that the example's server serves.
func document(port int, method string) string {
	return fmt.Sprintf(`
upstreams:
  io: {service: %s, balance: {method: %s}}
sites:
  chat:
    hosts: ["*"]
    listeners: [{port: %d}]
    routes:
      - {path: /socket.io/, kind: socketio, upstream: io}
      - {path: /ws, match: exact, kind: websocket, upstream: io}
      - {path: /, kind: http, upstream: io}
`, service, method, port)
}
