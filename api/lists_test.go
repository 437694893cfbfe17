package api_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"sluice/api"
	"sluice/controlplane"
	"sluice/registry"
)

// listed returns the names of a list, page by page, and how many pages there were.
func (in *instance) listed(path, query string, headers ...string) (names []string, pages int) {
	in.t.Helper()
	values, err := url.ParseQuery(query)
	if err != nil {
		in.t.Fatal(err)
	}
	for {
		var page struct {
			Items []struct{ Name, Service, ID, Gateway string }
			Next  string
		}
		in.do("GET", path+"?"+values.Encode(), "", headers...).want(200).json(&page)
		for _, item := range page.Items {
			name := item.Name + item.Gateway
			if item.ID != "" {
				name = item.Service + "/" + item.ID
			}
			names = append(names, name)
		}
		if pages++; page.Next == "" {
			return names, pages
		}
		values.Set("from", page.Next)
	}
}

// wantLists holds what lists have, for each query, in pages of every size.
func (in *instance) wantLists(path string, wants map[string]string, headers ...string) {
	in.t.Helper()
	for _, query := range slices.Sorted(maps.Keys(wants)) {
		for _, limit := range []int{1, 2, 3, 1000} {
			want := strings.Fields(wants[query])
			got, pages := in.listed(path, fmt.Sprintf("limit=%d&%s", limit, query), headers...)
			if !slices.Equal(got, want) || pages != max(1, (len(want)+limit-1)/limit) {
				in.t.Errorf("%s?%s by %d: %q in %d pages, want %q", path, query, limit, got, pages, want)
			}
		}
	}
}

