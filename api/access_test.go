package api_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"sluice/api"
	"sluice/controlplane/spec"
	"sluice/registry"
)

const adminToken = "admin-of-this-instance"

// token creates a token and returns its text.
func (in *instance) token(body string) string {
	in.t.Helper()
	var created api.TokenCreated
	in.do("POST", "/v1/tokens", body, bearer(adminToken)).want(201).json(&created)
	return created.Token
}

func bearer(token string) string { return "Authorization: Bearer " + token }

// mayDo is who may do what, said a second time: by role, what operations with this x-role answer other than 403.
var mayDo = map[spec.Role][]string{
	spec.Viewer:    {"any", "viewer"},
	spec.Registrar: {"any", "registrar"},
	spec.Operator:  {"any", "viewer", "registrar", "operator"},
	spec.Admin:     {"any", "viewer", "registrar", "operator", "admin"},
}

// Every operation of the document is tried with each role, and by nobody: new ones are covered when they have an x-role.
func TestEachRoleOnEachOperation(t *testing.T) {
	t.Parallel()
	in := startWith(t, newRegistry(t), adminToken)
	tokens := map[spec.Role]string{}
	for _, role := range spec.Roles() {
		limits := ""
		if role == spec.Registrar {
			limits = `, "limits": {"services": ["*"]}`
		}
		tokens[role] = in.token(fmt.Sprintf(`{"name": "of-%s", "role": %q%s}`, role, role, limits))
	}
	tried := 0
	for path, item := range document.Paths.Map() {
		for method, op := range item.Operations() {
			needs, _ := op.Extensions["x-role"].(string)
			url := strings.NewReplacer("{name}", "absent", "{service}", "absent", "{id}", "absent", "{seq}", "999999", "{action}", "pause").Replace(path)
			if op.OperationID == "streamEvents" {
				url += "?once=true" // else it has no end
			}
			if needs == "" {
				if got := in.do(method, url, ""); got.status == 401 || got.status == 403 {
					t.Errorf("%s is open, and answers %d", op.OperationID, got.status)
				}
				continue
			}
			if got := in.do(method, url, ""); got.status != 401 {
				t.Errorf("%s by nobody: %d", op.OperationID, got.status)
			}
			for role, token := range tokens {
				tried++
				got := in.do(method, url, "", bearer(token))
				if allowed := slices.Contains(mayDo[role], needs); allowed == (got.status == 403) || got.status == 401 {
					t.Errorf("%s (x-role %s) by %s: %d %s", op.OperationID, needs, role, got.status, got.body)
				}
			}
		}
	}
	if tried < 100 {
		t.Errorf("only %d combinations were tried", tried)
	}
}

func TestTokensLive(t *testing.T) {
	t.Parallel()
	r := newRegistry(t)
	in := startWith(t, r, adminToken)
	other := startWith(t, r, adminToken)

	viewer := in.token(`{"name": "eyes", "role": "viewer", "note": "for the wall"}`)
	in.do("GET", "/v1/sites", "", bearer(viewer)).want(200)
	other.do("GET", "/v1/sites", "", bearer(viewer)).want(200)
	in.do("POST", "/v1/tokens", `{"name": "eyes", "role": "viewer"}`, bearer(adminToken)).wantDetail(409, "revoke it first")
	for what, wrong := range map[string]string{
		"another secret": viewer[:len(viewer)-1] + "x", "no such name": strings.Replace(viewer, "eyes", "ears", 1), "cut": viewer[:40],
	} {
		if got := in.do("GET", "/v1/sites", "", bearer(wrong)); got.status != 401 {
			t.Errorf("%s: %d", what, got.status)
		}
	}
	var list api.TokenList
	got := in.do("GET", "/v1/tokens", "", bearer(adminToken)).want(200)
	got.json(&list)
	if len(list.Items) != 1 || list.Items[0].Spec.Role != spec.Viewer || list.Items[0].Spec.Note != "for the wall" || strings.Contains(got.body, "hash") {
		t.Errorf("%s", got.body)
	}
	in.do("GET", "/v1/tokens/eyes", "", bearer(adminToken)).want(200)
	in.do("GET", "/v1/tokens/ears", "", bearer(adminToken)).want(404)

	in.do("DELETE", "/v1/tokens/eyes", "", bearer(adminToken)).want(204)
	in.do("DELETE", "/v1/tokens/eyes", "", bearer(adminToken)).want(404)
	in.do("GET", "/v1/sites", "", bearer(viewer)).want(401)
	deadline := time.Now().Add(30 * time.Second)
	for other.do("GET", "/v1/sites", "", bearer(viewer)).status != 401 {
		if time.Now().After(deadline) {
			t.Fatal("the other instance still takes a token that was revoked")
		}
	}

	brief := in.token(`{"name": "brief", "role": "viewer", "ttl": "1s"}`)
	for in.do("GET", "/v1/sites", "", bearer(brief)).status != 401 {
		if time.Now().After(deadline) {
			t.Fatal("a token that has expired is still taken")
		}
	}
	in.do("GET", "/v1/sites", "", bearer(brief)).wantDetail(401, "has expired")
}

