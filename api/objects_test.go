package api_test

import (
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"sluice/api"
	"sluice/registry"
)

const site = `{"hosts":["%s"],"listeners":[{"port":8080}],"routes":[{"upstream":"io"}]}`

func siteOf(host string) string { return strings.Replace(site, "%s", host, 1) }

func TestUpstreamLives(t *testing.T) {
	t.Parallel()
	in := start(t)
	in.do("GET", "/v1/upstreams/io", "").wantDetail(404, "upstream/io: not found")

	created := in.do("PUT", "/v1/upstreams/io", `{"service":"chat"}`).want(201)
	if created.etag != `"1"` || created.body != `{"changes":[{"action":"created","kind":"upstream","name":"io","seq":1}],"dryRun":false,"seq":1}` {
		t.Errorf("created with %s: %s", created.etag, created.body)
	}
	in.do("PUT", "/v1/upstreams/other", `{}`).want(201)
	again := in.do("PUT", "/v1/upstreams/io", `{ "service" : "chat" }`).want(200)
	if again.etag != created.etag {
		t.Errorf("an unchanged write moved the ETag to %s", again.etag)
	}
	changed := in.do("PUT", "/v1/upstreams/io", `{"balance":{"method":"hash","key":"uri"}}`).want(200)
	if changed.etag != `"3"` {
		t.Errorf("the change has ETag %s", changed.etag)
	}
	got := in.do("GET", "/v1/upstreams/io", "").want(200)
	if got.etag != changed.etag || got.body != `{"balance":{"method":"hash","key":"uri"}}` {
		t.Errorf("got %s: %s", got.etag, got.body)
	}
	in.do("DELETE", "/v1/upstreams/io", "").want(200)
	in.do("DELETE", "/v1/upstreams/io", "").wantDetail(404, "upstream/io does not exist")
}

func TestPreconditions(t *testing.T) {
	t.Parallel()
	in := start(t)
	in.do("PUT", "/v1/upstreams/io", `{}`, `If-Match: *`).wantDetail(412, "upstream/io does not exist")
	in.do("PUT", "/v1/upstreams/io", `{}`, `If-Match: "1"`).wantDetail(412, "does not exist")
	in.do("PUT", "/v1/upstreams/io", `{}`, `If-None-Match: *`).want(201)
	in.do("PUT", "/v1/upstreams/io", `{}`, `If-None-Match: *`).wantDetail(412, "upstream/io exists already, at seq 1")
	in.do("PUT", "/v1/upstreams/io", `{"service":"a"}`, `If-Match: "1"`).want(200)
	in.do("PUT", "/v1/upstreams/io", `{"service":"b"}`, `If-Match: "1"`).wantDetail(412, "upstream/io is at seq 2, not 1: it was changed in between")
	in.do("PUT", "/v1/upstreams/io", `{"service":"b"}`, `If-Match: *`).want(200)
	in.do("DELETE", "/v1/upstreams/io", "", `If-Match: "2"`).wantDetail(412, "upstream/io is at seq 3, not 2")
	in.do("PUT", "/v1/upstreams/io", `{}`, `If-Match: 3`).wantDetail(400, `If-Match takes * or one ETag as it was received, as "17", not 3`)
	in.do("PUT", "/v1/upstreams/io", `{}`, `If-Match: "3"`, `If-None-Match: *`).wantDetail(400, "contradict each other")
	in.do("PUT", "/v1/upstreams/io", `{}`, `If-None-Match: "3"`).wantDetail(400, `If-None-Match: "\"3\"" is not a text, as *. With *, create`)
	in.do("DELETE", "/v1/upstreams/io", "", `If-Match: "3"`).want(200)
}

