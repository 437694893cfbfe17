package etcd

import (
	"net"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

// proxy stands between a client and an etcd on a unix socket, to break the connection in the ways that networks do.
type proxy struct {
	t      *testing.T
	path   string
	target string

	mu       sync.Mutex
	changed  *sync.Cond
	listener net.Listener
	conns    []net.Conn
	frozen   bool
}

func newProxy(t *testing.T, targetURL string) *proxy {
	t.Helper()
	p := &proxy{t: t, path: filepath.Join(t.TempDir(), "p.sock"), target: strings.TrimPrefix(targetURL, "unix://")}
	p.changed = sync.NewCond(&p.mu)
	p.open()
	t.Cleanup(func() {
		p.cut()
		p.freeze(false)
	})
	return p
}

func (p *proxy) url() string { return "unix://" + p.path }

// open takes connections.
func (p *proxy) open() {
	p.t.Helper()
	l, err := net.Listen("unix", p.path)
	if err != nil {
		p.t.Fatal(err)
	}
	p.mu.Lock()
	p.listener = l
	p.mu.Unlock()
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			p.join(conn)
		}
	}()
}

func (p *proxy) join(client net.Conn) {
	server, err := net.Dial("unix", p.target)
	if err != nil {
		_ = client.Close()
		return
	}
	p.mu.Lock()
	p.conns = append(p.conns, client, server)
	p.mu.Unlock()
	go p.copy(server, client)
	go p.copy(client, server)
}

func (p *proxy) copy(to, from net.Conn) {
	defer to.Close()
	defer from.Close()
	buf := make([]byte, 32<<10)
	for {
		n, err := from.Read(buf)
		p.mu.Lock()
		for p.frozen {
			p.changed.Wait()
		}
		p.mu.Unlock()
		if _, werr := to.Write(buf[:n]); err != nil || werr != nil {
			return
		}
	}
}

// cut breaks all connections and takes no new ones until open.
func (p *proxy) cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.listener != nil {
		_ = p.listener.Close()
		p.listener = nil
	}
	for _, c := range p.conns {
		_ = c.Close()
	}
	p.conns = nil
}

// freeze lets connections be, but nothing through: what a lost route looks like.
func (p *proxy) freeze(on bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.frozen = on
	p.changed.Broadcast()
}