func TestTokensAreRefused(t *testing.T) {
	t.Parallel()
	in := startWith(t, newRegistry(t), adminToken)
	for body, says := range map[string]string{
		`{"name": "A b", "role": "viewer"}`:                                                          "is not a name",
		`{"name": "a", "role": "king"}`:                                                              `"king" is unknown`,
		`{"name": "a", "role": "registrar"}`:                                                         "needs limits",
		`{"name": "a", "role": "viewer", "limits": {"services": ["io"]}}`:                            `for the role "registrar" only`,
		`{"name": "a", "role": "viewer", "limits": {}}`:                                              `for the role "registrar" only`,
		`{"name": "a", "role": "registrar", "limits": {"services": []}}`:                             "name the services",
		`{"name": "a", "role": "registrar", "limits": {"services": ["io"], "networks": ["10.0"]}}`:   "is not a network",
		`{"name": "a", "role": "registrar", "limits": {"services": ["io"], "ports": ["9-1"]}}`:       "neither a port nor a range",
		`{"name": "a", "role": "viewer", "ttl": "1ms"}`:                                              "too short",
		`{"name": "a", "role": "viewer", "note": "` + strings.Repeat("x", 1001) + `"}`:               "at most 1000",
		`{"name": "a", "role": "registrar", "limits": {"services": ["i o"]}}`:                        "is not a name",
		`{"name": "a", "role": "viewer", "hash": "0"}`:                                               "hash",
		`{"name": "a", "role": "registrar", "limits": {"services": ["io"], "networks": ["fd00::"]}}`: "is not a network",
	} {
		in.do("POST", "/v1/tokens", body, bearer(adminToken)).wantDetail(422, says)
	}
}

func TestRegistrarLimits(t *testing.T) {
	t.Parallel()
	in := startWith(t, newRegistry(t), adminToken)
	token := bearer(in.token(`{"name": "nodes", "role": "registrar", "limits": {"services": ["io"], "networks": ["10.1.0.0/16", "127.0.0.0/8"], "ports": ["6000-6009", "7000"]}}`))
	in.do("PUT", "/v1/services/io/nodes/n1", `{"address": "10.1.2.3", "port": 6000}`, token).want(200)
	in.do("PUT", "/v1/services/io/nodes/n1", `{"address": "127.0.0.1", "port": 7000}`, token).want(200)
	in.do("PUT", "/v1/services/io/nodes/n1", `{"address": "10.2.2.3", "port": 6000}`, token).wantDetail(422, "10.1.0.0/16")
	in.do("PUT", "/v1/services/io/nodes/n1", `{"address": "10.1.2.3", "port": 6010}`, token).wantDetail(422, "6000-6009")
	in.do("PUT", "/v1/services/io/nodes/n1", `{"address": "unix:/run/n1.sock"}`, token).wantDetail(422, "10.1.0.0/16")
	in.do("PUT", "/v1/services/web/nodes/n1", `{"address": "10.1.2.3", "port": 6000}`, token).wantDetail(403, `not of "web"`)
	in.do("DELETE", "/v1/services/web/nodes/n1", "", token).wantDetail(403, `not of "web"`)
	in.do("GET", "/v1/services/io/nodes/n1", "", token).want(200)
	in.do("GET", "/v1/services/web/nodes/n1", "", token).wantDetail(403, `not of "web"`)
	in.do("DELETE", "/v1/services/io/nodes/n1", "", token).want(204)
	in.do("DELETE", "/v1/services/io/nodes/n1", "", token).want(404)

	// The node of another network is neither removed nor replaced.
	foreign := registry.Node{Service: "io", ID: "n2", Address: "10.2.2.3", Port: 6000}
	in.do("PUT", "/v1/services/io/nodes/n2", `{"address": "10.2.2.3", "port": 6000}`, bearer(adminToken)).want(200)
	in.local.snapshot.Store(&registry.Snapshot{Nodes: []registry.Node{{Service: "io", ID: "n1"}, foreign, {Service: "io", ID: "n3"}}})
	in.do("DELETE", "/v1/services/io/nodes/n2", "", token).wantDetail(403, "10.1.0.0/16")
	in.do("PUT", "/v1/services/io/nodes/n2", `{"address": "10.1.2.3", "port": 6000}`, token).wantDetail(403, "10.1.0.0/16")
	in.do("PUT", "/v1/services/io/nodes/n4", `{"address": "10.1.2.3", "port": 6000}`, token).want(200)
	in.do("GET", "/v1/services/io/nodes/n2", "", bearer(adminToken)).want(200)
}

