package api_test

import (
	"net/http"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"sluice/api"
	"sluice/controlplane/spec"
	"sluice/registry"
)

const mergePatch = "Content-Type: application/merge-patch+json"

// store writes what a newer version might have.
func (in *instance) store(kind registry.Kind, name, value string) {
	in.t.Helper()
	_, err := in.registry.Commit(in.t.Context(), registry.Tx{Ops: []registry.Op{{Ref: registry.Ref{Kind: kind, Name: name}, Value: []byte(value)}}})
	if err != nil {
		in.t.Fatal(err)
	}
}

func (in *instance) stored(kind registry.Kind, name string) string {
	in.t.Helper()
	o, err := in.registry.Get(in.t.Context(), registry.Ref{Kind: kind, Name: name})
	if err != nil {
		in.t.Fatal(err)
	}
	return string(o.Value)
}

func TestPatch(t *testing.T) {
	t.Parallel()
	in := start(t)
	in.do("PATCH", "/v1/upstreams/io", `{}`, mergePatch).wantDetail(404, "upstream/io does not exist: create it with PUT")
	in.do("PUT", "/v1/upstreams/io", `{"service":"chat","keepalive":{"connections":5}}`).want(201)
	got := in.do("PATCH", "/v1/upstreams/io", `{"keepalive":{"timeout":"3s"},"balance":{"method":"hash","key":"uri"}}`, mergePatch).want(200)
	if got.etag != `"2"` {
		t.Errorf("ETag %s", got.etag)
	}
	if diff := cmp.Diff(`{"balance":{"key":"uri","method":"hash"},"keepalive":{"connections":5,"timeout":"3s"},"service":"chat"}`, sorted(t, in.stored("upstream", "io"))); diff != "" {
		t.Error(diff)
	}
	if same := in.do("PATCH", "/v1/upstreams/io", `{"service":"chat"}`, mergePatch).want(200); same.etag != `"2"` {
		t.Errorf("an unchanged patch moved the ETag to %s", same.etag)
	}
	in.do("PATCH", "/v1/upstreams/io", `{"service":"x"}`, mergePatch, `If-Match: "1"`).wantDetail(412, "upstream/io is at seq 2, not 1")
	in.do("PATCH", "/v1/upstreams/io", `{"service":"x"}`, mergePatch, `If-None-Match: *`).wantDetail(412, "exists already")
	in.do("PATCH", "/v1/upstreams/io", `{"keepalive":null,"balance":{"key":null,"method":null}}`, mergePatch, `If-Match: "2"`).want(200)
	if diff := cmp.Diff(`{"balance":{},"service":"chat"}`, sorted(t, in.stored("upstream", "io"))); diff != "" {
		t.Error(diff)
	}
	in.do("PATCH", "/v1/upstreams/io", `{"balance":{"methd":"x"}}`, mergePatch).wantDetail(422, "/balance/methd: is unknown")
	in.do("PATCH", "/v1/upstreams/io", `{"balance":{"method":"hash"}}`, mergePatch).wantDetail(422, "/balance/key")
	in.do("PATCH", "/v1/upstreams/io", `[]`, mergePatch).wantDetail(422, "must be an object")

	// A node without an override has one without fields.
	in.do("PATCH", "/v1/overrides/io/n1", `{"state":"draining"}`, mergePatch).want(201)
	in.do("PATCH", "/v1/overrides/io/n1", `{"weight":5}`, mergePatch).want(200)
	if diff := cmp.Diff(`{"state":"draining","weight":5}`, sorted(t, in.stored("override", "io/n1"))); diff != "" {
		t.Error(diff)
	}
	in.do("PUT", "/v1/sites/a", `{"hosts":["a"],"listeners":[{"port":8080}],"routes":[{"upstream":"io"}]}`).want(201)
	in.do("PATCH", "/v1/sites/a", `{"routes":[{"upstream":"none"}]}`, mergePatch).wantDetail(422, `/routes/0/upstream: there is no upstream "none"`)
	in.do("PATCH", "/v1/sites/a", `{"hosts":["b"]}`, mergePatch).want(200)
}

func sorted(t *testing.T, text string) string {
	t.Helper()
	var v map[string]any
	answer{t: t, body: text}.json(&v)
	return body(t, v)
}

