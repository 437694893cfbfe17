package e2e

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
)

// The transports of Engine.IO.
var (
	upgrading     = []string{"polling", "websocket"} // what clients do by default
	pollingOnly   = []string{"polling"}
	websocketOnly = []string{"websocket"}
)

// Clients is real Socket.IO clients, all in one Node.js process.
type Clients struct {
	tb    testing.TB
	stdin io.Writer

	mu      sync.Mutex
	lastID  int
	waiting map[int]chan answer // by id
	ended   map[string]string   // why sessions ended, by client
}

// Session is what a client's node says of it.
type Session struct {
	Node      string
	Address   string // the client's, as the node sees it
	Transport string
	SID       string
}

// order is a line to the process.
type order struct {
	ID     int    `json:"id"`
	Op     string `json:"op"`
	Client string `json:"client"`
	*ClientOptions
}

// answer is a line from the process: to an order, or, with Ended, of its own accord.
type answer struct {
	ID     int
	Error  string
	Ended  string
	Reason string
	Session
}

// ClientOptions say how a client connects.
type ClientOptions struct {
	URL          string   `json:"url"`
	Transports   []string `json:"transports"`
	LocalAddress string   `json:"localAddress,omitempty"`
	Reconnection bool     `json:"reconnection"`
}

// startClients starts the process for the clients, on host, or on this machine when it is nil.
func startClients(tb testing.TB, host *Host) *Clients {
	tb.Helper()
	packages := "NODE_PATH=" + filepath.Join(example, "node_modules")
	argv := append(host.Command(packages), "node", filepath.Join(root, "e2e", "testdata", "clients.js"))
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Env = append(os.Environ(), packages)
	cmd.Stderr = os.Stderr
	stdin, err := cmd.StdinPipe()
	if err != nil {
		tb.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		tb.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		tb.Fatalf("start the Socket.IO clients: %v", err)
	}
	c := &Clients{tb: tb, stdin: stdin, waiting: map[int]chan answer{}, ended: map[string]string{}}
	done := make(chan struct{})
	go func() {
		defer close(done)
		c.read(stdout)
	}()
	tb.Cleanup(func() {
		_ = stdin.Close() // which ends it
		<-done
		if err := cmd.Wait(); err != nil {
			tb.Errorf("the Socket.IO clients: %v", err)
		}
	})
	return c
}

// Open connects a client, with an upgrade where both transports are allowed, and asks its node who it is.
func (c *Clients) Open(ctx context.Context, name string, o ClientOptions) (Session, error) {
	return c.order(ctx, order{Op: "open", Client: name, ClientOptions: &o})
}

// Ask asks the node of a client's session, through the session, who it is.
func (c *Clients) Ask(ctx context.Context, name string) (Session, error) {
	return c.order(ctx, order{Op: "ask", Client: name})
}

// Close ends a client.
func (c *Clients) Close(ctx context.Context, name string) error {
	_, err := c.order(ctx, order{Op: "close", Client: name})
	return err
}

// Ended returns why sessions ended, by client; those that the test closed as well.
func (c *Clients) Ended() map[string]string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return maps.Clone(c.ended)
}

// order sends an order and waits for its answer.
func (c *Clients) order(ctx context.Context, o order) (Session, error) {
	answered := make(chan answer, 1)
	c.mu.Lock()
	c.lastID++
	o.ID = c.lastID
	c.waiting[o.ID] = answered
	line, err := json.Marshal(o)
	if err == nil {
		_, err = c.stdin.Write(append(line, '\n'))
	}
	c.mu.Unlock()
	if err != nil {
		return Session{}, fmt.Errorf("tell the Socket.IO clients: %w", err)
	}
	select {
	case a := <-answered:
		if a.Error != "" {
			return a.Session, errors.New(a.Error)
		}
		return a.Session, nil
	case <-ctx.Done():
		return Session{}, fmt.Errorf("%s %s: %w", o.Op, o.Client, ctx.Err())
	}
}

// read hands out the answers until the process ends.
func (c *Clients) read(stdout io.Reader) {
	lines := bufio.NewScanner(stdout)
	for lines.Scan() {
		var a answer
		if err := json.Unmarshal(lines.Bytes(), &a); err != nil {
			c.tb.Errorf("the Socket.IO clients wrote %q: %v", lines.Text(), err)
			continue
		}
		c.mu.Lock()
		if a.Ended != "" {
			c.ended[a.Ended] = a.Reason
		} else if answered, ok := c.waiting[a.ID]; ok {
			delete(c.waiting, a.ID)
			answered <- a
		}
		c.mu.Unlock()
	}
}
