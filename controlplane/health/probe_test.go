package health_test

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"sluice/controlplane/health"
)

// at puts a target at the address of a listener.
func at(t testing.TB, target health.Target, a net.Addr) health.Target {
	t.Helper()
	if a.Network() == "unix" {
		target.Node.Address, target.Node.Port = "unix:"+a.String(), 0
		return target
	}
	addr, err := netip.ParseAddrPort(a.String())
	if err != nil {
		t.Fatal(err)
	}
	target.Node.Address, target.Node.Port = addr.Addr().String(), int(addr.Port())
	return target
}

// verdict checks targets until each has been checked, and returns what was found of the first.
func verdict(t *testing.T, list ...health.Target) health.Verdict {
	t.Helper()
	c := health.New(health.Options{Log: slog.New(slog.DiscardHandler)})
	defer run(t, c)()
	for i := range list {
		list[i].Urgent = true
	}
	c.Set(list)
	return until(t, c, list[0].Key(), func(v health.Verdict) bool { return !v.Last.IsZero() })
}

// until waits for a verdict.
func until(t *testing.T, c *health.Checker, key health.Key, ok func(health.Verdict) bool) health.Verdict {
	t.Helper()
	deadline := time.After(time.Minute)
	poll := time.NewTicker(10 * time.Millisecond)
	defer poll.Stop()
	for {
		v := c.Verdicts()[key]
		if ok(v) {
			return v
		}
		select {
		case <-deadline:
			t.Fatalf("the verdict stayed %+v", v)
		case <-poll.C:
		}
	}
}

func listen(t testing.TB, network, address string) net.Listener {
	t.Helper()
	l, err := (&net.ListenConfig{}).Listen(t.Context(), network, address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

func TestTCP(t *testing.T) {
	t.Parallel()
	for network, address := range map[string]string{"tcp4": "127.0.0.1:0", "tcp6": "[::1]:0", "unix": ""} {
		t.Run(network, func(t *testing.T) {
			t.Parallel()
			if network == "unix" {
				address = filepath.Join(t.TempDir(), "n1.sock")
			}
			l := listen(t, network, address)
			n := at(t, target(t, "n1", ""), l.Addr())
			if v := verdict(t, n); v.State != health.Healthy || v.Proven {
				t.Errorf("somebody listens: %+v", v)
			}
			l.Close()
			if v := verdict(t, n); v.State == health.Healthy || !v.Refused || v.Reason == "" {
				t.Errorf("nobody listens: %+v", v)
			}
		})
	}
}

// A connection that is not answered: the queue of the listener is full, and nobody takes from it.
func TestTCPTimesOut(t *testing.T) {
	t.Parallel()
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	if err := errors.Join(unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}), unix.Listen(fd, 0)); err != nil {
		t.Fatal(err)
	}
	name, err := unix.Getsockname(fd)
	if err != nil {
		t.Fatal(err)
	}
	n := target(t, "n1", "timeout: 200ms")
	n.Node.Port = name.(*unix.SockaddrInet4).Port
	dialer := net.Dialer{Timeout: 500 * time.Millisecond}
	for range 10 {
		conn, err := dialer.DialContext(t.Context(), "tcp", n.Node.HostPort())
		if err != nil {
			break
		}
		t.Cleanup(func() { conn.Close() })
	}
	c := health.New(health.Options{Log: slog.New(slog.DiscardHandler)})
	defer run(t, c)()
	n.Urgent = true
	c.Set([]health.Target{n})
	if v := until(t, c, n.Key(), func(v health.Verdict) bool { return v.State != health.Unknown }); v.State != health.Unhealthy || v.Refused || v.Reason != "connect: no answer in time" {
		t.Errorf("%+v", v)
	}
}

// serve starts an HTTP server, and returns where it listens.
func serve(t *testing.T, handler http.HandlerFunc) net.Addr {
	t.Helper()
	s := httptest.NewServer(handler)
	t.Cleanup(s.Close)
	return s.Listener.Addr()
}

