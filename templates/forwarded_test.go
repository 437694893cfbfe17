package templates_test

import (
	"fmt"
	"net/http"
	"testing"

	"sluice/templates"
)

// TestForwardedHeaders asks from 127.0.0.1, which some cases trust.
func TestForwardedHeaders(t *testing.T) {
	t.Parallel()
	spoofed := []string{
		"X-Forwarded-For", "6.6.6.6", "X-Forwarded-For", "7.7.7.7", "X-Forwarded-Proto", "https",
		"X-Forwarded-Host", "evil.example.com", "X-Forwarded-Port", "443", "X-Real-IP", "6.6.6.6", "Forwarded", "for=6.6.6.6",
	}
	xff := func(trusted ...string) *templates.RealIP {
		return &templates.RealIP{Trusted: trusted, Header: "x-forwarded-for"}
	}
	for _, tt := range []struct {
		name    string
		realIP  *templates.RealIP
		appends bool
		headers []string
		want    map[string]string // %s is the port of nginx
	}{
		{
			name: "edge, nothing sent",
			want: map[string]string{"X-Real-Ip": "127.0.0.1", "X-Forwarded-For": "127.0.0.1", "X-Forwarded-Proto": "http", "X-Forwarded-Host": "chat.example.com", "X-Forwarded-Port": "%s", "Host": "chat.example.com"},
		},
		{
			name: "edge, spoofed", headers: spoofed,
			want: map[string]string{"X-Real-Ip": "127.0.0.1", "X-Forwarded-For": "127.0.0.1", "X-Forwarded-Proto": "http", "X-Forwarded-Host": "chat.example.com", "X-Forwarded-Port": "%s", "Host": "chat.example.com"},
		},
		{
			name: "the port of the Host header", headers: []string{"Host", "Chat.Example.Com:8443"},
			want: map[string]string{"X-Real-Ip": "127.0.0.1", "X-Forwarded-For": "127.0.0.1", "X-Forwarded-Proto": "http", "X-Forwarded-Host": "chat.example.com:8443", "X-Forwarded-Port": "%s", "Host": "chat.example.com:8443"},
		},
		{
			name: "trusted chain", realIP: xff("127.0.0.0/8"), appends: true, headers: spoofed,
			want: map[string]string{"X-Real-Ip": "7.7.7.7", "X-Forwarded-For": "6.6.6.6, 7.7.7.7, 127.0.0.1", "X-Forwarded-Proto": "https", "X-Forwarded-Host": "evil.example.com", "X-Forwarded-Port": "443", "Host": "chat.example.com"},
		},
		{
			name: "two trusted hops", realIP: xff("127.0.0.1", "7.7.7.0/24"), appends: true, headers: spoofed,
			want: map[string]string{"X-Real-Ip": "6.6.6.6", "X-Forwarded-For": "6.6.6.6, 7.7.7.7, 127.0.0.1", "X-Forwarded-Proto": "https", "X-Forwarded-Host": "evil.example.com", "X-Forwarded-Port": "443", "Host": "chat.example.com"},
		},
		{
			name: "trusted, says nothing", realIP: xff("127.0.0.1"), appends: true,
			want: map[string]string{"X-Real-Ip": "127.0.0.1", "X-Forwarded-For": "127.0.0.1", "X-Forwarded-Proto": "http", "X-Forwarded-Host": "chat.example.com", "X-Forwarded-Port": "%s", "Host": "chat.example.com"},
		},
		{
			name: "trusted, says nonsense", realIP: xff("127.0.0.1"), appends: true,
			headers: []string{"X-Forwarded-Proto", "javascript", "X-Forwarded-Host", `a"b`, "X-Forwarded-Port", "80; x"},
			want:    map[string]string{"X-Real-Ip": "127.0.0.1", "X-Forwarded-For": "127.0.0.1", "X-Forwarded-Proto": "http", "X-Forwarded-Host": "chat.example.com", "X-Forwarded-Port": "%s", "Host": "chat.example.com"},
		},
		{
			name: "a client that comes past the proxies", realIP: xff("10.0.0.0/8"), appends: true, headers: spoofed,
			want: map[string]string{"X-Real-Ip": "127.0.0.1", "X-Forwarded-For": "127.0.0.1", "X-Forwarded-Proto": "http", "X-Forwarded-Host": "chat.example.com", "X-Forwarded-Port": "%s", "Host": "chat.example.com"},
		},
		{
			name: "address from another header", realIP: &templates.RealIP{Trusted: []string{"127.0.0.1"}, Header: "CF-Connecting-IP"},
			headers: append([]string{"CF-Connecting-IP", "9.9.9.9"}, spoofed...),
			want:    map[string]string{"X-Real-Ip": "9.9.9.9", "X-Forwarded-For": "9.9.9.9", "X-Forwarded-Proto": "http", "X-Forwarded-Host": "chat.example.com", "X-Forwarded-Port": "%s", "Host": "chat.example.com"},
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			n := newNode(t, nil)
			r := socketIO("/", "io")
			r.AppendForwardedFor = tt.appends
			cfg, address := plainSite(t, upstream("io", "", server(n.address)), r)
			cfg.Sites[0].RealIP = tt.realIP
			start(t, cfg)
			for _, path := range []string{"/", "/?sid=x"} {
				do(t, request(t, "GET", address, path, "", tt.headers...))
				got, _ := n.last(t)
				compareHeaders(t, path, got, tt.want, portOf(address))
			}
		})
	}
}

