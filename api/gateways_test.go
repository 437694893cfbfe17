package api_test

import (
	"encoding/json"
	"testing"
	"time"

	"sluice/api"
	"sluice/controlplane"
	"sluice/registry"
)

// report has another gateway report to the registry.
func (in *instance) report(name string) {
	in.t.Helper()
	in.reportStatus(*newLocal(name).status.Load())
}

func (in *instance) reportStatus(s controlplane.Status) {
	in.t.Helper()
	value, err := json.Marshal(s)
	if err != nil {
		in.t.Fatal(err)
	}
	if err := in.registry.Hold(in.t.Context(), registry.Object{Kind: registry.KindGateway, Name: s.Gateway, Value: value}, time.Minute); err != nil {
		in.t.Fatal(err)
	}
}

func TestGateways(t *testing.T) {
	t.Parallel()
	in := start(t)
	in.report("a-edge")
	in.report("edge-1") // an older report of the instance's own
	own := *in.local.status.Load()
	own.Phase = controlplane.Failed
	own.Failure = &controlplane.Failure{At: time.Now(), Message: "nginx: [emerg] bind() failed", Attempts: 2, NextTry: time.Now()}
	own.Wait = &controlplane.Wait{What: "1 node joins", Why: "old generations"}
	own.Applied = &controlplane.LastApplied{At: time.Now(), How: controlplane.Reload, Milliseconds: 12.5}
	own.Problems = []registry.Problem{{Object: "site/chat", Field: "/hosts/0", Message: "is taken"}}
	in.local.status.Store(&own)

	var list api.GatewayList
	in.do("GET", "/v1/gateways", "").want(200).json(&list)
	if len(list.Items) != 2 || list.Items[0].Gateway != "a-edge" || list.Items[1].Phase != controlplane.Failed {
		t.Errorf("%+v", list.Items)
	}
	var got api.Status
	in.do("GET", "/v1/gateways/a-edge", "").want(200).json(&got)
	if got.Gateway != "a-edge" || got.Phase != controlplane.InStep {
		t.Errorf("%+v", got)
	}
	for _, path := range []string{"/v1/gateways/edge-1", "/v1/self"} {
		in.do("GET", path, "").want(200).json(&got)
		if got.Gateway != "edge-1" || got.Failure == nil || got.Failure.Message != "nginx: [emerg] bind() failed" {
			t.Errorf("%s: %+v", path, got)
		}
	}
	in.do("GET", "/v1/gateways/nobody", "").wantDetail(404, `gateway "nobody" has not reported lately`)
}

func TestRetry(t *testing.T) {
	t.Parallel()
	in := start(t)
	in.report("a-edge")
	in.do("POST", "/v1/gateways/edge-1/retry", "").want(202)
	if n := in.local.retries.Load(); n != 1 {
		t.Errorf("%d retries", n)
	}
	in.do("POST", "/v1/gateways/a-edge/retry", "").wantDetail(409, `this instance keeps gateway "edge-1": ask the instance beside gateway "a-edge"`)
	in.do("POST", "/v1/gateways/nobody/retry", "").want(404)
	if n := in.local.retries.Load(); n != 1 {
		t.Errorf("%d retries", n)
	}
}

func TestHealthAndReadiness(t *testing.T) {
	t.Parallel()
	in := start(t)
	since := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	tests := []struct {
		name   string
		change func(*controlplane.Status)
		status int
		want   string
	}{
		{"good", func(*controlplane.Status) {}, 200, `{"ready":true,"reasons":[]}`},
		{"no nginx", func(s *controlplane.Status) { s.Nginx.Running = false }, 503, `{"ready":false,"reasons":["nginx does not run"]}`},
		{"nothing live", func(s *controlplane.Status) { s.RevisionLive = "" }, 503, `{"ready":false,"reasons":["nothing is proven live yet"]}`},
		{"last good", func(s *controlplane.Status) { s.Failure = &controlplane.Failure{Message: "[emerg] x"} }, 200,
			`{"ready":true,"reasons":["the newest configuration is not live, the last good one serves: [emerg] x"]}`},
		{"no registry", func(s *controlplane.Status) {
			s.Stale, s.Registry = true, controlplane.RegistryHealth{Since: since, Error: "connection refused"}
		}, 200, `{"ready":true,"reasons":["the registry is away since 2026-01-02T03:04:05Z: connection refused","the registry has not answered since the start: what serves is what the disk held"]}`},
	}
	for _, tt := range tests {
		s := *newLocal("edge-1").status.Load()
		tt.change(&s)
		in.local.status.Store(&s)
		if got := in.do("GET", "/readyz", "").want(tt.status); got.body != tt.want {
			t.Errorf("%s: %s", tt.name, got.body)
		}
		in.do("GET", "/healthz", "").want(200)
	}
	if got := in.do("GET", "/openapi.yaml", "").want(200); got.header.Get("Content-Type") != "application/openapi+yaml" || got.body[:8] != "openapi:" {
		t.Error(got.header, got.body[:20])
	}
}