func TestWhatIsRefused(t *testing.T) {
	t.Parallel()
	in := start(t)
	const upstream = "/v1/upstreams/io"
	tests := []struct {
		name, method, path, body string
		headers                  []string
		status                   int
		want                     string
	}{
		{"unknown field", "PUT", upstream, `{"balance":{"methd":"hash"}}`, nil, 422, "/balance/methd: is unknown: there are consistent, key, method"},
		{"other case", "PUT", upstream, `{"Service":"io"}`, nil, 422, `/Service: is unknown: write "service"`},
		{"wrong type", "PUT", upstream, `{"keepalive":{"timeout":5}}`, nil, 422, "/keepalive/timeout: must be a text in quotes"},
		{"invalid", "PUT", upstream, `{"balance":{"method":"fastest"}}`, nil, 422, `/balance/method: "fastest" is unknown`},
		{"name", "PUT", "/v1/upstreams/IO", `{}`, nil, 400, `name: "IO" is not a text of 1 to 63 characters, as chat. Lower-case letters`},
		{"null", "PUT", upstream, `null`, nil, 422, "is null"},
		{"null for a patch", "PATCH", upstream, `null`, []string{"Content-Type: application/merge-patch+json"}, 422, "is null"},
		{"null for a field", "PUT", upstream, `{"balance":null}`, nil, 422, "/balance: is null: leave it out"},
		{"no UTF-8", "PUT", upstream, "{\"service\":\"\xff\"}", nil, 422, "is not text in UTF-8"},
		{"no JSON", "PUT", upstream, `{`, nil, 400, "the JSON text ends too early"},
		{"no body", "PUT", upstream, ``, []string{"Content-Type: application/json"}, 400, "the body is missing"},
		{"type of a form", "PUT", upstream, `{}`, []string{"Content-Type: text/plain"}, 415, "send the body as application/json"},
		{"type of a patch", "PATCH", upstream, `{}`, []string{"Content-Type: application/json"}, 415, "send the body as application/merge-patch+json"},
		{"no type", "PUT", upstream, `{}`, []string{"Content-Type: "}, 415, "send the body as application/json"},
		{"too long", "PUT", upstream, `{"service":"` + strings.Repeat("a", 1<<20) + `"}`, nil, 413, "the body has more than 1048576 bytes"},
		{"unknown parameter", "POST", "/v1/apply?dryrun=true", `{}`, nil, 400, `unknown query parameter "dryrun": there is owner, prune, dryRun, wait`},
		{"parameter where there is none", "GET", "/v1/self?x=1", ``, nil, 400, `unknown query parameter "x": there are none here`},
		{"bad parameter", "GET", "/v1/upstreams?limit=x", ``, nil, 400, `limit: "x" is not a whole number of 1 to 1000, as 100. The most`},
		{"limit", "GET", "/v1/upstreams?limit=1001", ``, nil, 400, `limit: "1001" is not a whole number of 1 to 1000`},
		{"parameter twice", "GET", "/v1/upstreams?limit=1&limit=2", ``, nil, 400, "limit: is there 2 times"},
		{"parameter without a value", "PUT", upstream + "?dryRun", `{}`, nil, 400, `dryRun: "" is not true or false`},
		{"parameter as others write it", "PUT", upstream + "?dryRun=1", `{}`, nil, 400, `dryRun: "1" is not true or false`},
		{"parameter behind a semicolon", "PUT", upstream + "?wait=1s;dryRun=true", `{}`, nil, 400, "the query cannot be read"},
		{"parameter that is half escaped", "PUT", upstream + "?dryRun=true%", `{}`, nil, 400, "the query cannot be read"},
		{"parameter that is no UTF-8", "GET", "/v1/upstreams?from=%FF", ``, nil, 400, `from: "\xff" is not a text`},
		{"missing parameter", "GET", "/v1/history/diff?from=1", ``, nil, 400, "to: is missing: give a whole number of at least 0, as 17"},
		{"seq in the path", "GET", "/v1/history/-1", ``, nil, 400, `seq: "-1" is not a whole number of at least 0`},
		{"beyond 64 bits", "GET", "/v1/history/9223372036854775808", ``, nil, 400, `seq: "9223372036854775808" is not`},
		{"reason", "PUT", upstream, `{}`, []string{"X-Change-Reason: " + strings.Repeat("x", 501)}, 400, "X-Change-Reason: "},
		{"empty ETag", "PUT", upstream, `{}`, []string{"If-Match: "}, 400, `If-Match: "" is not a text that is not empty`},
		{"slash at the end", "PUT", "/v1/services/io/nodes/n1/", `{}`, nil, 404, "there is nothing at /v1/services/io/nodes/n1/"},
		{"no such path", "GET", "/v1/upstream", ``, nil, 404, "there is nothing at /v1/upstream"},
		{"no such method", "POST", upstream, `{}`, nil, 405, "POST is not possible at /v1/upstreams/io"},
		{"missing upstream", "PUT", "/v1/sites/a", siteOf("a"), nil, 422, `/routes/0/upstream: there is no upstream "io": create it first`},
		{"missing certificate", "PUT", "/v1/sites/a", `{"hosts":["a"],"listeners":[{"port":443,"tls":true}],"certificate":"c","routes":[{"upstream":"io"}]}`, nil, 422,
			`/certificate: there is no certificate "c": create it first`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			in := &instance{t: t, url: in.url}
			in.do(tt.method, tt.path, tt.body, tt.headers...).wantDetail(tt.status, tt.want)
		})
	}
	t.Cleanup(func() {
		if page, err := in.registry.List(t.Context(), registry.KindUpstream, "", 0); err == nil && page.Seq != 0 {
			t.Errorf("something was written: seq %d", page.Seq)
		}
	})
}