func TestPatchOfACertificatesKey(t *testing.T) {
	t.Parallel()
	in := start(t)
	one, two := makePair(t), makePair(t)
	in.do("PUT", "/v1/certificates/a", body(t, one)).want(201)
	in.do("PATCH", "/v1/certificates/a", body(t, spec.Certificate{Chain: two.Chain}), mergePatch).wantDetail(422, "does not belong to the first certificate")
	in.do("PATCH", "/v1/certificates/a", body(t, two), mergePatch).want(200)
	in.wantSecrets(two.Key)
	if text := in.stored("certificate", "a"); strings.Contains(text, "PRIVATE") {
		t.Error(text)
	}
}

// TestUnknownFieldsSurvive has objects of a newer version written by this one.
func TestUnknownFieldsSurvive(t *testing.T) {
	t.Parallel()
	in := start(t)
	in.store("upstream", "io", `{"service":"chat","new":{"a":[1,12345678901234567890]},"balance":{"method":"random","newer":true}}`)
	in.store("site", "s", `{"hosts":["a"],"listeners":[{"port":8080,"quic":true}],"routes":[{"upstream":"io","mirror":"x"}]}`)
	in.do("PATCH", "/v1/upstreams/io", `{"service":"talk"}`, mergePatch).want(200)
	in.do("PUT", "/v1/upstreams/io", `{"service":"talk","balance":{"method":"least_conn"}}`).want(200)
	in.do("POST", "/v1/apply", `{"sites":{"s":{"hosts":["b"],"listeners":[{"port":8080}],"routes":[{"upstream":"io"}]}}}`).want(200)
	want := `{"service":"talk","new":{"a":[1,12345678901234567890]},"balance":{"method":"least_conn","newer":true}}`
	if got := in.stored("upstream", "io"); !registry.SameJSON([]byte(got), []byte(want)) {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	want = `{"hosts":["b"],"listeners":[{"port":8080,"quic":true}],"routes":[{"upstream":"io","mirror":"x"}]}`
	if got := in.stored("site", "s"); !registry.SameJSON([]byte(got), []byte(want)) {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	in.do("PATCH", "/v1/upstreams/io", `{"new":1}`, mergePatch).wantDetail(422, "/new: is unknown")
	in.do("PATCH", "/v1/upstreams/io", `{"new":null}`, mergePatch).want(200)
	if got := in.stored("upstream", "io"); strings.Contains(got, `"new":`) {
		t.Error(got)
	}
}

func TestDryRunOfEveryWrite(t *testing.T) {
	t.Parallel()
	in := start(t)
	in.do("PUT", "/v1/upstreams/io", `{"service":"chat"}`).want(201)
	steps := []struct{ method, path, body, want string }{
		{"PUT", "/v1/upstreams/new", `{}`, `{"changes":[{"action":"created","differences":[{"after":{},"path":""}],"kind":"upstream","name":"new"}],"dryRun":true,"seq":1}`},
		{"PUT", "/v1/upstreams/io", `{"service":"x"}`, `{"changes":[{"action":"updated","differences":[{"after":"x","before":"chat","path":"/service"}],"kind":"upstream","name":"io","seq":1}],"dryRun":true,"seq":1}`},
		{"PATCH", "/v1/upstreams/io", `{"service":null,"passive":{"maxFails":1}}`,
			`{"changes":[{"action":"updated","differences":[{"after":{"maxFails":1},"path":"/passive"},{"before":"chat","path":"/service"}],"kind":"upstream","name":"io","seq":1}],"dryRun":true,"seq":1}`},
		{"DELETE", "/v1/upstreams/io", ``, `{"changes":[{"action":"deleted","differences":[{"before":{"service":"chat"},"path":""}],"kind":"upstream","name":"io","seq":1}],"dryRun":true,"seq":1}`},
	}
	for _, step := range steps {
		var headers []string
		if step.method == "PATCH" {
			headers = append(headers, mergePatch)
		}
		if got := in.do(step.method, step.path+"?dryRun=true", step.body, headers...).want(200); got.body != step.want {
			t.Errorf("%s %s:\ngot  %s\nwant %s", step.method, step.path, got.body, step.want)
		}
	}
	if page, err := in.registry.List(t.Context(), registry.KindUpstream, "", 0); err != nil || page.Seq != 1 {
		t.Errorf("something was written: %+v, %v", page, err)
	}
}

func TestApplyWithOwner(t *testing.T) {
	t.Parallel()
	in := start(t)
	const a, b = "/v1/apply?owner=a", "/v1/apply?owner=b"
	in.do("POST", "/v1/apply?prune=true", `{}`).wantDetail(400, "name the owner")
	in.do("POST", "/v1/apply?owner=A", `{}`).wantDetail(400, `the owner "A" is not a name`)
	in.do("POST", a, `{"upstreams":{"x":{"owner":"b"}}}`).wantDetail(422, "/upstreams/x/owner: is another owner than that of the request")
	in.do("PUT", "/v1/upstreams/mine", `{}`).want(201)
	in.do("POST", a, document1).want(200)
	in.do("POST", b, `{"upstreams":{"web":{}}}`).want(200)

	p := in.do("POST", b, `{"upstreams":{"io":{}}}`).problem(409)
	if p.Object != "upstream/io" || !strings.Contains(p.Detail, `upstream/io belongs to "a"`) {
		t.Errorf("%+v", p)
	}
	p = in.do("POST", a+"&prune=true", `{"sites":{"a":{"hosts":["a"],"listeners":[{"port":8080}],"routes":[{"upstream":"io"}]}}}`).problem(409)
	if p.Object != "upstream/io" {
		t.Errorf("%+v", p)
	}
	got := changes(in.do("POST", a+"&prune=true&dryRun=true", `{"upstreams":{"new":{}}}`))
	want := []string{"seq 3", "created upstream/new", "deleted override/io/n1", "deleted site/a", "deleted upstream/io"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	want[0] = "seq 4"
	if diff := cmp.Diff(want, changes(in.do("POST", a+"&prune=true", `{"upstreams":{"new":{}}}`))); diff != "" {
		t.Error(diff)
	}
	var page api.UpstreamList
	in.do("GET", "/v1/upstreams", "").want(200).json(&page)
	var left []string
	for _, u := range page.Items {
		left = append(left, u.Name+" of "+u.Spec.Owner)
	}
	if diff := cmp.Diff([]string{"mine of ", "new of a", "web of b"}, left); diff != "" {
		t.Error(diff)
	}
}

// TestTwoWritersRace has two writers who know the same version: exactly one wins.
func TestTwoWritersRace(t *testing.T) {
	t.Parallel()
	in := start(t)
	etag := in.do("PUT", "/v1/overrides/io/n1", `{}`).want(201).etag
	transport := &http.Transport{}
	t.Cleanup(transport.CloseIdleConnections)
	const rounds = 100
	for round := range rounds {
		var wg sync.WaitGroup
		answers := make([]*http.Response, 2)
		for i := range answers {
			wg.Go(func() {
				text := `{"note":"` + strings.Repeat("x", 2*round+i) + `","weight":7}`
				r, err := http.NewRequestWithContext(t.Context(), http.MethodPut, in.url+"/v1/overrides/io/n1", strings.NewReader(text))
				if err != nil {
					t.Error(err)
					return
				}
				r.Header.Set("Content-Type", "application/json")
				r.Header.Set("If-Match", etag)
				resp, err := transport.RoundTrip(r)
				if err != nil {
					t.Error(err)
					return
				}
				_ = resp.Body.Close()
				answers[i] = resp
			})
		}
		wg.Wait()
		if t.Failed() {
			return
		}
		won := answers[0]
		if won.StatusCode != http.StatusOK {
			won = answers[1]
		}
		if codes := answers[0].StatusCode + answers[1].StatusCode; codes != http.StatusOK+http.StatusPreconditionFailed {
			t.Fatalf("round %d: %d and %d", round, answers[0].StatusCode, answers[1].StatusCode)
		}
		etag = won.Header.Get("ETag")
	}
	if page, err := in.registry.List(t.Context(), registry.KindOverride, "", 0); err != nil || page.Seq != rounds+1 {
		t.Errorf("seq %d after %d rounds: %v", page.Seq, rounds, err)
	}
}
