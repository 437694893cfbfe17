package templates_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"net"
	"net/http"
	"strconv"
	"testing"

	"github.com/coder/websocket"

	"sluice/internal/testport"
	"sluice/templates"
)

// tlsConfig trusts the test's own certificate.
func tlsConfig(name string) *tls.Config {
	chain, _ := testPair()
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(chain)
	return &tls.Config{RootCAs: pool, ServerName: name, MinVersion: tls.VersionTLS12}
}

// tlsClient speaks with address whatever the URL says.
func tlsClient(address string, cfg *tls.Config, http2 bool) *http.Client {
	return &http.Client{
		Timeout:       patience,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		Transport: &http.Transport{
			TLSClientConfig: cfg, ForceAttemptHTTP2: http2, DisableKeepAlives: true,
			DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
				return new(net.Dialer).DialContext(ctx, network, address)
			},
		},
	}
}

// secureSite adds a TLS socket to a plain site.
func secureSite(t *testing.T, routes ...templates.Route) (cfg templates.Config, n *node, plain, secure string) {
	t.Helper()
	n = newNode(t, accept)
	cfg, plain = plainSite(t, upstream("io", "", server(n.address)), routes...)
	secure = "127.0.0.1:" + strconv.Itoa(testport.Free(t))
	cfg.Certificates = []templates.Certificate{testCertificate("wildcard")}
	cfg.Sockets = append(cfg.Sockets, templates.Socket{Address: secure, TLS: true, HTTP2: true})
	cfg.Sites[0].Sockets = append(cfg.Sites[0].Sockets, secure)
	cfg.Sites[0].Certificate = "wildcard"
	return cfg, n, plain, secure
}

func TestTLS(t *testing.T) {
	t.Parallel()
	cfg, n, _, secure := secureSite(t, socketIO("/", "io"))
	start(t, cfg)
	for _, tt := range []struct {
		name  string
		http2 bool
		proto string
	}{{"HTTP/1.1", false, "HTTP/1.1"}, {"HTTP/2", true, "HTTP/2.0"}} {
		t.Run(tt.name, func(t *testing.T) {
			req := request(t, "POST", secure, "/?sid=1", "40")
			req.URL.Scheme = "https"
			res, _ := doWith(t, tlsClient(secure, tlsConfig("chat.example.com"), tt.http2), req)
			if res.StatusCode != http.StatusOK || res.Proto != tt.proto {
				t.Fatalf("%s %d", res.Proto, res.StatusCode)
			}
			compareHeaders(t, tt.name, must(n.last(t)), map[string]string{
				"X-Forwarded-Proto": "https", "X-Forwarded-Port": "%s", "X-Forwarded-For": "127.0.0.1", "Host": "chat.example.com",
			}, portOf(secure))
		})
	}
	t.Run("WebSocket", func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		client := tlsClient(secure, tlsConfig("chat.example.com"), false)
		client.Timeout = 0 // the context has it
		conn, _, err := websocket.Dial(ctx, "wss://chat.example.com/?sid=x", &websocket.DialOptions{HTTPClient: client})
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = conn.CloseNow() }()
		if err := conn.Write(ctx, websocket.MessageText, []byte("2")); err != nil {
			t.Fatal(err)
		}
		if _, data, err := conn.Read(ctx); err != nil || string(data) != "2" {
			t.Errorf("echo %q, %v", data, err)
		}
	})
	for _, tt := range []struct {
		name string
		cfg  *tls.Config
	}{
		{"unknown name", tlsConfig("other.example.com")},
		{"no name", func() *tls.Config { c := tlsConfig(""); c.InsecureSkipVerify = true; return c }()},
		{"TLS 1.1", func() *tls.Config {
			c := tlsConfig("chat.example.com")
			c.MinVersion, c.MaxVersion = tls.VersionTLS10, tls.VersionTLS11
			return c
		}()},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if conn, err := tls.Dial("tcp", secure, tt.cfg); err == nil {
				_ = conn.Close()
				t.Error("the handshake was not refused")
			}
		})
	}
	t.Run("a name for the handshake and another one for the request", func(t *testing.T) {
		req := request(t, "GET", secure, "/", "", "Host", "other.example.com")
		req.URL.Scheme = "https"
		res, _ := doWith(t, tlsClient(secure, tlsConfig("chat.example.com"), false), req)
		if res.StatusCode != http.StatusMisdirectedRequest {
			t.Errorf("status %d, want 421", res.StatusCode)
		}
	})
}