func TestAddressesThatNoNodeCanHave(t *testing.T) {
	t.Parallel()
	state, link := filepath.Join(t.TempDir(), "state"), filepath.Join(t.TempDir(), "link")
	if err := errors.Join(os.Mkdir(state, 0o700), os.Symlink(state, link)); err != nil {
		t.Fatal(err)
	}
	in := startOptions(t, api.Options{
		Registry: newRegistry(t), Local: newLocal("edge-1"),
		Reserved: []string{"127.0.0.1:7070", "[::1]:2379", ":7443", "localhost:8500", "etcd.example:2379", "unix:" + state, "unix:/run/etcd.sock"},
	})
	put := func(address string, port int) answer {
		return in.do("PUT", "/v1/services/io/nodes/n1", fmt.Sprintf(`{"address": %q, "port": %d}`, address, port))
	}
	put("127.0.0.1", 6001).want(200)
	put("169.254.169.254", 80).wantDetail(422, "link-local")
	put("fe80::1", 80).wantDetail(422, "link-local")
	put("::ffff:169.254.0.1", 80).wantDetail(422, "link-local")
	for _, own := range []struct {
		address string
		port    int
	}{{"127.0.0.1", 7070}, {"::1", 2379}, {"127.0.0.1", 7443}, {"127.0.0.2", 7443}, {"::1", 8500}, {"::ffff:127.0.0.1", 7443}, {"127.0.0.1", 8500}} {
		put(own.address, own.port).wantDetail(422, "API or registry")
	}
	put("10.0.0.9", 7443).want(200)
	put("127.0.0.2", 7070).want(200) // where the API does not answer
	unix := func(path string) answer {
		return in.do("PUT", "/v1/services/io/nodes/n1", fmt.Sprintf(`{"address": "unix:%s"}`, path))
	}
	for _, path := range []string{"/run/etcd.sock", "/run/../run//etcd.sock", state + "/etcd/client.sock", link + "/client.sock"} {
		unix(path).wantDetail(422, "API or registry")
	}
	unix("/run/etcd.sock2").want(200)
	unix(state + "2/n1.sock").want(200)

	// What a proxy on this machine passes on comes from elsewhere.
	for _, header := range []string{"X-Forwarded-For: 203.0.113.9", "Forwarded: for=203.0.113.9"} {
		in.do("PUT", "/v1/services/io/nodes/n1", `{"address": "127.0.0.1", "port": 6001}`, header).wantDetail(422, "another process on each gateway")
	}
}

// The history tells what became of a token, though not what was in it.
func TestTokensInTheHistory(t *testing.T) {
	t.Parallel()
	in := startWith(t, newRegistry(t), adminToken)
	in.token(`{"name": "eyes", "role": "viewer"}`)
	in.do("DELETE", "/v1/tokens/eyes", "", bearer(adminToken)).want(204)
	var list api.HistoryList
	in.do("GET", "/v1/history", "", bearer(adminToken)).want(200).json(&list)
	var got []api.ChangeAction
	for _, e := range list.Items {
		got = append(got, e.Changes[0].Action)
	}
	if !slices.Equal(got, []api.ChangeAction{api.Deleted, api.Created}) {
		t.Errorf("%v", got)
	}
	in.do("POST", "/v1/history/2/revert", "", bearer(adminToken)) // brings nothing back
	in.do("GET", "/v1/tokens/eyes", "", bearer(adminToken)).want(404)
}

