package controlplane

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"math/big"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"sluice/controlplane/spec"
	"sluice/registry"
	"sluice/templates"
)

// problems writes problems one a line.
func problems(list []registry.Problem) string {
	var b strings.Builder
	for _, p := range list {
		b.WriteString(p.String() + "\n")
	}
	return b.String()
}

func siteNames(cfg templates.Config) string {
	var names []string
	for _, s := range cfg.Sites {
		names = append(names, s.Name)
	}
	return strings.Join(names, " ")
}

const chatSite = `{"hosts": ["chat.example.com"], "listeners": [{"port": 8080}], "routes": [{"upstream": "io"}]}`

func TestCompileSites(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name    string
		change  func(*world)
		sites   string
		problem string // a part of the only problem; empty for none
	}{
		{"nothing special", func(*world) {}, "chat", ""},
		{"another group's site", func(w *world) {
			w.put(registry.KindSite, "far", `{"groups": ["far"], "hosts": ["*"], "listeners": [{"port": 8080}], "routes": [{"upstream": "io"}]}`)
		}, "chat", ""},
		{"not JSON of a site", func(w *world) { w.put(registry.KindSite, "bad", `{"hosts": "chat.example.com"}`) },
			"chat", "site/bad"},
		{"an invalid site", func(w *world) { w.put(registry.KindSite, "bad", `{"hosts": ["a b"], "listeners": [{"port": 1}]}`) },
			"chat", "site/bad /hosts/0"},
		{"a field of a later version", func(w *world) { w.put(registry.KindSite, "chat", strings.Replace(chatSite, "{", `{"later": 1, `, 1)) },
			"chat", ""},
		{"an upstream that is missing", func(w *world) {
			w.put(registry.KindSite, "lost", strings.NewReplacer("io", "gone", "chat", "lost").Replace(chatSite))
		}, "chat lost", `site/lost /routes/0/upstream: upstream "gone" does not exist`},
		{"a name that is taken on the socket", func(w *world) {
			w.put(registry.KindSite, "again", `{"hosts": ["*"], "listeners": [{"port": 8080}], "routes": [{"upstream": "io"}]}`)
		}, "chat", `site/again /hosts/0: site "chat" has "*" on 0.0.0.0:8080 too`},
		{"another name on the socket", func(w *world) { w.put(registry.KindSite, "again", chatSite) }, "again chat", ""},
		{"other options of the socket", func(w *world) {
			w.put(registry.KindSite, "again", strings.Replace(chatSite, `8080`, `8080, "proxyProtocol": true`, 1))
		}, "chat", `site/again /listeners/0: 0.0.0.0:8080 is a listener of site "chat" too, there with another value of proxyProtocol`},
		{"TLS without its certificate", func(w *world) {
			w.put(registry.KindSite, "safe", strings.Replace(chatSite, `{"port": 8080}]`, `{"port": 8443, "tls": true}], "certificate": "web"`, 1))
		}, "chat", `site/safe /certificate: certificate "web" does not exist`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld().nodes(2)
			tt.change(w)
			got := Compile(w.snapshot, Good{}, testFacts)
			if names := siteNames(got.Config); names != tt.sites {
				t.Errorf("sites %q, want %q", names, tt.sites)
			}
			text := problems(got.Problems)
			if tt.problem == "" && text != "" || !strings.Contains(text, tt.problem) {
				t.Errorf("problems:\n%swant: %s", text, tt.problem)
			}
		})
	}
}

// A bad object stays as it last was good; deleted on purpose, it goes.
func TestCompileKeepsTheLastGood(t *testing.T) {
	t.Parallel()
	w := newWorld().nodes(2)
	good := Compile(w.snapshot, Good{}, testFacts)

	w.put(registry.KindSite, "chat", `{"hosts": ["*"], "listeners": [{"port": 99999}], "routes": [{"upstream": "io"}]}`)
	w.put(registry.KindUpstream, "io", `{"balance": {"method": "guess"}}`)
	bad := Compile(w.snapshot, good.Used, testFacts)
	if diff := cmp.Diff(good.Config, bad.Config); diff != "" {
		t.Errorf("the configuration changed (-good +bad):\n%s", diff)
	}
	for _, want := range []string{
		"site/chat /listeners/0/port", "it stays as it was at seq 2", "upstream/io /balance/method", "it stays as it was at seq 1",
	} {
		if !strings.Contains(problems(bad.Problems), want) {
			t.Errorf("no problem says %q:\n%s", want, problems(bad.Problems))
		}
	}

	gone := Compile(w.put(registry.KindSite, "chat", "").snapshot, good.Used, testFacts)
	if len(gone.Config.Sites) != 0 {
		t.Errorf("a deleted site is still there")
	}
}