func TestWhatIsUsedStays(t *testing.T) {
	t.Parallel()
	in := start(t)
	in.do("PUT", "/v1/upstreams/io", `{}`).want(201)
	in.do("PUT", "/v1/sites/a", siteOf("a")).want(201)
	in.do("PUT", "/v1/sites/b", siteOf("b")).want(201)
	in.do("DELETE", "/v1/upstreams/io", "").wantDetail(409, "upstream/io is used by site/a, site/b: change or delete that first")
	in.do("DELETE", "/v1/sites/a", "").want(200)
	in.do("DELETE", "/v1/sites/b", "").want(200)
	in.do("DELETE", "/v1/upstreams/io", "").want(200)
}

func TestSitesDoNotContradictEachOther(t *testing.T) {
	t.Parallel()
	in := start(t)
	in.do("PUT", "/v1/upstreams/io", `{}`).want(201)
	in.do("PUT", "/v1/sites/b", siteOf("x")).want(201)
	// The edited site is blamed, also when it comes first by name.
	in.do("PUT", "/v1/sites/a", siteOf("x")).wantDetail(409, `/hosts/0: site "b" has "x" on 0.0.0.0:8080 too`)
	in.do("PUT", "/v1/sites/c", `{"hosts":["c"],"listeners":[{"port":8080,"proxyProtocol":true}],"routes":[{"upstream":"io"}]}`).
		wantDetail(409, `/listeners/0: 0.0.0.0:8080 is a listener of site "b" too, there with another value of proxyProtocol`)
	got := in.do("GET", "/v1/sites/b", "").want(200)
	if got.body != siteOf("x") {
		t.Error(got.body)
	}
}

// TestSitesAreCheckedFromMemory has the Snapshot of the same state, and only that, stand for a list.
func TestSitesAreCheckedFromMemory(t *testing.T) {
	t.Parallel()
	in := start(t)
	in.do("PUT", "/v1/upstreams/io", `{}`).want(201)
	known := func(seq registry.Seq, sites ...string) {
		s := &registry.Snapshot{Seq: seq}
		for _, name := range sites {
			s.Objects = append(s.Objects, registry.Object{Kind: registry.KindSite, Name: name, Seq: 1, Value: []byte(siteOf(name))})
		}
		in.local.snapshot.Store(s)
	}
	const option = `{"hosts":["x"],"listeners":[{"port":8080,"proxyProtocol":true}],"routes":[{"upstream":"io"}]}`
	known(1, "a", "b")
	in.do("PUT", "/v1/sites/c", siteOf("b")).wantDetail(409, `/hosts/0: site "b" has "b" on 0.0.0.0:8080 too`)
	in.do("PUT", "/v1/sites/c", option).wantDetail(409, "with another value of proxyProtocol")
	in.do("PUT", "/v1/sites/b", siteOf("b")).want(201) // itself, at seq 2
	known(1, "a")
	in.do("PUT", "/v1/sites/a", siteOf("a")).want(201) // the state is another than the Snapshot's
	in.do("PUT", "/v1/sites/c", siteOf("b")).wantDetail(409, `site "b" has "b"`)
	known(3, "a", "b")
	in.do("POST", "/v1/apply?owner=o&prune=true", `{"sites": {"b": `+siteOf("b")+`}}`).want(200)
	known(4, "a", "b")
	in.do("POST", "/v1/apply?owner=o&prune=true", `{"sites": {"c": `+siteOf("b")+`}}`).want(200) // b goes in the same change
}

func TestListsArePaged(t *testing.T) {
	t.Parallel()
	in := start(t)
	for _, name := range []string{"c", "a", "b"} {
		in.do("PUT", "/v1/upstreams/"+name, `{}`).want(201)
	}
	var names []string
	for from := ""; ; {
		var page api.UpstreamList
		in.do("GET", "/v1/upstreams?limit=2&from="+from, "").want(200).json(&page)
		for _, item := range page.Items {
			names = append(names, item.Name)
		}
		if page.Seq != 3 {
			t.Errorf("seq %d", page.Seq)
		}
		if from = page.Next; from == "" {
			break
		}
	}
	if diff := cmp.Diff([]string{"a", "b", "c"}, names); diff != "" {
		t.Error(diff)
	}
	empty := in.do("GET", "/v1/sites", "").want(200)
	if empty.body != `{"items":[],"seq":3}` {
		t.Error(empty.body)
	}
}

