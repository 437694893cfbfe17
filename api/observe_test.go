package api_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil/promlint"

	"sluice/api"
	"sluice/controlplane"
	"sluice/registry"
)

// events returns the events of a stream that ends.
func (in *instance) events(query string, headers ...string) []controlplane.Event {
	in.t.Helper()
	var events []controlplane.Event
	for _, data := range eventData(in.do("GET", "/v1/events?once=true"+query, "", headers...).want(200).body) {
		var e controlplane.Event
		if err := json.Unmarshal([]byte(data), &e); err != nil {
			in.t.Fatal(err)
		}
		events = append(events, e)
	}
	return events
}

func TestEventsAreResumed(t *testing.T) {
	t.Parallel()
	in := start(t)
	in.local.events.Add(controlplane.Event{Type: controlplane.EventChange, Seq: 1}, controlplane.Event{Type: controlplane.EventNode, What: "joined"})
	if got := in.events(""); len(got) != 0 {
		t.Errorf("without an id it begins with what comes, not with %v", got)
	}
	all := in.events("", "Last-Event-ID: 1-0")
	if len(all) != 3 || all[0].Type != controlplane.EventGap || all[1].Seq != 1 || all[2].What != "joined" {
		t.Fatalf("from an older start: %+v", all)
	}
	if got := in.events("", "Last-Event-ID: "+all[1].ID); len(got) != 1 || got[0].ID != all[2].ID {
		t.Errorf("after the first: %+v", got)
	}
	if got := in.events("&type=change", "Last-Event-ID: "+all[0].ID); len(got) != 1 || got[0].Seq != 1 {
		t.Errorf("changes: %+v", got)
	}
	for range 5000 {
		in.local.events.Add(controlplane.Event{Type: controlplane.EventNode})
	}
	if got := in.events("", "Last-Event-ID: "+all[2].ID); len(got) != 4097 || got[0].Type != controlplane.EventGap {
		t.Errorf("after too many: %d, first %+v", len(got), got[0])
	}
	in.do("GET", "/v1/events?type=nonsense", "").wantDetail(400, "is unknown")
}

