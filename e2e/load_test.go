package e2e

import (
	"bufio"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"
)

// LoadOptions say what a request loop does; the zero value is one client with a fresh connection for each GET.
type LoadOptions struct {
	Clients   int           // loops at once; default 1
	Pause     time.Duration // between two requests of a loop; default 5 ms
	KeepAlive bool          // use a connection again
	Post      bool          // POST with a body rather than GET
	Far       bool          // addr is on another host: clients have no addresses of their own
}

// Load is request loops to /whoami, which count as DESIGN.md says: a failed request is any error on a fresh connection or
// after a response byte, or another answer than 200. A reset is an error on a reused connection before any byte of the
// answer, as when nginx closes an idle connection at a reload just as a request arrives on it.
type Load struct {
	tb     testing.TB
	addr   string
	opts   LoadOptions
	cancel context.CancelFunc
	loops  sync.WaitGroup

	mu    sync.Mutex
	tally Tally
}

// Tally is what a Load has counted.
type Tally struct {
	Requests int
	Failed   int
	Reset    int
	Nodes    map[string]int // answers by node
	Reasons  []string       // of the first failures
}

func (t Tally) String() string {
	return fmt.Sprintf("%d requests, %d failed, %d reset, by node %v %s", t.Requests, t.Failed, t.Reset, t.Nodes, strings.Join(t.Reasons, "; "))
}

// startLoad starts request loops to addr, host:port. They end with Stop, or with the test.
func startLoad(tb testing.TB, addr string, o LoadOptions) *Load {
	tb.Helper()
	o.Clients = max(o.Clients, 1)
	if o.Pause == 0 {
		o.Pause = 5 * time.Millisecond
	}
	ctx, cancel := context.WithCancel(context.Background())
	l := &Load{tb: tb, addr: addr, opts: o, cancel: cancel, tally: Tally{Nodes: map[string]int{}}}
	for i := range o.Clients {
		l.loops.Go(func() { l.loop(ctx, i) })
	}
	tb.Cleanup(func() { l.Stop() })
	return l
}

// Stop ends the loops, and returns what they counted.
func (l *Load) Stop() Tally {
	l.cancel()
	l.loops.Wait()
	return l.Tally()
}

// Tally returns what was counted so far.
func (l *Load) Tally() Tally {
	l.mu.Lock()
	defer l.mu.Unlock()
	t := l.tally
	t.Nodes = maps.Clone(t.Nodes)
	return t
}

// WantNoFailure stops the loops and fails the test when a request failed.
func (l *Load) WantNoFailure() Tally {
	l.tb.Helper()
	t := l.Stop()
	if t.Requests == 0 {
		l.tb.Error("the request loop made no request")
	}
	if t.Failed > 0 {
		l.tb.Errorf("requests failed: %s", t)
	}
	return t
}

func (l *Load) loop(ctx context.Context, i int) {
	c := &client{addr: l.addr, dialer: dialerFrom(i), opts: l.opts}
	if l.opts.Far {
		c.dialer = &net.Dialer{Timeout: 5 * time.Second}
	}
	defer c.close()
	tick := time.NewTicker(l.opts.Pause)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		node, err := c.request()
		l.count(node, err)
	}
}

func (l *Load) count(node string, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.tally.Requests++
	switch {
	case err == nil:
		l.tally.Nodes[node]++
	case errors.Is(err, errReset):
		l.tally.Reset++
	default:
		l.tally.Failed++
		if len(l.tally.Reasons) < 5 {
			l.tally.Reasons = append(l.tally.Reasons, fmt.Sprintf("%s: %v", time.Now().Format("15:04:05.000"), err))
		}
	}
}

// errReset is an error on a reused connection before any byte of the answer.
var errReset = errors.New("reused connection reset")

// client makes requests over one connection at a time. net/http would hide what happens to a connection: it repeats
// requests by itself.
type client struct {
	addr   string
	path   string // default /whoami
	dialer *net.Dialer
	opts   LoadOptions
	conn   net.Conn // nil: the next request opens one
	in     *bufio.Reader
}

// request makes one request and returns the node that answered.
func (c *client) request() (node string, err error) {
	reused := c.conn != nil
	answered := false
	defer func() {
		if err != nil || !c.opts.KeepAlive {
			c.close()
		}
		if err != nil && reused && !answered {
			err = fmt.Errorf("%w: %w", errReset, err)
		}
	}()
	if !reused {
		if c.conn, err = c.dialer.Dial("tcp", c.addr); err != nil {
			return "", err
		}
		c.in = bufio.NewReader(c.conn)
	}
	if err := c.conn.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		return "", err
	}
	if _, err = io.WriteString(c.conn, c.text()); err != nil {
		return "", err
	}
	if _, err = c.in.Peek(1); err != nil {
		return "", err
	}
	answered = true
	resp, err := http.ReadResponse(c.in, nil)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	var seen struct{ Node string }
	if resp.StatusCode != http.StatusOK {
		return "", errors.New(resp.Status)
	}
	if err = json.NewDecoder(resp.Body).Decode(&seen); err != nil {
		return "", fmt.Errorf("read the answer: %w", err)
	}
	if _, err = io.Copy(io.Discard, resp.Body); err != nil {
		return "", fmt.Errorf("read the answer: %w", err)
	}
	if resp.Close { // nginx says that it closes: not a reset when it does
		c.close()
	}
	return seen.Node, nil
}

func (c *client) text() string {
	method, body, connection := http.MethodGet, "", "close"
	if c.opts.Post {
		method, body = http.MethodPost, "hello"
	}
	if c.opts.KeepAlive {
		connection = "keep-alive"
	}
	return fmt.Sprintf("%s %s HTTP/1.1\r\nHost: %s\r\nConnection: %s\r\nContent-Length: %d\r\n\r\n%s",
		method, cmp.Or(c.path, "/whoami"), c.addr, connection, len(body), body)
}

func (c *client) close() {
	if c.conn != nil {
		_ = c.conn.Close()
		c.conn = nil
	}
}
