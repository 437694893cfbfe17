package api_test

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"sluice/api"
	"sluice/controlplane"
	"sluice/registry"
)

// objects are what the examples of the document are about, in the order in which they need each other.
var objects = []struct{ path, body string }{
	{"/v1/certificates/main", `{"chainFile": "/etc/main.pem", "keyFile": "/etc/main.key"}`},
	{"/v1/certificates/chat", `{"chainFile": "/etc/chat.pem", "keyFile": "/etc/chat.key"}`},
	{"/v1/upstreams/chat", `{}`},
	{"/v1/upstreams/io", `{}`},
	{"/v1/sites/chat", `{"hosts": ["*"], "listeners": [{"port": 8080}], "routes": [{"upstream": "chat"}]}`},
	{"/v1/approvals/chat", `{"at": "2026-01-02T03:04:05Z"}`},
	{"/v1/overrides/io/n1", `{"note": "ticket 4711"}`},
}

// create writes the objects as they were, and returns the newest seq.
func (in *instance) create() registry.Seq {
	in.t.Helper()
	for _, o := range objects {
		if got := in.do("PUT", o.path, o.body); got.status != http.StatusOK && got.status != http.StatusCreated {
			in.t.Fatalf("PUT %s: %d %s", o.path, got.status, got.body)
		}
	}
	var list api.HistoryList
	in.do("GET", "/v1/history?limit=1", "").want(200).json(&list)
	return list.Seq
}

// example returns the request that the document gives as an example, as one about the objects.
func (e endpoint) example(t *testing.T, seq registry.Seq) call {
	t.Helper()
	name := "chat"
	if strings.HasPrefix(e.path, "/v1/upstreams/") { // of the two, the one that no site uses
		name = "io"
	}
	out := call{operation: e.OperationID, method: e.method}
	out.target = strings.NewReplacer("{name}", name, "{service}", "io", "{id}", "n1", "{seq}", fmt.Sprint(seq), "{action}", "pause").Replace(e.path)
	if e.RequestBody != nil {
		for media, content := range e.RequestBody.Value.Content {
			example := content.Example
			if example == nil {
				example = content.Schema.Value.Example
			}
			data, err := json.Marshal(example)
			if err != nil {
				t.Fatal(err)
			}
			out.body, out.headers = string(data), []string{"Content-Type: " + media}
		}
	}
	return out
}

// refusing is a registry that commits nothing.
type refusing struct {
	registry.Registry
	err error
}

func (r refusing) Commit(context.Context, registry.Tx) (registry.Committed, error) {
	return registry.Committed{}, r.err
}

// What the document says of every change: that the gateway would refuse it, that it is not live in time, that others were
// faster, or that it is too large.
func TestAnswersOfEveryChange(t *testing.T) {
	t.Parallel()
	in := start(t)
	refuses := func(changes map[registry.Ref]*registry.Object) (controlplane.Trial, error) {
		for ref := range changes {
			return controlplane.Trial{Refused: []registry.Problem{{Object: ref.String(), Message: "[emerg] bogus"}}}, nil
		}
		return controlplane.Trial{}, nil
	}
	conflict := startWith(t, refusing{in.registry, &registry.ConflictError{}}, "")
	tooLarge := startWith(t, refusing{in.registry, &registry.TooLargeError{What: "objects", Have: 121, Limit: 120}}, "")
	changes := 0
	for _, e := range endpoints() {
		if e.Responses.Value("202") == nil || e.OperationID == "retryGateway" {
			continue
		}
		changes++
		c := e.example(t, in.create())
		do := func(in *instance, query string, status int, headers ...string) {
			if e.OperationID == "restore" { // what there is, is not what it restores
				query = cmp.Or(query, "?") + "&replace=true"
			}
			if got := in.do(c.method, c.target+query, c.body, append(headers, c.headers...)...); got.status != status && (status != http.StatusOK || got.status != http.StatusCreated) {
				t.Errorf("%s%s: %d, want %d: %s", c, query, got.status, status, got.body)
			}
		}
		do(conflict, "", http.StatusConflict)
		if e.Responses.Value("413") != nil {
			do(tooLarge, "", http.StatusRequestEntityTooLarge)
		}
		if e.Tags[0] != "approvals" { // which nginx never sees
			in.local.try = refuses
			do(in, "", http.StatusUnprocessableEntity)
			in.local.try = nil
		}
		if e.Responses.Value("412") != nil {
			do(in, "", http.StatusPreconditionFailed, `If-Match: "999999"`)
		}
		do(in, "?wait=1ms", http.StatusAccepted)
		c = e.example(t, in.create())
		do(in, "", http.StatusOK)
		if e.method == http.MethodPut {
			do(in, "", http.StatusOK)
		}
	}
	if changes < 16 {
		t.Errorf("only %d operations were tried", changes)
	}
}

// A body beyond the limit is refused wherever there is one.
func TestBodiesThatAreTooLarge(t *testing.T) {
	t.Parallel()
	in := start(t)
	for _, e := range endpoints() {
		if e.RequestBody != nil && e.OperationID != "restore" { // which takes much more
			c := e.example(t, 1)
			in.do(c.method, c.target, `{"x":"`+strings.Repeat("x", 1<<20)+`"}`, c.headers...).wantDetail(413, "split the change")
		}
	}
}

// What the document says of every operation: that there is no such thing, that a parameter is unknown, that the caller is, that
// the registry is away; and that where nobody is asked who he is, it does not answer under a name that may be anybody's.
func TestAnswersOfEveryOperation(t *testing.T) {
	t.Parallel()
	open, closed := start(t), startWith(t, newRegistry(t), adminToken)
	away := startWith(t, brokenRegistry{Registry: open.registry, err: registry.ErrAway}, adminToken)
	token := bearer("sluice_ops_" + strings.Repeat("0", 64))
	for _, e := range endpoints() {
		c := e.example(t, 1)
		do := func(in *instance, query string, status int, headers ...string) {
			if e.Responses.Value(fmt.Sprint(status)) == nil && status != http.StatusForbidden {
				return
			}
			if got := in.do(c.method, c.target+query, c.body, append(headers, c.headers...)...); got.status != status {
				t.Errorf("%s%s: %d, want %d: %s", c, query, got.status, status, got.body)
			}
		}
		do(open, "?unknown=1", http.StatusBadRequest)
		do(open, "", http.StatusForbidden, "Host: evil.example")
		do(closed, "", http.StatusUnauthorized)
		if e.OperationID != "diffHistory" { // which has no example without parameters
			do(open, "", http.StatusNotFound)
		}
		if e.OperationID != "getReadiness" { // which tells of nginx
			do(away, "", http.StatusServiceUnavailable, token)
		}
	}
}