func TestListsOfObjects(t *testing.T) {
	t.Parallel()
	in := start(t)
	soon, late := body(t, makePairUntil(t, time.Now().Add(24*time.Hour))), body(t, makePairUntil(t, time.Now().Add(100*24*time.Hour)))
	in.do("POST", "/v1/apply?owner=team-a", `{
		"upstreams": {"a.io": {"service": "io"}, "a.web": {}},
		"sites": {"a": {"hosts": ["a.example", "*.a.example"], "listeners": [{"port": 8080}], "routes": [{"path": "/x", "upstream": "a.io"}, {"upstream": "a.web"}]}},
		"certificates": {"soon": `+soon+`, "late": `+late+`},
		"overrides": {"io/n1": {"state": "draining"}}}`).want(200)
	in.do("POST", "/v1/apply", `{
		"upstreams": {"b": {}},
		"sites": {"b": {"groups": ["edge"], "hosts": ["b.example"], "listeners": [{"port": 8080}], "routes": [{"upstream": "b"}]},
			"c": {"groups": ["edge", "default"], "hosts": ["*"], "listeners": [{"port": 8081}], "routes": [{"upstream": "b"}]}},
		"certificates": {"file": {"chainFile": "/etc/c.pem", "keyFile": "/etc/k.pem"}},
		"overrides": {"io/n2": {"weight": 2}, "io-2/n1": {"state": "disabled"}, "endpoints:io/x/n1": {"state": "draining"}}}`).want(200)
	in.do("PUT", "/v1/approvals/a.io", `{}`).want(201)
	in.do("PUT", "/v1/approvals/b", `{}`).want(201)

	in.wantLists("/v1/upstreams", map[string]string{
		"": "a.io a.web b", "prefix=a.": "a.io a.web", "prefix=a.io": "a.io", "prefix=x": "", "owner=team-a": "a.io a.web", "owner=nobody": "",
		"service=io": "a.io", "service=b": "b", "prefix=a.&service=a.web&owner=team-a": "a.web", "from=a.io.": "a.web b", "from=a.io.&prefix=a": "a.web",
		"from=b&prefix=a": "",
	})
	in.wantLists("/v1/sites", map[string]string{
		"": "a b c", "owner=team-a": "a", "group=default": "a c", "group=edge": "b c", "upstream=a.io": "a", "upstream=b": "b c",
		"host=a.example": "a c", "host=X.A.example": "a c", "host=b.example": "b c", "host=x.b.example": "c", "host=b.example&group=default": "c",
	})
	in.wantLists("/v1/certificates", map[string]string{
		"": "file late soon", "owner=team-a": "late soon", "expiresBefore=" + url.QueryEscape(time.Now().Add(48*time.Hour).Format(time.RFC3339)): "soon",
		"expiresBefore=2001-01-01T00:00:00Z": "", "prefix=l&expiresBefore=2999-01-01T00:00:00Z": "late",
	})
	in.wantLists("/v1/overrides", map[string]string{
		"": "endpoints:io/x/n1 io-2/n1 io/n1 io/n2", "service=io": "io/n1 io/n2", "service=io-2": "io-2/n1", "service=endpoints:io/x": "endpoints:io/x/n1",
		"service=endpoints:io": "", "state=draining": "endpoints:io/x/n1 io/n1", "state=active": "io/n2", "owner=team-a": "io/n1", "prefix=io/": "io/n1 io/n2",
	})
	in.wantLists("/v1/approvals", map[string]string{"": "a.io b", "prefix=b": "b"})

	for query, want := range map[string]string{
		"upstreams?owner=A+b":                             `owner: "A b" is not a text of 1 to 63 characters, as team-chat. Only those of this owner, which apply gives them; it has lower-case letters, digits, dots, dashes and underscores.`,
		"upstreams?service=a%2Fb":                         `service "a/b" is not a name`,
		"upstreams?prefix=%ff":                            "is not a text of at most 600 characters",
		"sites?group=%20":                                 `group: " " is not a text of 1 to 63 characters, as default. Only those of this group of gateways; it has lower-case letters, digits, dots, dashes and underscores.`,
		"sites?upstream=B":                                `upstream: "B" is not a text of 1 to 63 characters, as chat. Only those with a route to this upstream; it has lower-case letters, digits, dots, dashes and underscores.`,
		"sites?host=a.example:8080":                       `host: "a.example:8080" is not a host name: give it without a scheme, a port and a path`,
		"certificates?expiresBefore=monday":               `expiresBefore: "monday" is not a time, as 2026-12-31T00:00:00Z`,
		"certificates?expiresBefore=2026-13-01T00:00:00Z": `expiresBefore: "2026-13-01T00:00:00Z" is not a time`,
		"overrides?state=drained":                         `state: "drained" is not one of active, draining, disabled`,
		"gateways?phase=ready":                            `phase: "ready" is not one of starting, in_step`,
		"gateways?limit=1001":                             "is not a whole number of 1 to 1000",
		"nodes?from=" + strings.Repeat("x", 601):          "is not a text of at most 600 characters",
		"nodes?address=10.0.0.1:80":                       `address: "10.0.0.1:80" is no address and no network: give one without a port`,
		"nodes?state=gone":                                `state: "gone" is not one of up, suspect`,
		"nodes?service=a%2Fb":                             `service "a/b" is not a name`,
		"services?limit=-1":                               "is not a whole number of 1 to 1000",
		"rollouts?from=-1":                                "is not a whole number of at least 0",
		"rollouts?from=x":                                 "from",
		"rollouts?state=over":                             `state: "over" is not one of running, paused`,
		"tokens?role=root":                                `role: "root" is not one of viewer, registrar, operator, admin`,
		"history?from=-1":                                 "is not a whole number of at least 0",
	} {
		in.do("GET", "/v1/"+query, "").wantDetail(400, want)
	}
}

// TestEachWordOfAFilter has every word that the document gives for a parameter be taken, and no other.
func TestEachWordOfAFilter(t *testing.T) {
	t.Parallel()
	in := start(t)
	words := 0
	for path, item := range document.Paths.Map() {
		if item.Get == nil || strings.Contains(path, "{") {
			continue
		}
		for _, p := range item.Get.Parameters {
			if p.Value.In != "query" || len(p.Value.Schema.Value.Enum) == 0 {
				continue
			}
			for _, word := range p.Value.Schema.Value.Enum {
				words++
				in.do("GET", fmt.Sprintf("%s?%s=%s", path, p.Value.Name, word), "").want(200)
			}
			in.do("GET", fmt.Sprintf("%s?%s=other", path, p.Value.Name), "").wantDetail(400, `"other" is not one of`)
		}
	}
	if words < 25 {
		t.Errorf("there were %d words only", words)
	}
}

