package e2e

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/coder/websocket"
	"golang.org/x/sync/errgroup"
)

// Fleet is many plain WebSockets, each from one of the client addresses. It knows on which node each is, and notices when
// one ends.
type Fleet struct {
	tb   testing.TB
	addr string

	mu      sync.Mutex
	sockets []*socket
}

type socket struct {
	conn   *websocket.Conn
	node   string
	echoes chan string   // what the node sent, after its id
	ended  chan struct{} // closed when the socket has ended
	err    error         // why; written before ended is closed
}

// openFleet opens n sockets through addr, host:port.
func openFleet(tb testing.TB, addr string, n int) *Fleet {
	tb.Helper()
	f := &Fleet{tb: tb, addr: addr}
	tb.Cleanup(f.close)
	f.Open(n)
	return f
}

// Open opens n more sockets.
func (f *Fleet) Open(n int) {
	f.tb.Helper()
	ctx, cancel := context.WithTimeout(f.tb.Context(), 30*time.Second)
	defer cancel()
	var group errgroup.Group
	group.SetLimit(20)
	for i := range n {
		group.Go(func() error { return f.OpenOne(ctx, i) })
	}
	if err := group.Wait(); err != nil {
		f.tb.Fatalf("open %d WebSockets: %v", n, err)
	}
}

// OpenOne opens a socket from the i-th client address, and returns an error when it does not get through.
func (f *Fleet) OpenOne(ctx context.Context, i int) error {
	transport := &http.Transport{DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
		return dialerFrom(i).DialContext(ctx, network, addr)
	}}
	conn, _, err := websocket.Dial(ctx, "ws://"+f.addr+"/ws", &websocket.DialOptions{
		HTTPClient: &http.Client{Transport: transport},
	})
	if err != nil {
		return fmt.Errorf("open a WebSocket from %s: %w", clientAddress(i), err)
	}
	_, node, err := conn.Read(ctx)
	if err != nil {
		_ = conn.CloseNow()
		return fmt.Errorf("read the node's id: %w", err)
	}
	s := &socket{conn: conn, node: string(node), echoes: make(chan string, 1), ended: make(chan struct{})}
	go s.read()
	f.mu.Lock()
	defer f.mu.Unlock()
	f.sockets = append(f.sockets, s)
	return nil
}

// read waits for what the node sends, until the socket ends.
func (s *socket) read() {
	defer close(s.ended)
	for {
		// Closing the socket ends the wait.
		_, text, err := s.conn.Read(context.Background())
		if err != nil {
			s.err = err
			return
		}
		s.echoes <- string(text)
	}
}

func (s *socket) alive() bool {
	select {
	case <-s.ended:
		return false
	default:
		return true
	}
}

// Alive returns how many sockets live, by node.
func (f *Fleet) Alive() map[string]int { return f.count(true) }

// Ended returns how many sockets have ended, by node.
func (f *Fleet) Ended() map[string]int { return f.count(false) }

func (f *Fleet) count(alive bool) map[string]int {
	counts := map[string]int{}
	for _, s := range f.all() {
		if s.alive() == alive {
			counts[s.node]++
		}
	}
	return counts
}

// Len returns how many sockets were opened.
func (f *Fleet) Len() int { return len(f.all()) }

// Echo sends a message over every socket that lives and waits for it to come back: what looks open also carries.
func (f *Fleet) Echo() error {
	ctx, cancel := context.WithTimeout(f.tb.Context(), 20*time.Second)
	defer cancel()
	var group errgroup.Group
	group.SetLimit(50)
	for _, s := range f.all() {
		if s.alive() {
			group.Go(func() error { return s.echo(ctx) })
		}
	}
	return group.Wait()
}

func (s *socket) echo(ctx context.Context) error {
	if err := s.conn.Write(ctx, websocket.MessageText, []byte("are you there")); err != nil {
		return fmt.Errorf("write to %s: %w", s.node, err)
	}
	select {
	case <-s.echoes:
		return nil
	case <-s.ended:
		return fmt.Errorf("socket to %s ended: %w", s.node, s.err)
	case <-ctx.Done():
		return fmt.Errorf("no echo from %s: %w", s.node, ctx.Err())
	}
}

// WantAlive fails the test unless none of the sockets on other nodes than these has ended, and all carry.
func (f *Fleet) WantAlive(but ...string) {
	f.tb.Helper()
	ended := f.Ended()
	for _, node := range but {
		delete(ended, node)
	}
	if len(ended) > 0 {
		f.tb.Errorf("sockets of nodes that stayed have ended: %v; first reason: %v", ended, f.firstEnd(ended))
	}
	if err := f.Echo(); err != nil {
		f.tb.Errorf("a socket that is open does not carry: %v", err)
	}
}

func (f *Fleet) firstEnd(nodes map[string]int) error {
	for _, s := range f.all() {
		if _, ok := nodes[s.node]; ok && !s.alive() {
			return s.err
		}
	}
	return nil
}

func (f *Fleet) all() []*socket {
	f.mu.Lock()
	defer f.mu.Unlock()
	return append([]*socket(nil), f.sockets...)
}

func (f *Fleet) close() {
	for _, s := range f.all() {
		_ = s.conn.CloseNow()
		<-s.ended
	}
}
