package templates_test

import (
	"context"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"

	"sluice/templates"
)

func TestRequestsReachTheNode(t *testing.T) {
	t.Parallel()
	n := newNode(t, nil)
	r := socketIO("/socket.io/", "io")
	r.MaxBodySize = 100
	exact := route("/health", "io")
	exact.Exact = true
	cfg, address := plainSite(t, upstream("io", "", server(n.address)), r, exact)
	start(t, cfg)
	for _, tt := range []struct {
		name, method, path, body string
		host                     string
		status                   int
	}{
		{name: "handshake", method: "GET", path: "/socket.io/?EIO=4&transport=polling", status: 200},
		{name: "path and query as they came", method: "POST", path: "/socket.io/a%2Fb/../x?sid=a%20b&t=1", body: "40", status: 200},
		{name: "body at the limit", method: "POST", path: "/socket.io/?sid=x", body: strings.Repeat("x", 100), status: 200},
		{name: "body over the limit", method: "POST", path: "/socket.io/", body: strings.Repeat("x", 101), status: 413},
		{name: "body over the limit, in a session", method: "POST", path: "/socket.io/?sid=x", body: strings.Repeat("x", 101), status: 413},
		{name: "exact", method: "GET", path: "/health", status: 200},
		{name: "longer than exact", method: "GET", path: "/health/x", status: 404},
		{name: "no route", method: "GET", path: "/index.html", status: 404},
		{name: "without the slash", method: "GET", path: "/socket.io?x=1", status: 301},
		{name: "capitals", method: "GET", path: "/health", host: "CHAT.example.COM", status: 200},
		{name: "unknown name", method: "GET", path: "/health", host: "other.example.com", status: 421},
	} {
		t.Run(tt.name, func(t *testing.T) {
			req := request(t, tt.method, address, tt.path, tt.body)
			if tt.host != "" {
				req.Host = tt.host
			}
			before := n.count()
			res, _ := do(t, req)
			if res.StatusCode != tt.status {
				t.Fatalf("status %d, want %d", res.StatusCode, tt.status)
			}
			if res.StatusCode != http.StatusOK {
				if n.count() != before {
					t.Error("the node was asked")
				}
				if location := res.Header.Get("Location"); location != "" && !strings.HasPrefix(location, "/socket.io/?") {
					t.Errorf("Location %q", location)
				}
				return
			}
			got, body := n.last(t)
			if got.Method != tt.method || got.RequestURI != tt.path || body != tt.body {
				t.Errorf("the node got %s %s %q", got.Method, got.RequestURI, body)
			}
		})
	}
}

func TestRetries(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name         string
		method, path string
		upgrade      bool
		sessions     bool
		tries        int
		retried      bool
	}{
		{name: "handshake", method: "GET", path: "/?EIO=4", sessions: true, tries: 2, retried: true},
		{name: "handshake over WebSocket", method: "GET", path: "/?EIO=4&transport=websocket", upgrade: true, sessions: true, tries: 2, retried: true},
		{name: "poll", method: "GET", path: "/?EIO=4&sid=x", sessions: true, tries: 2},
		{name: "post", method: "POST", path: "/?sid=x&EIO=4", sessions: true, tries: 2},
		{name: "sid 0", method: "GET", path: "/?sid=0", sessions: true, tries: 2},
		{name: "upgrade", method: "GET", path: "/?EIO=4&transport=websocket&sid=x", upgrade: true, sessions: true, tries: 2},
		{name: "no sessions", method: "GET", path: "/?sid=x", tries: 2, retried: true},
		{name: "one try", method: "GET", path: "/", sessions: true, tries: 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			n := newNode(t, accept)
			// The dead node weighs so much that it is first.
			first := server(dead(t))
			first.Weight, first.MaxFails = 1000, 0
			r := socketIO("/", "io")
			r.Sessions, r.Tries = tt.sessions, tt.tries
			cfg, address := plainSite(t, upstream("io", "", first, server(n.address)), r)
			start(t, cfg)
			req := request(t, tt.method, address, tt.path, "")
			want := http.StatusOK
			if tt.upgrade {
				req = upgrade(req)
				want = http.StatusSwitchingProtocols
			}
			if !tt.retried {
				want = http.StatusBadGateway
			}
			res, _ := doHead(t, req)
			if res != want || n.count() > 0 != tt.retried {
				t.Errorf("status %d, want %d; the second node got %d requests", res, want, n.count())
			}
		})
	}
}

// upgrade asks for a WebSocket.
func upgrade(req *http.Request) *http.Request {
	req.Header.Set("Connection", "Upgrade")
	req.Header.Set("Upgrade", "websocket")
	req.Header.Set("Sec-WebSocket-Version", "13")
	req.Header.Set("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ==")
	return req
}

// doHead sends a request and returns the status alone: what follows a 101 has no end.
func doHead(t *testing.T, req *http.Request) (int, http.Header) {
	t.Helper()
	res, err := (&http.Transport{DisableKeepAlives: true}).RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	_ = res.Body.Close()
	return res.StatusCode, res.Header
}