// An upstream has only those nodes that have all of its tags and metadata.
func TestCompileSelects(t *testing.T) {
	t.Parallel()
	for spec, want := range map[string]string{
		`{}`:                         "n000 n001 n002 n003",
		`{"tags": ["blue"]}`:         "n000 n001",
		`{"tags": ["blue", "eu"]}`:   "n001",
		`{"meta": {"version": "2"}}`: "n001 n002",
		`{"tags": ["blue"], "meta": {"version": "2", "x": ""}}`:  "",
		`{"tags": ["eu"], "balance": {"method": "round_robin"}}`: "n001 n003",
	} {
		w := newWorld().nodes(4)
		nodes := w.snapshot.Nodes
		nodes[0].Tags, nodes[1].Tags, nodes[3].Tags = []string{"blue"}, []string{"eu", "blue"}, []string{"eu"}
		nodes[1].Meta, nodes[2].Meta = map[string]string{"version": "2"}, map[string]string{"version": "2"}
		if strings.Contains(spec, "method") {
			nodes[2].Address = nodes[3].Address // of one that is not chosen: no matter
		}
		w.put(registry.KindUpstream, "io", spec)
		got := Compile(w.snapshot, Good{}, testFacts)
		if len(got.Slots) > 0 {
			w.snapshot.Slots = got.Slots
			got = Compile(w.snapshot, Good{}, testFacts)
		}
		var ids []string
		for _, u := range got.Config.Upstreams {
			for _, s := range u.Servers {
				for _, n := range nodes {
					if n.Key() == s.Node {
						ids = append(ids, n.ID)
					}
				}
			}
		}
		if strings.Join(ids, " ") != want || len(got.Problems) > 0 {
			t.Errorf("%s: %v, want %s; problems: %v", spec, ids, want, got.Problems)
		}
	}
}

func TestCompileNodes(t *testing.T) {
	t.Parallel()
	w := newWorld().nodes(4)
	w.snapshot.Nodes[1].Weight = 7
	w.snapshot.Nodes[3].Address = w.snapshot.Nodes[0].Address
	w.put(registry.KindOverride, "io/n000", `{"state": "draining"}`)
	w.put(registry.KindOverride, "io/n002", `{"weight": 5}`)
	w.put(registry.KindUpstream, "io", `{"balance": {"method": "least_conn"}, "passive": {"maxFails": 0, "failTimeout": "9s"}}`)
	got := Compile(w.snapshot, Good{}, testFacts)
	server := func(i, weight int, down bool) templates.Server {
		n := w.snapshot.Nodes[i]
		return templates.Server{Node: n.Key(), Address: n.HostPort(), Weight: weight, FailTimeout: 9 * time.Second, Down: down}
	}
	want := []templates.Server{server(0, 1, true), server(1, 7, false), server(2, 5, false)}
	if diff := cmp.Diff(want, got.Config.Upstreams[0].Servers); diff != "" {
		t.Errorf("servers (-want +got):\n%s", diff)
	}
	if got.Nodes != 2 {
		t.Errorf("%d nodes take connections, want 2", got.Nodes)
	}
	if text := problems(got.Problems); !strings.Contains(text, "node/io/n003 /address: has the address of node n000") {
		t.Errorf("problems:\n%s", text)
	}
}

// An upstream without a node that takes connections is not rendered; its routes answer 503.
func TestCompileEmptyUpstream(t *testing.T) {
	t.Parallel()
	for name, w := range map[string]*world{
		"no nodes":    newWorld(),
		"all are out": newWorld().nodes(1).put(registry.KindOverride, "io/n000", `{"state": "disabled"}`),
	} {
		got := Compile(w.snapshot, Good{}, testFacts)
		if len(got.Config.Upstreams) != 0 || got.Config.Sites[0].Routes[0].Upstream != "" {
			t.Errorf("%s: %+v", name, got.Config)
		}
		if len(got.Problems) != 0 {
			t.Errorf("%s: an empty upstream is no problem: %s", name, problems(got.Problems))
		}
	}
}