func TestListsOfNodes(t *testing.T) {
	t.Parallel()
	in := start(t)
	for _, n := range []registry.Node{
		{Service: "io", ID: "n1", Address: "10.0.0.1", Port: 80, Zone: "a", Tags: []string{"blue"}},
		{Service: "io", ID: "n2", Address: "10.0.1.1", Port: 80, Zone: "b", Tags: []string{"blue", "big"}},
		{Service: "io", ID: "n3", Address: "fd00::1", Port: 80, Zone: "a"},
		{Service: "io-2", ID: "n1", Address: "10.0.0.1", Port: 81},
		{Service: "web", ID: "u", Address: "unix:/run/u.sock"},
	} {
		if err := in.registry.Put(t.Context(), n, time.Minute); err != nil {
			t.Fatal(err)
		}
	}
	st := *in.local.status.Load()
	st.Exceptions = []controlplane.NodeStatus{
		{Upstream: "a", Service: "io", ID: "n1", State: controlplane.NodeUnhealthy}, {Upstream: "b", Service: "io", ID: "n1", State: controlplane.NodeDraining},
		{Upstream: "b", Service: "io-2", ID: "n1", State: controlplane.NodeDraining},
	}
	in.local.status.Store(&st)
	in.wantLists("/v1/nodes", map[string]string{
		"": "io-2/n1 io/n1 io/n2 io/n3 web/u", "service=io": "io/n1 io/n2 io/n3", "service=io&prefix=io/n2": "io/n2", "prefix=io": "io-2/n1 io/n1 io/n2 io/n3",
		"prefix=io/": "io/n1 io/n2 io/n3", "zone=a": "io/n1 io/n3", "tag=blue": "io/n1 io/n2", "tag=blue&zone=b": "io/n2", "tag=green": "",
		"address=10.0.0.1": "io-2/n1 io/n1", "address=10.0.0.0/16": "io-2/n1 io/n1 io/n2", "address=fd00::/8": "io/n3", "address=::ffff:10.0.1.1": "io/n2",
		"address=unix:/run/u.sock": "web/u", "state=unhealthy": "io/n1", "state=draining": "io-2/n1 io/n1", "state=up": "io/n2 io/n3 web/u",
		"service=io&state=up&zone=a": "io/n3", "from=io/n2": "io/n2 io/n3 web/u", "from=io/n2&service=io": "io/n2 io/n3",
	})
	in.wantLists("/v1/services", map[string]string{"": "io io-2 web", "prefix=io": "io io-2", "prefix=w": "web", "from=io-": "io-2 web"})
	if got := in.do("GET", "/v1/services?limit=1", "").want(200).body; got != `{"items":[{"name":"io","nodes":3}],"next":"io-2"}` {
		t.Error(got)
	}
}

func TestListsOfTheFleet(t *testing.T) {
	t.Parallel()
	in := startWith(t, newRegistry(t), adminToken)
	for name, group := range map[string]string{"edge-2": "default", "edge-3": "cdn", "core": "cdn"} {
		value, err := json.Marshal(controlplane.Status{Gateway: name, Group: group, Phase: controlplane.Failed})
		if err != nil {
			t.Fatal(err)
		}
		o := registry.Object{Kind: registry.KindGateway, Name: name, Value: value}
		if err := in.registry.Hold(t.Context(), o, time.Minute); err != nil {
			t.Fatal(err)
		}
	}
	in.wantLists("/v1/gateways", map[string]string{
		"": "core edge-1 edge-2 edge-3", "group=cdn": "core edge-3", "phase=failed": "core edge-2 edge-3", "phase=in_step": "edge-1",
		"prefix=edge": "edge-1 edge-2 edge-3", "prefix=edge&group=cdn&phase=failed": "edge-3", "group=none": "",
	}, bearer(adminToken))
	for _, body := range []string{`{"name": "v", "role": "viewer"}`, `{"name": "o", "role": "operator"}`, `{"name": "v2", "role": "viewer"}`} {
		in.token(body)
	}
	in.wantLists("/v1/tokens", map[string]string{"": "o v v2", "role=viewer": "v v2", "prefix=v2": "v2", "role=admin": ""}, bearer(adminToken))
}

