package api_test

import (
	"encoding/json"
	"fmt"
	"net/http"
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
			url := strings.NewReplacer("{name}", "absent", "{service}", "absent", "{id}", "absent", "{seq}", "999999").Replace(path)
			if strings.Contains(url, "events") && method == http.MethodGet {
				continue // it would stream; what stands before it is the same for all
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
	in.do("DELETE", "/v1/services/io/nodes/n1", "", token).want(204)
}

func TestAddressesThatNoNodeCanHave(t *testing.T) {
	t.Parallel()
	in := startOptions(t, api.Options{
		Registry: newRegistry(t), Local: newLocal("edge-1"), Reserved: []string{"127.0.0.1:7070", "[::1]:2379", ":7443", "localhost:8500", "etcd.example:2379"},
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
	}{{"127.0.0.1", 7070}, {"::1", 2379}, {"127.0.0.1", 7443}, {"::ffff:127.0.0.1", 7443}, {"127.0.0.1", 8500}} {
		put(own.address, own.port).wantDetail(422, "API or registry")
	}
	put("10.0.0.9", 7443).want(200)
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