func TestCompileIPHash(t *testing.T) {
	t.Parallel()
	w := newWorld().put(registry.KindUpstream, "io", `{}`).nodes(3)
	table := Compile(w.snapshot, Good{}, testFacts).Slots
	if len(table) != 1 || len(table[0].Slots) != 3 || table[0].Upstream != "io" {
		t.Fatalf("wanted slots: %+v", table)
	}
	w.snapshot.Slots = table
	w.snapshot.Slots[0].Version = 1
	full := Compile(w.snapshot, Good{}, testFacts)
	if u := full.Config.Upstreams[0]; u.Method != "ip_hash" || len(u.Servers) != 3 || full.Slots != nil {
		t.Fatalf("upstream %+v, slots %+v", u, full.Slots)
	}

	w.snapshot.Nodes = append(w.snapshot.Nodes[:1:1], w.snapshot.Nodes[2])
	less := Compile(w.snapshot, Good{}, testFacts)
	servers := less.Config.Upstreams[0].Servers
	if len(servers) != 3 || !servers[1].Down || servers[1].Node != "" || servers[0] != full.Config.Upstreams[0].Servers[0] {
		t.Errorf("the others' positions must stay: %+v", servers)
	}
	if len(less.Slots) != 1 || less.Slots[0].Slots[1].Absent != 1 {
		t.Errorf("the absence should be stored: %+v", less.Slots)
	}
}

func TestCompileHashKeys(t *testing.T) {
	t.Parallel()
	for key, want := range map[string]string{
		"remote_addr": "$remote_addr", "arg:room": "$arg_room", "cookie:sid": "$cookie_sid", "header:X-User-ID": "$http_x_user_id",
	} {
		w := newWorld().nodes(2).put(registry.KindUpstream, "io", fmt.Sprintf(`{"balance": {"method": "hash", "key": %q}}`, key))
		got := Compile(w.snapshot, Good{}, testFacts)
		if u := got.Config.Upstreams[0]; u.Method != "hash" || u.HashKey != want || !u.Ketama {
			t.Errorf("%s: %+v\n%s", key, u, problems(got.Problems))
		}
	}
}

func TestCompileListeners(t *testing.T) {
	t.Parallel()
	facts := testFacts
	facts.Capabilities.IPv6 = true
	w := newWorld().nodes(1).put(registry.KindSite, "chat", `{"hosts": ["*"], "routes": [{"upstream": "io"}],
		"listeners": [{"port": 8080}, {"address": "127.0.0.1", "port": 8081, "proxyProtocol": true}, {"address": "::1", "port": 8082},
		{"address": "0.0.0.0", "port": 8083}]}`)
	got := Compile(w.snapshot, Good{}, facts)
	want := []templates.Socket{
		{Address: "*:8080", CatchAll: true},
		{Address: "*:8083", CatchAll: true},
		{Address: "127.0.0.1:8081", ProxyProtocol: true, CatchAll: true},
		{Address: "[::1]:8082", CatchAll: true},
		{Address: "[::]:8080", CatchAll: true},
	}
	if diff := cmp.Diff(want, got.Config.Sockets); diff != "" {
		t.Errorf("sockets (-want +got):\n%s\n%s", diff, problems(got.Problems))
	}
}

// The order of what comes in does not matter beyond what the registry sorts.
func TestCompileIsPure(t *testing.T) {
	t.Parallel()
	w := newWorld().nodes(20).put(registry.KindSite, "bad", `[]`)
	before, err := json.Marshal(w.snapshot)
	if err != nil {
		t.Fatal(err)
	}
	first := Compile(w.snapshot, Good{}, testFacts)
	for range 10 {
		if diff := cmp.Diff(first, Compile(w.snapshot, Good{}, testFacts)); diff != "" {
			t.Fatalf("not the same again:\n%s", diff)
		}
	}
	if after, _ := json.Marshal(w.snapshot); !bytes.Equal(after, before) {
		t.Error("the Snapshot was changed")
	}
}

// pair returns a self-signed certificate and its key.
func pair(t *testing.T, host string) (chain, key string) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: host}, DNSNames: []string{host},
		NotAfter: time.Now().Add(time.Hour),
	}
	cert, err := x509.CreateCertificate(rand.Reader, template, template, private.Public(), private)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	encode := func(kind string, der []byte) string {
		return string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}))
	}
	return encode("CERTIFICATE", cert), encode("PRIVATE KEY", der)
}

const safeSite = `{"hosts": ["*"], "listeners": [{"port": 8443, "tls": true}], "certificate": "web", "routes": [{"upstream": "io"}]}`