func TestSessionsAreResumed(t *testing.T) {
	t.Parallel()
	cfg, _, _, secure := secureSite(t, route("/", "io"))
	start(t, cfg)
	for name, version := range map[string]uint16{"1.2": tls.VersionTLS12, "1.3": tls.VersionTLS13} {
		t.Run(name, func(t *testing.T) {
			c := tlsConfig("chat.example.com")
			c.MaxVersion = version
			c.ClientSessionCache = tls.NewLRUClientSessionCache(1)
			resumed := false
			for range 2 {
				req := request(t, "GET", secure, "/", "")
				req.URL.Scheme = "https"
				res, _ := doWith(t, tlsClient(secure, c, false), req)
				resumed = res.TLS.DidResume
			}
			// Go's client resumes by tickets alone; nginx hands out those of TLS 1.3 that only name a session in its cache.
			if want := version == tls.VersionTLS13; resumed != want {
				t.Errorf("resumed: %t, want %t", resumed, want)
			}
		})
	}
}

func TestTLS13Only(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name     string
		mixed    bool // another site on the socket takes TLS 1.2
		catchAll bool
	}{{name: "all sites of the socket"}, {name: "one of the sites", mixed: true}, {name: "the site for all names", mixed: true, catchAll: true}} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			cfg, n, _, secure := secureSite(t, route("/", "io"))
			cfg.Sites[0].TLS13Only = true
			if tt.catchAll {
				cfg.Sites[0].CatchAll, cfg.Sites[0].Sockets, cfg.Sockets[1].CatchAll = true, []string{secure}, true
			}
			if tt.mixed {
				cfg.Sites = append(cfg.Sites, templates.Site{
					Name: "old", Hosts: []string{"old.example.com"}, Sockets: []string{secure}, Certificate: "wildcard",
					Routes: []templates.Route{route("/", "io")},
				})
			}
			start(t, cfg)
			ask := func(host string, version uint16) int {
				c := tlsConfig(host)
				c.MaxVersion = version
				req := request(t, "GET", secure, "/", "", "Host", host)
				req.URL.Scheme = "https"
				res, err := tlsClient(secure, c, false).Do(req)
				if err != nil {
					return 0
				}
				_ = res.Body.Close()
				return res.StatusCode
			}
			if got := ask("chat.example.com", tls.VersionTLS13); got != http.StatusOK {
				t.Errorf("TLS 1.3: status %d", got)
			}
			before := n.count()
			if got := ask("chat.example.com", tls.VersionTLS12); got == http.StatusOK || n.count() != before {
				t.Errorf("TLS 1.2: status %d", got)
			}
			if !tt.mixed {
				return
			}
			for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
				if got := ask("old.example.com", version); got != http.StatusOK {
					t.Errorf("the other site, %s: status %d", tls.VersionName(version), got)
				}
			}
		})
	}
}

func TestRedirect(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		port int
		want string
	}{{443, "https://chat.example.com/a%20b?x=%0d%0aSet-Cookie:y"}, {8443, "https://chat.example.com:8443/a%20b?x=%0d%0aSet-Cookie:y"}} {
		t.Run(strconv.Itoa(tt.port), func(t *testing.T) {
			t.Parallel()
			cfg, n, plain, secure := secureSite(t, route("/", "io"))
			cfg.Sites[0].RedirectPort = tt.port
			start(t, cfg)
			res, _ := do(t, request(t, "POST", plain, "/a%20b?x=%0d%0aSet-Cookie:y", "body", "Host", "chat.example.com:"+portOf(plain)))
			if res.StatusCode != http.StatusPermanentRedirect || res.Header.Get("Location") != tt.want || n.count() != 0 {
				t.Errorf("%d %q", res.StatusCode, res.Header.Get("Location"))
			}
			if res, _ := do(t, request(t, "GET", plain, "/", "", "Host", "other.example.com")); res.StatusCode != http.StatusMisdirectedRequest {
				t.Errorf("unknown name: status %d", res.StatusCode)
			}
			req := request(t, "GET", secure, "/", "")
			req.URL.Scheme = "https"
			if res, _ := doWith(t, tlsClient(secure, tlsConfig("chat.example.com"), false), req); res.StatusCode != http.StatusOK {
				t.Errorf("TLS: status %d", res.StatusCode)
			}
		})
	}
}