// A stream tells at once what happens, and ends when the instance does.
func TestEventsAreStreamed(t *testing.T) {
	t.Parallel()
	in := start(t)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, in.url+"/v1/events", http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	transport := &http.Transport{DisableKeepAlives: true}
	resp, err := transport.RoundTrip(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK || resp.Header.Get("Content-Type") != "text/event-stream" {
		t.Fatalf("%s %v", resp.Status, resp.Header)
	}
	lines := bufio.NewScanner(resp.Body)
	lines.Scan() // it has begun
	in.local.events.Add(controlplane.Event{Type: controlplane.EventAlarm, What: "raised", Message: "look"})
	var text []string
	for lines.Scan() {
		text = append(text, lines.Text())
		if strings.HasPrefix(lines.Text(), "data: ") {
			break
		}
	}
	if got := strings.Join(text, "\n"); !strings.Contains(got, "event: alarm") || !strings.Contains(got, `"message":"look"`) {
		t.Errorf("%q", got)
	}
	in.server.Close()
	for lines.Scan() {
		if strings.HasPrefix(lines.Text(), "data") {
			t.Errorf("%q", lines.Text())
		}
	}
	if err := lines.Err(); err != nil {
		t.Errorf("the stream did not end by itself: %v", err)
	}
}

func TestMetrics(t *testing.T) {
	t.Parallel()
	in := start(t)
	st := *in.local.status.Load()
	st.Upstreams = []controlplane.UpstreamStatus{{Name: "io", Service: "io", Nodes: 3, Up: 2, Sockets: 12}}
	st.Sockets = &controlplane.Sockets{Total: 12, Nodes: map[string]int{"io/n1": 12}}
	st.Exceptions = []controlplane.NodeStatus{{Upstream: "io", Service: "io", ID: "n3", State: controlplane.NodeDraining}}
	st.Certificates = []controlplane.CertificateStatus{{Name: "web", NotAfter: time.Unix(2_000_000_000, 0)}}
	in.local.status.Store(&st)
	in.do("GET", "/v1/sites/absent", "").want(404)
	got := in.do("GET", "/metrics", "").want(200)
	for _, want := range []string{
		`sluice_nodes{state="up",upstream="io"} 2`, `sluice_nodes{state="draining",upstream="io"} 1`, `sluice_registry_connected 1`,
		`sluice_upstream_sockets{upstream="io"} 12`, `sluice_phase{phase="in_step"} 1`, `sluice_phase{phase="failed"} 0`, `sluice_applies_total{how="reload",result="live"} 3`,
		`sluice_applies_total{how="",result="failed"} 1`, `sluice_apply_duration_seconds_bucket{le="0.5"} 3`, `sluice_nginx_workers{generation="current"} 1`,
		`sluice_certificate_expiry_timestamp_seconds{certificate="web"} 2e+09`, `sluice_api_requests_total{code="404",operation="getSite"} 1`,
	} {
		if !strings.Contains(got.body, want) {
			t.Errorf("%s is missing", want)
		}
	}
	problems, err := promlint.New(strings.NewReader(got.body + "\n")).Lint()
	if err != nil || len(problems) > 0 {
		t.Errorf("promlint: %v %v", problems, err)
	}
}

func TestTrace(t *testing.T) {
	t.Parallel()
	in := start(t)
	trace := func() api.TraceResult {
		t.Helper()
		var got api.TraceResult
		in.do("GET", "/v1/trace?node=io/n1", "").want(200).json(&got)
		return got
	}
	// says checks the newest step that is not ok, or that none is.
	says := func(step, text string) {
		t.Helper()
		got := trace()
		for _, s := range got.Steps {
			if !s.Ok && s.Step == step && strings.Contains(s.Message, text) {
				if got.Live {
					t.Error("it is live, they say")
				}
				return
			}
		}
		t.Errorf("no step %s says %q: %+v", step, text, got)
	}
	status := func(change func(*controlplane.Status)) {
		st := *in.local.status.Load()
		change(&st)
		in.local.status.Store(&st)
	}
	says("registered", "never registered")
	says("upstream", `no upstream has the service "io"`)
	in.local.snapshot.Store(&registry.Snapshot{Tombstones: []registry.Tombstone{{NodeRef: registry.NodeRef{Service: "io", ID: "n1"}, At: time.Now()}}})
	says("registered", "removed on purpose")
	in.do("PUT", "/v1/upstreams/chat", `{"service": "io", "tags": ["blue"]}`).want(201)
	in.do("PUT", "/v1/services/io/nodes/n1", `{"address": "10.0.0.1", "port": 6001}`).want(200)
	says("upstream chat", "tags [blue]")
	in.do("PUT", "/v1/upstreams/chat", `{"service": "io"}`).want(200)
	says("site", "no site has a route to chat")
	in.do("PUT", "/v1/sites/chat", `{"groups": ["edge"], "hosts": ["*"], "listeners": [{"port": 8080}], "routes": [{"upstream": "chat"}]}`).want(201)
	says("gateways", "no gateway of the groups edge")
	status(func(s *controlplane.Status) { s.Group = "edge" })
	if got := trace(); !got.Live || !got.Serving || len(got.Gateways) != 1 || got.Gateways[0].Sockets != nil {
		t.Errorf("all is well, and nothing known of sockets: %+v", got)
	}
	status(func(s *controlplane.Status) {
		s.Sockets = &controlplane.Sockets{Total: 7, Nodes: map[string]int{"io/n1": 7}}
	})
	if got := trace(); got.Gateways[0].Sockets == nil || *got.Gateways[0].Sockets != 7 {
		t.Errorf("it has 7 sockets: %+v", got.Gateways)
	}
	in.do("PUT", "/v1/overrides/io/n1", `{"state": "draining", "note": "ticket 4711"}`).want(201)
	says("override", "draining")
	in.do("DELETE", "/v1/overrides/io/n1", "").want(200)
	in.do("PUT", "/v1/services/io/nodes/n0", `{"address": "10.0.0.1", "port": 6001}`).want(200)
	says("address", "node io/n0 has the same address")
	in.do("DELETE", "/v1/services/io/nodes/n0", "").want(204)

	for want, change := range map[string]func(*controlplane.Status){
		"2 nodes join": func(s *controlplane.Status) {
			s.Wait = &controlplane.Wait{What: "2 nodes join"}
			s.Phase = controlplane.Waiting
		},
		"bind() failed": func(s *controlplane.Status) {
			s.Failure = &controlplane.Failure{Message: "bind() failed"}
			s.Phase = controlplane.Failed
		},
		"refused: dead": func(s *controlplane.Status) {
			s.Exceptions = []controlplane.NodeStatus{{Upstream: "chat", Service: "io", ID: "n1", State: controlplane.NodeUnhealthy, Reason: "refused: dead"}}
		},
		"the registry is away": func(s *controlplane.Status) { s.Registry.Connected = false },
		"nginx does not run":   func(s *controlplane.Status) { s.Nginx.Running = false },
	} {
		before := in.local.status.Load()
		status(change)
		got := trace()
		if got.Live || len(got.Gateways) != 1 || !strings.Contains(fmt.Sprint(got.Gateways[0].Reasons), want) {
			t.Errorf("%s: %+v", want, got)
		}
		in.local.status.Store(before)
	}
	in.do("GET", "/v1/trace?node=n1", "").wantDetail(400, "service/id")
	in.do("GET", "/v1/trace", "").want(400)
}

func TestDocs(t *testing.T) {
	t.Parallel()
	in := start(t)
	got := in.do("GET", "/docs", "").want(200)
	for path, item := range document.Paths.Map() {
		for _, op := range item.Operations() {
			if !strings.Contains(got.body, `<article id="`+op.OperationID+`">`) {
				t.Errorf("the page has nothing of %s %s: is its tag among the tags?", op.OperationID, path)
			}
		}
	}
	for name := range document.Components.Schemas {
		if !strings.Contains(got.body, `id="schema-`+name+`"`) {
			t.Errorf("the page has no schema %s", name)
		}
	}
	if strings.Contains(got.body, "<script") || strings.Contains(got.body, "http://") || !strings.Contains(got.header.Get("Content-Security-Policy"), "style-src 'sha256-") {
		t.Errorf("the page is not by itself: %v", got.header)
	}
}