func compareHeaders(t *testing.T, what string, got *http.Request, want map[string]string, port string) {
	t.Helper()
	for name, value := range want {
		if value == "%s" {
			value = port
		}
		have := fmt.Sprint(got.Header[name])
		if name == "Host" {
			have = fmt.Sprint([]string{got.Host})
		}
		if have != fmt.Sprint([]string{value}) {
			t.Errorf("%s: %s is %s, want [%s]", what, name, have, value)
		}
	}
	for _, name := range []string{"Forwarded", "Connection", "Upgrade"} {
		if got.Header[name] != nil {
			t.Errorf("%s: %s is %q, want none", what, name, got.Header[name])
		}
	}
}

// TestHostIsTheOneThatChoseTheSite sends a request line that names one host and a header that names another.
func TestHostIsTheOneThatChoseTheSite(t *testing.T) {
	t.Parallel()
	n := newNode(t, nil)
	cfg, address := plainSite(t, upstream("io", "", server(n.address)), route("/", "io"))
	start(t, cfg)
	for _, tt := range []struct{ name, request, want string }{
		{"absolute", "GET http://chat.example.com/ HTTP/1.1\r\nHost: evil.example.com\r\nConnection: close\r\n\r\n", "chat.example.com"},
		{"HTTP/1.0 with a port", "GET / HTTP/1.0\r\nHost: chat.example.com:81\r\n\r\n", "chat.example.com:81"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if res, _ := raw(t, address, tt.request); res.StatusCode != http.StatusOK {
				t.Fatalf("status %d", res.StatusCode)
			}
			if got, _ := n.last(t); got.Host != tt.want {
				t.Errorf("the node got Host %q, want %q", got.Host, tt.want)
			}
		})
	}
	if res, _ := raw(t, address, "GET / HTTP/1.0\r\n\r\n"); res.StatusCode != http.StatusMisdirectedRequest {
		t.Errorf("without a name: status %d", res.StatusCode)
	}
}

func TestProxyProtocol(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name, trusted, want string
	}{
		{"trusted", "127.0.0.1", "203.0.113.9"},
		{"not trusted", "10.0.0.0/8", "127.0.0.1"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			n := newNode(t, nil)
			cfg, address := plainSite(t, upstream("io", "", server(n.address)), socketIO("/", "io"))
			cfg.Sockets[0].ProxyProtocol = true
			cfg.Sites[0].RealIP = &templates.RealIP{Trusted: []string{tt.trusted}, Header: "proxy_protocol"}
			start(t, cfg)
			res, _ := raw(t, address, "PROXY TCP4 203.0.113.9 203.0.113.1 4711 443\r\n"+
				"GET / HTTP/1.1\r\nHost: chat.example.com\r\nX-Forwarded-For: 6.6.6.6\r\nConnection: close\r\n\r\n")
			if res.StatusCode != http.StatusOK {
				t.Fatalf("status %d", res.StatusCode)
			}
			compareHeaders(t, tt.name, must(n.last(t)), map[string]string{"X-Real-Ip": tt.want, "X-Forwarded-For": tt.want}, "")
			before := n.count()
			if res, err := http.DefaultTransport.RoundTrip(request(t, "GET", address, "/", "")); err == nil {
				_ = res.Body.Close()
				t.Errorf("a connection without the header got status %d", res.StatusCode)
			}
			if n.count() != before {
				t.Error("a connection without the header reached the node")
			}
		})
	}
}

// must drops the body.
func must(r *http.Request, _ string) *http.Request { return r }