func TestCompileCertificateFromSecret(t *testing.T) {
	t.Parallel()
	chain, key := pair(t, "chat.example.com")
	hash := spec.KeyHash(key)
	value, err := json.Marshal(spec.Certificate{Chain: chain, KeySHA256: hash})
	if err != nil {
		t.Fatal(err)
	}
	secret, err := json.Marshal(Secret{PEM: key})
	if err != nil {
		t.Fatal(err)
	}
	w := newWorld().nodes(1).put(registry.KindCertificate, "web", string(value)).put(registry.KindSite, "chat", safeSite)
	if got := Compile(w.snapshot, Good{}, testFacts); len(got.Config.Sites) != 0 || !strings.Contains(problems(got.Problems), "its private key is not in the registry") {
		t.Errorf("without the key: %s", problems(got.Problems))
	}
	got := Compile(w.put(registry.KindSecret, hash, string(secret)).snapshot, Good{}, testFacts)
	want := []templates.Certificate{{Name: "web", Chain: []byte(chain), Key: []byte(key)}}
	if diff := cmp.Diff(want, got.Config.Certificates); diff != "" {
		t.Errorf("certificates (-want +got):\n%s\n%s", diff, problems(got.Problems))
	}
}

// While a renewal is half done, the last good pair stays.
func TestCompileCertificateFromFiles(t *testing.T) {
	t.Parallel()
	oldChain, oldKey := pair(t, "chat.example.com")
	newChain, newKey := pair(t, "chat.example.com")
	w := newWorld().nodes(1).put(registry.KindSite, "chat", safeSite).
		put(registry.KindCertificate, "web", `{"chainFile": "/tls/chain.pem", "keyFile": "/tls/key.pem"}`)
	compile := func(good Good, chain, key FileFact) Compiled {
		facts := testFacts
		facts.Files = map[string]FileFact{"/tls/chain.pem": chain, "/tls/key.pem": key}
		return Compile(w.snapshot, good, facts)
	}
	fact := func(text string) FileFact { return FileFact{Data: []byte(text)} }
	missing := FileFact{Err: "open /tls/chain.pem: no such file or directory"}

	if got := compile(Good{}, missing, fact(oldKey)); len(got.Config.Sites) != 0 || !strings.Contains(problems(got.Problems), missing.Err) {
		t.Errorf("a missing file: %s", problems(got.Problems))
	}
	first := compile(Good{}, fact(oldChain), fact(oldKey))
	if len(first.Config.Certificates) != 1 || string(first.Config.Certificates[0].Chain) != oldChain {
		t.Fatalf("certificates: %+v\n%s", first.Config.Certificates, problems(first.Problems))
	}
	for name, got := range map[string]Compiled{
		"half renewed": compile(first.Used, fact(newChain), fact(oldKey)),
		"unreadable":   compile(first.Used, missing, fact(oldKey)),
	} {
		if diff := cmp.Diff(first.Config, got.Config); diff != "" || !strings.Contains(problems(got.Problems), "the last good pair stays") {
			t.Errorf("%s: %s\n%s", name, problems(got.Problems), diff)
		}
		if diff := cmp.Diff(first.Used, got.Used); diff != "" {
			t.Errorf("%s: the last good files must be kept:\n%s", name, diff)
		}
	}
	if got := compile(first.Used, fact(newChain), fact(newKey)); string(got.Config.Certificates[0].Key) != newKey {
		t.Errorf("the renewed pair is not used")
	}
}

func BenchmarkCompile(b *testing.B) {
	w := &world{}
	for u := range 100 {
		name := fmt.Sprintf("u%02d", u)
		w.put(registry.KindUpstream, name, `{"balance": {"method": "least_conn"}}`)
		for n := range 100 {
			w.snapshot.Nodes = append(w.snapshot.Nodes, registry.Node{
				Service: name, ID: fmt.Sprintf("n%02d", n), Address: fmt.Sprintf("10.0.%d.%d", u, n), Port: 6001,
			})
		}
		w.put(registry.KindSite, name, fmt.Sprintf(`{"hosts": ["%s.example.com"], "listeners": [{"port": 8080}], "routes": [{"upstream": %q}]}`, name, name))
	}
	b.ReportAllocs()
	for b.Loop() {
		if got := Compile(w.snapshot, Good{}, testFacts); got.Nodes != 10_000 {
			b.Fatalf("%d nodes: %s", got.Nodes, problems(got.Problems))
		}
	}
}
