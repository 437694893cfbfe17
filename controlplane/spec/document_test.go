package spec_test

import (
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"sluice/controlplane/spec"
)

// quote writes s as YAML reads it, which knows all of Go's escapes.
func quote(s string) string {
	return strconv.Quote(s)
}

func quoteRune(r rune) string { return strconv.QuoteRune(r) }

func TestParseDocumentTakesYAMLAndJSON(t *testing.T) {
	t.Parallel()
	timeout := spec.Duration(90 * time.Second)
	size := spec.Size(2 << 20)
	want := spec.Document{
		Upstreams: map[string]spec.Upstream{"io": {}},
		Sites: map[string]spec.Site{"chat": {
			Hosts:     []string{"chat.example"},
			Listeners: []spec.Listener{{Port: 80}},
			Routes:    []spec.Route{{Upstream: "io", ReadTimeout: &timeout, MaxBodySize: &size}},
		}},
	}
	tests := map[string]string{
		"yaml": `
# A comment.
upstreams:
  io: {}
sites:
  chat:
    hosts: [chat.example]
    listeners:
      - port: 80
    routes:
      - upstream: io
        readTimeout: 90s
        maxBodySize: 2m
`,
		"json with tabs": "{\"upstreams\": {\"io\": null},\n\t\"sites\": {\"chat\": {\"hosts\": [\"chat.example\"], \"listeners\": [{\"port\": 80}],\n\t\"routes\": [{\"upstream\": \"io\", \"readTimeout\": \"1m30s\", \"maxBodySize\": \"2048k\"}]}}}",
		"yaml anchors": `
upstreams: {&io io: {}}
sites:
  chat:
    hosts: [&host chat.example]
    listeners: [{port: 80}]
    routes: [{upstream: *io, readTimeout: 90s, maxBodySize: 2m}]
`,
	}
	for name, text := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got, err := spec.ParseDocument([]byte(text))
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestParseDocumentNamesTheLine(t *testing.T) {
	t.Parallel()
	tests := []struct{ name, text, want string }{
		{"empty", " \n", "the document is empty"},
		{"only a comment", "# nothing\n", "the document is empty"},
		{"not text", "a: \xff", "the document is not text in UTF-8"},
		{"unknown kind", "upstreams: {}\nstreams: {}\n", "line 2: /streams: is unknown: there are certificates, overrides, sites, upstreams"},
		{"unknown field", "sites:\n  chat:\n    routes:\n      - upstream: io\n      - upstream: io\n        timeout: 5s\n",
			"line 6: /sites/chat/routes/1/timeout: is unknown: there are bufferSize, buffering, connectTimeout, kind, match, maxBodySize, path, readTimeout, retries, sendTimeout, upstream"},
		{"other case", "upstreams:\n  io:\n    Service: io\n", `line 3: /upstreams/io/Service: is unknown: write "service"`},
		{"twice", "upstreams:\n  io: {}\n  io: {}\n", `line 3: mapping key "io" already defined at [2:3]`},
		{"no unit", "upstreams:\n  io:\n    keepalive:\n      timeout: 5\n", "line 4: /upstreams/io/keepalive/timeout: must be a text in quotes"},
		{"bad duration", "upstreams:\n  io:\n    keepalive:\n      timeout: 5 s\n", `line 4: /upstreams/io/keepalive/timeout: "5 s" is not a duration: write it as 75s, 250ms or 1h30m`},
		{"bad size", "sites:\n  s:\n    routes:\n    - maxBodySize: 1g\n", `line 4: /sites/s/routes/0/maxBodySize: "1g" is not a size: write it as 512, 4k or 1m`},
		{"port as text", "sites:\n  s:\n    listeners:\n    - port: \"80\"\n", "line 4: /sites/s/listeners/0/port: must be a whole number"},
		{"port with a fraction", "sites:\n  s:\n    listeners:\n    - port: 80.5\n", "line 4: /sites/s/listeners/0/port: must be a whole number"},
		{"list for text", "sites:\n  s:\n    certificate: [a]\n", "line 3: /sites/s/certificate: must be a text in quotes, not a list"},
		{"text for list", "sites:\n  s:\n    hosts: a\n", "line 3: /sites/s/hosts: must be a list"},
		{"text for object", "sites:\n  s: a\n", "line 2: /sites/s: must be an object with named fields"},
		{"no object", "- a\n", "line 1: must be an object with named fields"},
		{"two documents", "upstreams: {}\n---\nsites: {}\n", "line 3: a second document starts here: put all objects into one"},
		{"broken YAML", "sites:\n\tchat: {}\n", "line 2: found character '\t' that cannot start any token"},
		{"JSON unknown", "{\n\"sites\": {\n\"s\": {\"host\": []}}}", "line 3: /sites/s/host: is unknown: there are accessLog, certificate, clientAddress, groups, hosts, listeners, owner, redirectToHTTPS, routes, tls"},
		{"JSON twice", "{\"sites\": {},\n\"sites\": {}}", "line 2: /sites: is there twice: leave one out"},
		{"JSON cut", "{\"sites\":\n {", "line 2: /sites: the JSON text ends too early"},
		{"JSON and more", "{}\n{}", "line 2: there is more text after the end of the object"},
		{"JSON broken", "{\n\"sites\" {}}", "line 2: /sites: is not JSON: invalid character '{' after object key"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			_, err := spec.ParseDocument([]byte(tt.text))
			if err == nil || err.Error() != tt.want {
				t.Errorf("got  %v\nwant %s", err, tt.want)
			}
		})
	}
}