// from sends a request as if it came from an address.
func (in *instance) from(address, token string) int {
	in.t.Helper()
	r := httptest.NewRequestWithContext(in.t.Context(), http.MethodGet, "/v1/tokens", nil)
	r.RemoteAddr = address
	r.Header.Set("Authorization", "Bearer "+token)
	w := httptest.NewRecorder()
	in.server.ServeHTTP(w, r)
	return w.Code
}

// Whoever has a network of IPv6 does not have as many tries as it has addresses, and others are not made to wait.
func TestWrongTokensFromANetwork(t *testing.T) {
	t.Parallel()
	in := startWith(t, newRegistry(t), adminToken)
	wrong := func(address string, i int) int {
		return in.from(address, fmt.Sprintf("sluice_n%d_%s", i, strings.Repeat("0", 64)))
	}
	last := 0
	for i := range 200 {
		last = wrong(fmt.Sprintf("[2001:db8::%x]:1", i+1), i)
	}
	if other := wrong("[2001:db8:0:1::1]:1", 0); last != 429 || other != 401 {
		t.Errorf("in the network %d, in another one %d", last, other)
	}
}

func TestAuditLog(t *testing.T) {
	t.Parallel()
	in := startWith(t, newRegistry(t), adminToken)
	operator := in.token(`{"name": "ops", "role": "operator"}`)
	in.do("PUT", "/v1/upstreams/io", `{}`, bearer(operator), "X-Change-Reason: ticket 4711").want(201)
	in.do("GET", "/v1/upstreams/io", "", bearer(operator)).want(200)
	in.do("PUT", "/v1/upstreams/io", `{"nonsense": 1}`, bearer(operator)).want(422)
	in.do("GET", "/v1/tokens", "", bearer(operator)).want(403)
	in.do("DELETE", "/v1/upstreams/io", "").want(401)
	for range 3 { // beats: the first is written down
		in.do("PUT", "/v1/services/io/nodes/n1", `{"address": "10.1.2.3", "port": 6000}`, bearer(operator)).want(200)
	}
	var lines []string
	for line := range strings.Lines(in.audit.String()) {
		var e struct {
			Msg, ID, Caller, Role, Remote, Operation, Reason string
			Status, Seq                                      int
			Objects                                          []string
		}
		if err := json.Unmarshal([]byte(line), &e); err != nil {
			t.Fatal(err)
		}
		if e.ID == "" || e.Remote != "127.0.0.1" {
			t.Errorf("%s", line)
		}
		lines = append(lines, fmt.Sprintf("%s %s %s %s %d %v %s", e.Msg, e.Caller, e.Role, e.Operation, e.Status, e.Objects, e.Reason))
	}
	want := []string{
		"done token admin createToken 201 [token/ops] ",
		"done token/ops operator putUpstream 201 [upstream/io] ticket 4711",
		"failed token/ops operator putUpstream 422 [] ",
		"denied token/ops operator listTokens 403 [] ",
		"denied   deleteUpstream 401 [] ",
		"done token/ops operator putNode 200 [] ",
	}
	if !slices.Equal(lines, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(lines, "\n"), strings.Join(want, "\n"))
	}
	for _, secret := range []string{operator, adminToken} {
		if strings.Contains(in.audit.String()+in.log.String(), secret) {
			t.Error("a token is in a log")
		}
	}
	history, err := in.registry.List(t.Context(), registry.KindHistory, "", 0)
	if err != nil {
		t.Fatal(err)
	}
	for _, o := range history.Objects {
		if strings.Contains(string(o.Value), "hash") {
			t.Errorf("the history has the hash of a token: %s", o.Value)
		}
	}
}

func TestTooMuch(t *testing.T) {
	t.Parallel()
	in := startWith(t, newRegistry(t), adminToken)
	limited := func(do func() answer) bool {
		for range 5000 {
			if got := do(); got.status == 429 {
				if got.header.Get("Retry-After") == "" {
					t.Error("429 without Retry-After")
				}
				return true
			}
		}
		return false
	}
	// The client of the harness is slower than the rates, so wrong tokens are what can be shown over HTTP.
	guess := "sluice_nobody_" + strings.Repeat("0", 64)
	if !limited(func() answer {
		return in.do("GET", "/v1/sites", "", bearer(strings.Replace(guess, "nobody", fmt.Sprintf("n%d", time.Now().UnixNano()), 1)))
	}) {
		t.Error("wrong tokens may be tried without end")
	}
	in.do("GET", "/v1/sites", "", bearer(adminToken)).want(200) // others at the address go on
}