func TestHTTP(t *testing.T) {
	t.Parallel()
	hang := make(chan struct{})
	t.Cleanup(func() { close(hang) })
	addr := serve(t, func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/ok":
			fmt.Fprint(w, "fine")
		case "/host":
			if r.Host != "chat.example" || r.URL.RawQuery != "deep=1" {
				w.WriteHeader(http.StatusBadRequest)
			}
		case "/n1":
			w.Header().Set("X-Node-Id", "n1")
		case "/n1-red":
			w.Header().Set("X-Node-Id", "n1")
			w.WriteHeader(http.StatusServiceUnavailable)
		case "/n2":
			w.Header().Set("X-Node-Id", "n2")
		case "/id":
			fmt.Fprint(w, "n1\n")
		case "/id-of-another":
			fmt.Fprint(w, "n2")
		case "/page":
			fmt.Fprint(w, "<html>\n<p>n1</p>\n</html>")
		case "/moved":
			http.Redirect(w, r, "/missing", http.StatusFound)
		case "/huge":
			for range 10_000 {
				if _, err := io.WriteString(w, strings.Repeat("x", 1000)); err != nil {
					return
				}
			}
		case "/early":
			w.WriteHeader(http.StatusEarlyHints)
			w.WriteHeader(http.StatusOK)
		case "/hangs":
			select {
			case <-hang:
			case <-r.Context().Done():
			}
		default:
			http.NotFound(w, r)
		}
	})
	tests := []struct {
		check  string
		passes bool
		want   health.Verdict // what of it is true
		reason string
	}{
		{`path: /ok`, true, health.Verdict{}, ""},
		{`path: /missing`, false, health.Verdict{}, "it answers 404"},
		{`path: /missing, codes: ["404"]`, true, health.Verdict{}, ""},
		{`path: /ok, codes: ["404", 500-599]`, false, health.Verdict{}, "it answers 200"},
		{`path: "/host?deep=1", host: chat.example`, true, health.Verdict{}, ""},
		{`path: /moved`, true, health.Verdict{}, ""},
		{`path: /moved, codes: ["200"]`, false, health.Verdict{}, "it answers 302"},
		{`path: /huge`, true, health.Verdict{}, ""},
		{`path: /early`, true, health.Verdict{}, ""},
		{`path: /hangs, timeout: 100ms`, false, health.Verdict{}, "read the answer: no answer in time"},
		{`path: /n1, identity: {header: X-Node-ID}`, true, health.Verdict{Proven: true}, ""},
		{`path: /n1-red, identity: {header: X-Node-ID}`, false, health.Verdict{Proven: true}, "it answers 503"},
		{`path: /n2, identity: {header: X-Node-ID}`, false, health.Verdict{Stranger: true}, `another node answers there: "n2"`},
		{`path: /ok, identity: {header: X-Node-ID}`, true, health.Verdict{}, "it answers, but does not say who it is"},
		{`path: /ok, identity: {path: /id}`, true, health.Verdict{Proven: true}, ""},
		{`path: /id, identity: {path: /id}`, true, health.Verdict{Proven: true}, ""},
		{`path: /huge, identity: {path: /id}`, true, health.Verdict{Proven: true}, ""},
		{`path: /missing, identity: {path: /id}`, false, health.Verdict{Proven: true}, "it answers 404"},
		{`path: /ok, identity: {path: /id-of-another}`, false, health.Verdict{Stranger: true}, `another node answers there: "n2"`},
		{`path: /ok, identity: {path: /page}`, true, health.Verdict{}, "it answers, but does not say who it is"},
		{`path: /ok, identity: {path: /huge}`, true, health.Verdict{}, "it answers, but does not say who it is"},
		{`path: /ok, identity: {path: /missing}`, true, health.Verdict{}, "it answers, but does not say who it is"},
		{`path: /ok, tls: {verify: false}`, false, health.Verdict{}, "speak TLS: tls: first record does not look like a TLS handshake"},
	}
	for _, tt := range tests {
		t.Run(tt.check, func(t *testing.T) {
			t.Parallel()
			v := verdict(t, at(t, target(t, "n1", "type: http, "+tt.check), addr))
			if (v.State == health.Healthy) != tt.passes || v.Proven != tt.want.Proven || v.Stranger != tt.want.Stranger || v.Refused || v.Reason != tt.reason {
				t.Errorf("%+v", v)
			}
		})
	}
}

func TestHTTPOverTLS(t *testing.T) {
	t.Parallel()
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.TLS.ServerName != "n1.example" && r.TLS.ServerName != "" {
			w.WriteHeader(http.StatusMisdirectedRequest)
		}
	}))
	s.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelInfo)
	s.TLS = &tls.Config{MinVersion: tls.VersionTLS12}
	s.StartTLS()
	t.Cleanup(s.Close)
	for tls, passes := range map[string]bool{
		`{verify: false}`: true, `{verify: false, serverName: n1.example}`: true,
		`{verify: false, serverName: n2.example}`: false, `{serverName: n1.example}`: false,
	} {
		t.Run(tls, func(t *testing.T) {
			t.Parallel()
			if v := verdict(t, at(t, target(t, "n1", "type: http, path: /, tls: "+tls), s.Listener.Addr())); (v.State == health.Healthy) != passes {
				t.Errorf("%+v", v)
			}
		})
	}
}

func TestHTTPOnAUnixSocket(t *testing.T) {
	t.Parallel()
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Host != "localhost" {
			w.WriteHeader(http.StatusBadRequest)
		}
	}))
	s.Listener.Close()
	s.Listener = listen(t, "unix", filepath.Join(t.TempDir(), "n1.sock"))
	s.Start()
	t.Cleanup(s.Close)
	n := at(t, target(t, "n1", "type: http, path: /"), s.Listener.Addr())
	if v := verdict(t, n); v.State != health.Healthy {
		t.Errorf("%+v", v)
	}
	s.Close()
	if v := verdict(t, n); v.State == health.Healthy || !v.Refused {
		t.Errorf("nobody listens: %+v", v)
	}
}

// What answers something else than HTTP, or cuts the connection, fails and nothing worse.
func TestGarbage(t *testing.T) {
	t.Parallel()
	for name, text := range map[string]string{
		"nothing": "", "other protocol": "220 mail.example ESMTP\r\n", "cut": "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nab",
		"endless header": "HTTP/1.1 200 OK\r\nX: " + strings.Repeat("x", 1<<20), "endless hints": strings.Repeat("HTTP/1.1 103 Early Hints\r\n\r\n", 50_000),
		"no session": "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n0{", "frame": "HTTP/1.1 101 Switching Protocols\r\n\r\n\x81\xff",
	} {
		for _, check := range []string{"type: http, path: /, codes: [\"204\"]", "type: engineio"} {
			t.Run(name+" "+check, func(t *testing.T) {
				t.Parallel()
				l := listen(t, "tcp", "127.0.0.1:0")
				go func() {
					for {
						conn, err := l.Accept()
						if err != nil {
							return
						}
						_, _ = io.CopyN(io.Discard, conn, 10)
						fmt.Fprint(conn, text)
						conn.Close()
					}
				}()
				if v := verdict(t, at(t, target(t, "n1", check), l.Addr())); v.State == health.Healthy || v.Reason == "" {
					t.Errorf("%+v", v)
				}
			})
		}
	}
}
