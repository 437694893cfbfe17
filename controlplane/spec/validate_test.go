package spec_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"sluice/controlplane/spec"
)

// parse decodes a document, in which the tests write their objects as people do.
func parse(t *testing.T, text string) spec.Document {
	t.Helper()
	d, err := spec.ParseDocument([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// lines writes errors as the CLI does, one a line.
func lines(errs []spec.FieldError) []string {
	var out []string
	for _, e := range errs {
		out = append(out, e.Error())
	}
	return out
}

func TestUpstreamValidate(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name, text string
		want       []string
	}{
		{"empty", `{}`, nil},
		{"all", `{service: io, balance: {method: hash, key: "cookie:sid", consistent: false}, passive: {maxFails: 0, failTimeout: 10s}, keepalive: {connections: 0, timeout: 1500ms}}`, nil},
		{"random", `{balance: {method: random}}`, nil},
		{"endpoints", `{endpoints: services/io}`, nil},
		{"two sources", `{service: io, endpoints: services/io}`,
			[]string{`/endpoints: an upstream has either a service or endpoints: leave one out`}},
		{"tags and metadata", `{tags: [blue, eu], meta: {version: "2", empty: ""}}`, nil},
		{"what no node has", `{tags: [blue, "", "a\tb"], meta: {"": x, k: "\n"}}`, []string{
			`/tags/1: is empty: leave it out`, `/tags/2: must be printable text of at most 253 bytes`,
			`/meta/: is empty: leave it out`, `/meta/k: must be printable text of at most 4096 bytes`,
		}},
		{"service", `{service: "IO;"}`,
			[]string{`/service: "IO;" is not a name: use 1 to 63 lower-case letters, digits, dots, dashes and underscores, with a letter or digit at both ends`}},
		{"prefix", `{endpoints: "a b"}`,
			[]string{`/endpoints: "a b" is no key prefix: use at most 200 letters, digits and . _ : @ / -`}},
		{"method", `{balance: {method: fastest}}`,
			[]string{`/balance/method: "fastest" is unknown: use one of "round_robin", "least_conn", "ip_hash", "hash", "random"`}},
		{"key without hash", `{balance: {key: uri, consistent: true}}`, []string{
			`/balance/key: is for the method "hash" only: set that, or leave the key out`,
			`/balance/consistent: is for the method "hash" only: set that, or leave it out`}},
		{"hash without key", `{balance: {method: hash}}`,
			[]string{`/balance/key: the method "hash" needs a key: "remote_addr", "uri", "arg:NAME", "cookie:NAME" or "header:NAME"`}},
		{"unknown key", `{balance: {method: hash, key: "$remote_addr"}}`,
			[]string{`/balance/key: "$remote_addr" is no hash key: use "remote_addr", "uri", "arg:NAME", "cookie:NAME" or "header:NAME"`}},
		{"key out of its variable", `{balance: {method: hash, key: "arg:a;b"}}`,
			[]string{`/balance/key: "arg:a;b" cannot be a hash key: nginx knows the arg only if its name is letters, digits and underscores, at most 64`}},
		{"header with a space", `{balance: {method: hash, key: "header:X Y"}}`,
			[]string{`/balance/key: "header:X Y" cannot be a hash key: the name of a header is letters, digits and dashes, at most 64`}},
		{"numbers", `{passive: {maxFails: -1, failTimeout: 1500ms}, keepalive: {connections: 10001, timeout: 2h}}`, []string{
			`/passive/maxFails: -1 is not between 0 and 1000`,
			`/passive/failTimeout: 1.5s is not a multiple of 1s, which is as fine as nginx takes it`,
			`/keepalive/connections: 10001 is not between 0 and 10000`,
			`/keepalive/timeout: 2h is not between 100ms and 1h`}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			u := parse(t, "upstreams: {u: "+tt.text+"}").Upstreams["u"]
			if diff := cmp.Diff(tt.want, lines(u.Validate())); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestSiteValidate(t *testing.T) {
	t.Parallel()
	const (
		listen = `listeners: [{port: 80}], `
		routes = `routes: [{upstream: io}], `
		host   = `hosts: ["*"], `
	)
	tests := []struct {
		name, text string
		want       []string
	}{
		{"least", host + listen + routes, nil},
		{"all", `groups: [edge, eu-1], hosts: [chat.example.com, "*.example.org", a_b, 10.0.0.1, xn--bcher-kva.example],
			listeners: [{port: 80, proxyProtocol: true}, {address: 10.0.0.1, port: 80}, {address: "fd00::1", port: 443, tls: true, http2: true}],
			certificate: main, tls: {minVersion: "1.3"}, redirectToHTTPS: true, accessLog: false,
			clientAddress: {trustedProxies: [10.0.0.0/8, "fd00::/8", 192.0.2.1], from: proxy_protocol},
			routes: [{upstream: io}, {path: /, kind: http, upstream: web}, {path: /, match: exact, kind: websocket, upstream: web}]`, nil},
		{"empty", ``, []string{
			`/hosts: a site needs at least one host: a name, "*.example.com", or "*" for any`,
			`/listeners: a site needs at least one listener, as {port: 80}`,
			`/routes: a site needs at least one route, as {upstream: chat}`}},
		{"hosts", listen + routes + `hosts: [Chat.example, "a.", "a:80", "a.*.b", "*a.b", "-a", "a b", "a;b", "", "x", "x"]`, []string{
			`/hosts/0: "Chat.example" has capitals: names are compared in lower case, write "chat.example"`,
			`/hosts/1: "a." ends with a dot: leave it out`,
			`/hosts/2: "a:80" has a colon: ports belong to the listeners, and IPv6 addresses cannot be hosts`,
			`/hosts/3: "a.*.b": a "*" is only possible as the whole first label, as in "*.example.com", or alone`,
			`/hosts/4: "*a.b": a "*" is only possible as the whole first label, as in "*.example.com", or alone`,
			`/hosts/5: "-a" is not a host name: use labels of letters, digits and dashes, international names as xn--…`,
			`/hosts/6: "a b" is not a host name: use labels of letters, digits and dashes, international names as xn--…`,
			`/hosts/7: "a;b" is not a host name: use labels of letters, digits and dashes, international names as xn--…`,
			`/hosts/8: "" is not a host name: use labels of letters, digits and dashes, international names as xn--…`,
			`/hosts/10: "x" is there twice: leave one out`}},
		{"listeners", host + routes + `certificate: c, listeners: [{port: 0}, {port: 80, http2: true}, {port: 80, address: localhost},
			{port: 80, address: "fe80::1%eth0"}, {port: 80, address: "::ffff:1.2.3.4"}, {port: 80, address: 224.0.0.1}, {port: 80, address: "::", tls: true}]`, []string{
			`/listeners/0/port: 0 is not between 1 and 65535`,
			`/listeners/1/http2: browsers speak HTTP/2 only over TLS: set tls, or leave http2 out`,
			`/listeners/2/address: "localhost" is not an IP address: write an address of the gateway, or leave it out to listen on all`,
			`/listeners/3/address: "fe80::1%eth0" has a zone: write it without, or leave the address out`,
			`/listeners/4/address: "::ffff:1.2.3.4" is an IPv4 address in IPv6 form: write 1.2.3.4`,
			`/listeners/5/address: "224.0.0.1" is a multicast address: TCP has none`,
			`/listeners/6: listens on [::]:80, as listener 1 does: leave one out`}},
		{"tls without certificate", host + routes + `listeners: [{port: 443, tls: true}]`,
			[]string{`/certificate: a listener has tls: name the certificate that it shows`}},
		{"certificate and policy", host + listen + routes + `certificate: "a/b", tls: {minVersion: "1.1"}`, []string{
			`/certificate: "a/b" is not a name: use 1 to 63 lower-case letters, digits, dots, dashes and underscores, with a letter or digit at both ends`,
			`/tls/minVersion: "1.1" is unknown: use one of "1.2", "1.3"`}},
		{"redirect to nowhere", host + listen + routes + `redirectToHTTPS: true`,
			[]string{`/redirectToHTTPS: needs a listener without tls, to redirect from, and one with tls, to redirect to`}},
		{"trust", host + listen + routes + `clientAddress: {from: "X Y", trustedProxies: [10.0.0.1/8, host, 10.0.0.0/33]}`, []string{
			`/clientAddress/trustedProxies/0: "10.0.0.1/8" has bits set beyond its length, of which nginx warns: write 10.0.0.0/8`,
			`/clientAddress/trustedProxies/1: "host" is neither an address nor a network: write it as 10.0.0.0/8 or 10.1.2.3`,
			`/clientAddress/trustedProxies/2: "10.0.0.0/33" is not a network: write it as 10.0.0.0/8 or fd00::/8`,
			`/clientAddress/from: "X Y" is neither the name of a header (letters, digits and dashes) nor "proxy_protocol"`}},
		{"trust nobody", host + listen + routes + `clientAddress: {from: proxy_protocol}`, []string{
			`/clientAddress/trustedProxies: say whom to believe, as 10.0.0.0/8; without trusted proxies leave clientAddress out`,
			`/clientAddress/from: no listener of the site has proxyProtocol: set it there, or take the address from a header`}},
		{"groups", host + listen + routes + `groups: [a, "", a]`, []string{
			`/groups/1: "" is not a name: use 1 to 63 lower-case letters, digits, dots, dashes and underscores, with a letter or digit at both ends`,
			`/groups/2: "a" is there twice: leave one out`}},
		{"routes", host + listen + `routes: [{upstream: a}, {path: /socket.io/, upstream: b}, {path: /socket.io/, match: exact, upstream: b}]`,
			[]string{`/routes/1/path: "/socket.io/" is the path of route 0 too: leave one out`}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			s := parse(t, "sites: {s: {"+tt.text+"}}").Sites["s"]
			if diff := cmp.Diff(tt.want, lines(s.Validate())); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestRouteValidate(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name, text string
		want       []string
	}{
		{"least", `upstream: io`, nil},
		{"all", `upstream: io, path: "/a-._~!&()*+,=:@/B9", match: exact, kind: http, connectTimeout: 75s, readTimeout: 1s,
			sendTimeout: 168h, retries: {tries: 1, timeout: 10ms}, maxBodySize: "0", bufferSize: 64k, buffering: false`, nil},
		{"just enough silence", `upstream: io, readTimeout: 45001ms`, nil},
		{"plain websocket may be short", `upstream: io, kind: websocket, readTimeout: 10s`, nil},
		{"too little silence", `upstream: io, readTimeout: 45s`,
			[]string{`/readTimeout: 45s is not above 45s, for which a Socket.IO session may be silent (pingInterval 25s + pingTimeout 20s): raise it, or leave it out for 1m15s`}},
		{"no upstream", ``, []string{`/upstream: name the upstream that the requests go to`}},
		{"enumerations", `upstream: io, match: regex, kind: grpc`, []string{
			`/match: "regex" is unknown: use one of "prefix", "exact"`,
			`/kind: "grpc" is unknown: use one of "socketio", "websocket", "http"`}},
		{"ranges", `upstream: io, kind: http, connectTimeout: 76s, readTimeout: 0s, sendTimeout: 1000000h, retries: {tries: 0, timeout: 1ns}, bufferSize: 1m`, []string{
			`/connectTimeout: 1m16s is not between 10ms and 1m15s`,
			`/readTimeout: 0s is not between 1s and 168h`,
			`/sendTimeout: 1000000h is not between 1s and 168h`,
			`/retries/tries: 0 is not between 1 and 10`,
			`/retries/timeout: 1ns is not between 10ms and 5m`,
			`/bufferSize: 1m is not between 1k and 64k`}},
		{"no slash", `upstream: io, path: chat`, []string{`/path: "chat" does not start with a slash: write "/chat"`}},
		{"slashes", `upstream: io, path: /a//b`,
			[]string{`/path: "/a//b" has two slashes in a row, which nginx merges before it compares: write one`}},
		{"dots", `upstream: io, path: /a/../b`,
			[]string{`/path: "/a/../b" has a "." or ".." segment, which nginx resolves before it compares: write the resolved path`}},
		{"last dots", `upstream: io, path: /a/.`,
			[]string{`/path: "/a/." has a "." or ".." segment, which nginx resolves before it compares: write the resolved path`}},
	}
	for _, bad := range "$\"';{}\\ \t\n%#?<>|^`é\x7f" {
		tests = append(tests, struct {
			name, text string
			want       []string
		}{"character " + string(bad), `upstream: io, path: ` + quote("/a"+string(bad)+"b"), []string{
			"/path: " + quote("/a"+string(bad)+"b") + " has the character " + quoteRune(bad) + ": a path is letters, digits and / - . _ ~ ! & ( ) * + , = : @"}})
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			r := parse(t, "sites: {s: {routes: [{"+tt.text+"}]}}").Sites["s"].Routes[0]
			if diff := cmp.Diff(tt.want, lines(r.Validate())); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestOverrideValidate(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name, text string
		want       []string
	}{
		{"io/n1", `{}`, nil},
		{"io/n1/2 ü", `{state: draining, weight: 1000, note: "until 6"}`, nil},
		{"endpoints:services/io/n1", `{state: disabled}`, nil},
		{"io", `{}`, []string{`/overrides/io: "io" does not name a node: write it as service/id`}},
		{"IO/n1", `{}`, []string{`/overrides/IO~1n1: "IO/n1" does not name a node as service/id: the service "IO" is not a name`}},
		{"io/", `{}`, []string{`/overrides/io~1: "io/" does not name a node as service/id: an id is 1 to 253 bytes of printable text`}},
		{"io/n1", `{state: gone, weight: 0, note: "a\nb"}`, []string{
			`/overrides/io~1n1/state: "gone" is unknown: use one of "active", "draining", "disabled"`,
			`/overrides/io~1n1/weight: 0 is not between 1 and 1000`,
			`/overrides/io~1n1/note: must be printable text of at most 1000 bytes`}},
	}
	for _, tt := range tests {
		t.Run(tt.name+tt.text, func(t *testing.T) {
			t.Parallel()
			d := parse(t, "overrides: {"+quote(tt.name)+": "+tt.text+"}")
			if diff := cmp.Diff(tt.want, lines(d.Validate())); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestSplitNode(t *testing.T) {
	t.Parallel()
	tests := []struct{ name, service, id string }{
		{"io/n1", "io", "n1"},
		{"io/n1/2", "io", "n1/2"},
		{"endpoints:services/io/n1", "endpoints:services/io", "n1"},
	}
	for _, tt := range tests {
		if service, id, err := spec.SplitNode(tt.name); service != tt.service || id != tt.id || err != nil {
			t.Errorf("SplitNode(%q) = %q, %q, %v; want %q, %q", tt.name, service, id, err, tt.service, tt.id)
		}
	}
}

func TestValidName(t *testing.T) {
	t.Parallel()
	for name, want := range map[string]bool{
		"a": true, "a-b_c.d9": true, strings.Repeat("a", 63): true,
		"": false, "-a": false, "a-": false, "A": false, "a/b": false, "ä": false, "a\n": false, strings.Repeat("a", 64): false,
	} {
		if got := spec.ValidName(name); got != want {
			t.Errorf("ValidName(%q) = %v", name, got)
		}
	}
}
