package spec_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	"sluice/controlplane/spec"
)

func TestCheckValidate(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name, text string
		want       []string
	}{
		{"empty", `{}`, nil},
		{"none", `{type: none}`, nil},
		{"tcp", `{type: tcp, interval: 1s, timeout: 500ms, fall: 1, rise: 100}`, nil},
		{"http", `{type: http, path: "/health?deep=1", codes: ["204", 200-299], host: "chat.example:8080",
			tls: {serverName: n.example}, identity: {header: X-Node-Id}}`, nil},
		{"engineio", `{type: engineio, path: /io/, host: "[fd00::1]:80", tls: {verify: false}, identity: {sid: true}}`, nil},
		{"identity by path", `{type: engineio, identity: {path: /id}}`, nil},
		{"type", `{type: udp}`, []string{`/check/type: "udp" is unknown: use one of "tcp", "http", "engineio", "none"`}},
		{"numbers", `{interval: 10ms, timeout: 2m, fall: 0, rise: 101}`, []string{
			`/check/interval: 10ms is not between 1s and 1h`,
			`/check/timeout: 2m is not between 10ms and 1m`,
			`/check/timeout: 2m is longer than the interval of 10ms: a node has one check at a time`,
			`/check/fall: 0 is not between 1 and 100`,
			`/check/rise: 101 is not between 1 and 100`}},
		{"short interval", `{interval: 1s}`, nil},
		{"timeout beyond the interval", `{interval: 1s, timeout: 2s}`, []string{
			`/check/timeout: 2s is longer than the interval of 1s: a node has one check at a time`}},
		{"tcp with what is HTTP's", `{path: /h, codes: ["200"], host: h, tls: {}, identity: {header: X}}`, []string{
			`/check/path: is for the types "http" and "engineio" only: set one of them, or leave it out`,
			`/check/codes: is for the type "http" only: set that, or leave it out`,
			`/check/host: is for the types "http" and "engineio" only: set one of them, or leave it out`,
			`/check/tls: is for the types "http" and "engineio" only: set one of them, or leave it out`,
			`/check/identity: is for the types "http" and "engineio" only: set one of them, or leave it out`}},
		{"http without a path", `{type: http}`, []string{`/check/path: name the path that is asked for, as /health`}},
		{"http", `{type: http, path: "a b", codes: [2xx, 299-200, "100"], host: "a/b", tls: {}, identity: {sid: true}}`, []string{
			`/check/codes/0: "2xx" is neither a status code nor a range of them: write it as 204 or 200-299, from 200 to 599`,
			`/check/codes/1: "299-200" is neither a status code nor a range of them: write it as 204 or 200-299, from 200 to 599`,
			`/check/codes/2: "100" is neither a status code nor a range of them: write it as 204 or 200-299, from 200 to 599`,
			`/check/path: "a b" is not a path: it starts with a slash, and has at most 1000 printable ASCII characters without spaces and #`,
			`/check/host: "a/b" is no Host header: write a name or an address, with a port or without`,
			`/check/tls/serverName: name what the certificate must be for, or set verify to false: nodes are known by their addresses`,
			`/check/identity/sid: is for the type "engineio" only: set that, or use header or path`}},
		{"engineio", `{type: engineio, path: "/io/?x=1", codes: ["200"], tls: {serverName: "a b"}}`, []string{
			`/check/path: "/io/?x=1" has a query, and the handshake has one of its own: leave it out`,
			`/check/codes: is for the type "http" only: leave it out`,
			`/check/tls/serverName: "a b" is not the name of a server`}},
		{"no identity", `{type: engineio, identity: {}}`, []string{
			`/check/identity: say one way in which a node proves who it is: header, sid or path`}},
		{"two identities", `{type: engineio, identity: {header: "X Y", path: id}}`, []string{
			`/check/identity/header: "X Y" is not the name of a header: use letters, digits and dashes, at most 64`,
			`/check/identity/path: "id" is not a path: it starts with a slash, and has at most 1000 printable ASCII characters without spaces and #`,
			`/check/identity: say one way in which a node proves who it is: header, sid or path`}},
		{"line break", `{type: http, path: "/a\r\nX: y", host: "a\r\nX: y"}`, []string{
			`/check/path: "/a\r\nX: y" is not a path: it starts with a slash, and has at most 1000 printable ASCII characters without spaces and #`,
			`/check/host: "a\r\nX: y" is no Host header: write a name or an address, with a port or without`}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			u := parse(t, "upstreams: {u: {check: "+tt.text+"}}").Upstreams["u"]
			if diff := cmp.Diff(tt.want, lines(u.Validate())); diff != "" {
				t.Error(diff)
			}
			if tt.want == nil {
				full := spec.Upstream{Check: u.WithDefaults("u").Check}
				if errs := full.Validate(); errs != nil {
					t.Errorf("with its defaults: %v", errs)
				}
			}
		})
	}
}

func TestParseCodes(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]spec.Codes{"204": {First: 204, Last: 204}, "200-399": {First: 200, Last: 399}} {
		if got, err := spec.ParseCodes(text); got != want || err != nil {
			t.Errorf("ParseCodes(%q) = %v, %v", text, got, err)
		}
	}
	for _, text := range []string{"", "-", "0200", "200-", "-299", "+20", "200-299-399", "600"} {
		if got, err := spec.ParseCodes(text); err == nil {
			t.Errorf("ParseCodes(%q) = %v", text, got)
		}
	}
}