// TestFilteredPagesGoOn has more objects than one request looks through.
func TestFilteredPagesGoOn(t *testing.T) {
	t.Parallel()
	in := start(t)
	const last = 2100
	var ops []registry.Op
	flush := func() {
		if _, err := in.registry.Commit(t.Context(), registry.Tx{Ops: ops}); err != nil {
			t.Fatal(err)
		}
		ops = nil
	}
	for i := range last + 1 {
		value := `{}`
		if i == 7 || i == last {
			value = `{"owner":"team-a"}`
		}
		ops = append(ops, registry.Op{Ref: registry.Ref{Kind: registry.KindUpstream, Name: fmt.Sprintf("u%04d", i)}, Value: json.RawMessage(value)})
		if len(ops) == registry.MaxTxObjects {
			flush()
		}
	}
	flush()
	if got, pages := in.listed("/v1/upstreams", "owner=team-a"); strings.Join(got, " ") != "u0007 u2100" || pages != 2 {
		t.Errorf("%q in %d pages", got, pages)
	}
	if got, pages := in.listed("/v1/upstreams", "owner=team-b"); len(got) != 0 || pages != 2 {
		t.Errorf("%q in %d pages", got, pages)
	}
	if got, pages := in.listed("/v1/upstreams", "owner=team-a&prefix=u00"); len(got) != 1 || pages != 1 {
		t.Errorf("%q in %d pages", got, pages)
	}
	if got, pages := in.listed("/v1/upstreams", "prefix=u0"); len(got) != 1000 || pages != 1 {
		t.Errorf("%d in %d pages", len(got), pages)
	}
}

func TestListOfRollouts(t *testing.T) {
	t.Parallel()
	in := start(t)
	pace := &registry.RolloutSettings{Canary: 1, Share: 25}
	for i := range 5 {
		op := registry.Op{Ref: registry.Ref{Kind: registry.KindUpstream, Name: "io"}, Value: fmt.Appendf(nil, `{"service":"s%d"}`, i)}
		if _, err := in.registry.Commit(t.Context(), registry.Tx{Ops: []registry.Op{op}, Rollout: pace}); err != nil {
			t.Fatal(err)
		}
	}
	for _, seq := range []registry.Seq{2, 4} {
		if err := in.registry.UpdateRollout(t.Context(), seq, func(r *registry.Rollout) error { r.State = registry.RolloutDone; return nil }); err != nil {
			t.Fatal(err)
		}
	}
	for state, want := range map[string]string{"": "5 4 3 2 1", "&state=done": "4 2", "&state=running": "5 3 1", "&state=paused": ""} {
		for _, limit := range []int{1, 2, 1000} {
			var got []string
			for from := int64(99); from > 0; {
				var page api.RolloutList
				in.do("GET", fmt.Sprintf("/v1/rollouts?limit=%d&from=%d%s", limit, from, state), "").want(200).json(&page)
				for _, r := range page.Items {
					got = append(got, fmt.Sprint(r.Seq))
				}
				if from = page.Next; len(page.Items) > limit {
					t.Errorf("%d items of %d", len(page.Items), limit)
				}
			}
			if strings.Join(got, " ") != want {
				t.Errorf("%q by %d: %q, want %q", state, limit, got, want)
			}
		}
	}
	if got := in.do("GET", "/v1/rollouts?from=3&limit=1", "").want(200).body; !strings.HasSuffix(got, `"next":2}`) {
		t.Error(got)
	}
}