func TestOverrideOfANodeWithAnyID(t *testing.T) {
	t.Parallel()
	in := start(t)
	for id, path := range map[string]string{"n1": "n1", "a/b": "a%2Fb", "50% ü": "50%25%20%C3%BC", "x%2Fy": "x%252Fy"} {
		in.do("PUT", "/v1/overrides/io/"+path, `{"state":"draining","note":"`+path+`"}`).want(201)
		in.do("GET", "/v1/overrides/io/"+path, "").want(200)
		if _, err := in.registry.Get(t.Context(), registry.Ref{Kind: registry.KindOverride, Name: "io/" + id}); err != nil {
			t.Errorf("%s: %v", id, err)
		}
	}
	var list api.OverrideList
	in.do("GET", "/v1/overrides", "").want(200).json(&list)
	if len(list.Items) != 4 || !slices.ContainsFunc(list.Items, func(o api.NamedOverride) bool { return o.Name == "io/a/b" }) {
		t.Errorf("%+v", list.Items)
	}
	in.do("PUT", "/v1/overrides/endpoints:a%2Fb/n1", `{}`).want(201)
	in.do("PUT", "/v1/overrides/endpoints:a/b%2Fn1", `{}`).wantDetail(422, "is ambiguous")
	in.do("PUT", "/v1/overrides/IO/n1", `{}`).wantDetail(422, `the service "IO" is not a name`)
	in.do("DELETE", "/v1/overrides/io/a%2Fb", "").want(200)
	in.do("GET", "/v1/overrides/io/a%2Fb", "").want(404)
}

func TestHistoryKnowsWhoAndWhy(t *testing.T) {
	t.Parallel()
	tests := []struct{ token, author string }{{"", "anonymous"}, {"secret", "token"}}
	for _, tt := range tests {
		in := startWith(t, newRegistry(t), tt.token)
		in.do("PUT", "/v1/upstreams/io", `{}`, "X-Change-Reason: ticket 4711", "Authorization: Bearer "+tt.token).want(201)
		o, err := in.registry.Get(t.Context(), registry.Ref{Kind: registry.KindHistory, Name: registry.HistoryName(1)})
		if err != nil {
			t.Fatal(err)
		}
		for _, want := range []string{`"author":"` + tt.author + `"`, `"reason":"ticket 4711"`} {
			if !strings.Contains(string(o.Value), want) {
				t.Errorf("%s is not in %s", want, o.Value)
			}
		}
	}
}

// TestConcurrentWritesAllLand has writers that do not know of each other: each write is there, none is lost or refused.
func TestConcurrentWritesAllLand(t *testing.T) {
	t.Parallel()
	in := start(t)
	in.do("PUT", "/v1/upstreams/io", `{}`).want(201)
	done := make(chan int)
	const writers = 8
	for i := range writers {
		go func() {
			name := string(rune('a' + i))
			r, err := http.NewRequestWithContext(t.Context(), http.MethodPut, in.url+"/v1/sites/"+name, strings.NewReader(siteOf(name)))
			if err != nil {
				t.Error(err)
			}
			r.Header.Set("Content-Type", "application/json")
			transport := &http.Transport{DisableKeepAlives: true}
			resp, err := transport.RoundTrip(r)
			if err != nil {
				t.Error(err)
				done <- 0
				return
			}
			_ = resp.Body.Close()
			done <- resp.StatusCode
		}()
	}
	for range writers {
		if status := <-done; status != http.StatusCreated {
			t.Errorf("status %d", status)
		}
	}
}

// A name that no registry takes is that of an object which does not exist, or one that the document refuses.
func TestDeleteOfWhatNoRegistryTakes(t *testing.T) {
	t.Parallel()
	in := start(t)
	for _, name := range []string{"%01", "%E2%80%AE", "%E2%80%A8", strings.Repeat("x", 400)} {
		for _, path := range []string{"upstreams/", "sites/", "certificates/", "overrides/io/", "approvals/", "tokens/"} {
			if got := in.do("DELETE", "/v1/"+path+name, ""); got.status != http.StatusNotFound && got.status != http.StatusBadRequest {
				t.Errorf("DELETE %s%.20s: %d %s", path, name, got.status, got.body)
			}
		}
	}
	if log := in.log.String(); strings.Contains(log, "level=ERROR") {
		t.Errorf("the log has errors: %s", log)
	}
}