func TestParseDocumentKeepsKeysOutOfErrors(t *testing.T) {
	t.Parallel()
	for _, text := range []string{
		"certificates:\n  c:\n    key: |\n      SECRET\n    : x\n  \tbroken",
		"certificates:\n  c:\n    key: SECRET\n    nonsense: 1\n",
		"certificates:\n  c:\n    key: [SECRET]\n",
		`{"certificates": {"c": {"key": ["SECRET"]}}}`,
		`{"certificates": {"c": {"key": "SECRET" "SECRET"}}}`,
	} {
		_, err := spec.ParseDocument([]byte(text))
		if err == nil || strings.Contains(err.Error(), "SECRET") {
			t.Errorf("%q: %v", text, err)
		}
	}
}

func TestDocumentValidate(t *testing.T) {
	t.Parallel()
	const site = `listeners: [{port: 80}], routes: [{upstream: io}]`
	tests := []struct {
		name, text string
		want       []string
	}{
		{"good", `upstreams: {io: {}}
sites: {a: {hosts: [a], ` + site + `}, b: {hosts: [b], ` + site + `}}`, nil},
		{"names", `upstreams: {io: {}, "a/b": {}}`, []string{
			`/upstreams/a~1b: "a/b" is not a name: use 1 to 63 lower-case letters, digits, dots, dashes and underscores, with a letter or digit at both ends`}},
		{"references", `sites: {a: {hosts: [a], listeners: [{port: 443, tls: true}], certificate: main, routes: [{upstream: io}]}}`, []string{
			`/sites/a/certificate: there is no certificate "main": create it first, or in the same change`,
			`/sites/a/routes/0/upstream: there is no upstream "io": create it first, or in the same change`}},
		{"same host", `upstreams: {io: {}}
sites: {a: {hosts: [x, y], ` + site + `}, b: {hosts: [y], ` + site + `}}`, []string{
			`/sites/b/hosts/0: site "a" has "y" on 0.0.0.0:80 too: give it to one of them`}},
		{"same host, other group", `upstreams: {io: {}}
sites: {a: {hosts: [x], ` + site + `}, b: {groups: [eu], hosts: [x], ` + site + `}}`, nil},
		{"same host, other address", `upstreams: {io: {}}
sites: {a: {hosts: [x], ` + site + `}, b: {hosts: [x], listeners: [{address: 127.0.0.1, port: 80}], routes: [{upstream: io}]}}`, nil},
		{"options", `upstreams: {io: {}}
sites: {a: {hosts: [a], ` + site + `}, b: {hosts: [b], listeners: [{address: "::", port: 80, proxyProtocol: true}], routes: [{upstream: io}]}}`, []string{
			`/sites/b/listeners/0: [::]:80 is a listener of site "a" too, there with another value of proxyProtocol: make them agree`}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			if diff := cmp.Diff(tt.want, lines(parse(t, tt.text).Validate())); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestUnmarshalStrictNeverTakesWhatItShouldNot(t *testing.T) {
	t.Parallel()
	var u spec.Upstream
	for text, want := range map[string]string{
		`{"balance":{"methd":"hash"}}`:    "/balance/methd: is unknown: there are consistent, key, method",
		`{"balance":{"consistent":null}}`: "/balance/consistent: is null: leave it out, or give a value",
		`{"tags":[null]}`:                 "/tags/0: is null: leave it out, or give a value",
		`{"balance":{"method":""}}`:       "/balance/method: is empty: leave it out, or give a value",
		`null`:                            "is null: leave it out, or give a value",
		"{\"service\":\"\xff\"}":          "is not text in UTF-8",
	} {
		if err := spec.UnmarshalStrict([]byte(text), &u); err == nil || err.Error() != want {
			t.Errorf("%q: %v, want %s", text, err, want)
		}
	}
}

func TestDecodeSkipsWhatANewerVersionWrote(t *testing.T) {
	t.Parallel()
	u, err := spec.Decode[spec.Upstream]([]byte(`{"service":"io","affinity":{"by":"sid"}}`))
	if err != nil || u.Service != "io" {
		t.Errorf("%+v, %v", u, err)
	}
	if _, err := spec.Decode[spec.Upstream]([]byte(`{"service":1}`)); err == nil {
		t.Error("a service that is a number was decoded")
	}
}

func FuzzParseDocument(f *testing.F) {
	f.Add("upstreams: {io: {balance: {method: hash, key: uri}}}")
	f.Add(`{"sites": {"a": {"hosts": ["*"], "listeners": [{"port": 80}], "routes": [{"upstream": "io", "path": "/x"}]}}}`)
	f.Add("overrides: {io/n1: {state: draining, weight: 3}}\ncertificates: {c: {chain: x, key: y}}")
	f.Add("a: &a {b: *a}")
	f.Fuzz(func(_ *testing.T, text string) {
		d, err := spec.ParseDocument([]byte(text))
		if err != nil {
			return
		}
		d.Validate()
		for name, u := range d.Upstreams {
			u.WithDefaults(name)
		}
		for _, s := range d.Sites {
			s.WithDefaults()
		}
	})
}