// accept echoes one WebSocket message, and answers other requests with nothing.
func accept(w http.ResponseWriter, r *http.Request) {
	if r.Header.Get("Upgrade") == "" {
		return
	}
	conn, err := websocket.Accept(w, r, &websocket.AcceptOptions{InsecureSkipVerify: true})
	if err != nil {
		return
	}
	defer func() { _ = conn.CloseNow() }()
	if kind, data, err := conn.Read(r.Context()); err == nil {
		_ = conn.Write(r.Context(), kind, data)
	}
}

func TestWebSocket(t *testing.T) {
	t.Parallel()
	n := newNode(t, accept)
	without := route("/http/", "io")
	cfg, address := plainSite(t, upstream("io", "ip_hash", server(n.address)), socketIO("/socket.io/", "io"), without)
	start(t, cfg)
	for _, path := range []string{"/socket.io/?transport=websocket", "/socket.io/?transport=websocket&sid=abc"} {
		t.Run(path, func(t *testing.T) {
			t.Parallel()
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			conn, _, err := websocket.Dial(ctx, "ws://"+address+path, &websocket.DialOptions{Host: "chat.example.com"})
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = conn.CloseNow() }()
			if err := conn.Write(ctx, websocket.MessageText, []byte("2probe")); err != nil {
				t.Fatal(err)
			}
			if _, data, err := conn.Read(ctx); err != nil || string(data) != "2probe" {
				t.Errorf("echo %q, %v", data, err)
			}
		})
	}
	t.Run("a route without upgrades", func(t *testing.T) {
		t.Parallel()
		status, _ := doHead(t, upgrade(request(t, "GET", address, "/http/", "")))
		if status != http.StatusOK {
			t.Errorf("status %d", status)
		}
	})
	t.Run("no upgrade but to WebSocket", func(t *testing.T) {
		t.Parallel()
		smuggled := newNode(t, nil)
		cfg, address := plainSite(t, upstream("io", "", server(smuggled.address)), socketIO("/", "io"))
		start(t, cfg)
		do(t, request(t, "GET", address, "/", "", "Connection", "Upgrade, HTTP2-Settings", "Upgrade", "h2c", "HTTP2-Settings", "AAMAAABkAARAAAAAAAIAAAAA"))
		got, _ := smuggled.last(t)
		if got.Header.Get("Upgrade") != "" || got.Header.Get("Connection") != "" {
			t.Errorf("the node got Upgrade %q, Connection %q", got.Header.Get("Upgrade"), got.Header.Get("Connection"))
		}
	})
}

func TestPollingKeepsConnectionsToNodes(t *testing.T) {
	t.Parallel()
	n := newNode(t, nil)
	cfg, address := plainSite(t, upstream("io", "ip_hash", server(n.address)), socketIO("/", "io"))
	start(t, cfg)
	for i := range 20 {
		do(t, request(t, "GET", address, "/?sid="+strconv.Itoa(i), ""))
	}
	if got := n.connections(); got != 1 {
		t.Errorf("20 polls took %d connections, want 1", got)
	}
}

func TestEmptyUpstream(t *testing.T) {
	t.Parallel()
	cfg, address := plainSite(t, upstream("io", "", server(dead(t))), socketIO("/", ""))
	start(t, cfg)
	for _, method := range []string{"GET", "POST"} {
		res, body := do(t, request(t, method, address, "/page.html?sid=x", ""))
		if res.StatusCode != http.StatusServiceUnavailable || res.Header.Get("Retry-After") != "5" ||
			res.Header.Get("Content-Type") != "application/json" || !strings.Contains(body, `"code":503`) {
			t.Errorf("%s: %d %v %q", method, res.StatusCode, res.Header, body)
		}
	}
}

func TestIPHashKeepsClients(t *testing.T) {
	t.Parallel()
	nodes := []*node{newNode(t, nil), newNode(t, nil), newNode(t, nil)}
	var servers []templates.Server
	for _, n := range nodes {
		servers = append(servers, server(n.address))
	}
	cfg, address := plainSite(t, upstream("io", "ip_hash", servers...), socketIO("/", "io"))
	cfg.Sites[0].RealIP = &templates.RealIP{Trusted: []string{"127.0.0.1"}, Header: "X-Real-IP"}
	start(t, cfg)
	where := map[string]int{}
	for round := range 3 {
		for c := range 30 {
			client := "10." + strconv.Itoa(c) + ".7.1"
			before := []int{nodes[0].count(), nodes[1].count(), nodes[2].count()}
			do(t, request(t, "GET", address, "/", "", "X-Real-IP", client))
			for i, n := range nodes {
				if n.count() == before[i] {
					continue
				}
				if last, ok := where[client]; ok && last != i {
					t.Fatalf("round %d: client %s moved from node %d to %d", round, client, last, i)
				}
				where[client] = i
			}
		}
	}
	for i, n := range nodes {
		if n.count() == 0 {
			t.Errorf("node %d got nothing: the clients are not spread", i)
		}
	}
}

func TestReadTimeout(t *testing.T) {
	t.Parallel()
	slow := newNode(t, func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	r := socketIO("/", "io")
	r.ReadTimeout = 200 * time.Millisecond
	cfg, address := plainSite(t, upstream("io", "", server(slow.address)), r)
	start(t, cfg)
	if res, _ := do(t, request(t, "GET", address, "/?sid=x", "")); res.StatusCode != http.StatusGatewayTimeout {
		t.Errorf("status %d, want 504", res.StatusCode)
	}
}
