package api_test

import (
	"context"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"sluice/api"
	"sluice/controlplane"
	"sluice/registry"
)

// startPaced starts an instance that rolls changes out, beside another gateway of group when that is not empty.
func startPaced(t *testing.T, group string) *instance {
	t.Helper()
	in := startOptions(t, api.Options{Registry: newRegistry(t), Local: newLocal("edge-1"), Rollouts: controlplane.DefaultRolloutSettings()})
	if group != "" {
		in.reportStatus(controlplane.Status{Gateway: "edge-2", Group: group, Phase: controlplane.InStep})
	}
	return in
}

func TestWhatIsRolledOut(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name, group  string
		method, path string
		body         string
		want         bool
	}{
		{"a site, with two gateways in its group", "default", "PUT", "/v1/sites/chat", siteOf("chat"), true},
		{"an upstream", "default", "PUT", "/v1/upstreams/web", `{}`, true},
		{"an override is meant now", "default", "PUT", "/v1/overrides/io/n1", `{"state": "draining"}`, false},
		{"an approval is meant now", "default", "PUT", "/v1/approvals/io", `{"note": "x"}`, false},
		{"groups of one", "other", "PUT", "/v1/upstreams/web", `{}`, false},
		{"one gateway", "", "PUT", "/v1/upstreams/web", `{}`, false},
		{"a dry run", "default", "PUT", "/v1/upstreams/web?dryRun=true", `{}`, false},
		{"nothing changes", "default", "PUT", "/v1/upstreams/io", `{}`, false},
	}
	for _, tc := range tests {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			in := startPaced(t, tc.group)
			if _, err := in.registry.Commit(t.Context(), registry.Tx{Ops: []registry.Op{
				{Ref: registry.Ref{Kind: registry.KindUpstream, Name: "io"}, Value: json.RawMessage(`{}`)},
			}}); err != nil {
				t.Fatal(err)
			}
			if got := in.do(tc.method, tc.path, tc.body); got.status >= 300 {
				t.Fatalf("%d: %s", got.status, got.body)
			}
			var list api.RolloutList
			in.do("GET", "/v1/rollouts", "").want(200).json(&list)
			if got := len(list.Items) == 1; got != tc.want {
				t.Errorf("rolled out: %v, want %v: %+v", got, tc.want, list.Items)
			}
		})
	}
}

func TestRollouts(t *testing.T) {
	t.Parallel()
	in := startPaced(t, "default")
	in.do("PUT", "/v1/upstreams/io", `{}`, "X-Change-Reason: why").want(201)
	in.reportStatus(controlplane.Status{Gateway: "edge-2", Group: "default", Phase: controlplane.InStep, Rollout: &controlplane.RolloutPart{Seq: 1, State: controlplane.PartWaits}})
	if err := in.registry.UpdateRollout(t.Context(), 1, func(r *registry.Rollout) error {
		r.Released = map[string]registry.Release{"edge-1": {Group: "default", At: time.Now()}, "edge-0": {Group: "default", At: time.Now()}}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	var r api.Rollout
	in.do("GET", "/v1/rollouts/1", "").want(200).json(&r)
	if r.State != registry.RolloutRunning || r.Reason != "why" || r.Canary != 1 || len(r.Changes) != 1 || r.Changes[0].Action != api.Created {
		t.Errorf("%+v", r)
	}
	var states []string
	for _, g := range r.Gateways {
		states = append(states, g.Gateway+" "+string(g.State))
	}
	if got := strings.Join(states, ", "); got != "edge-0 gone, edge-1 released, edge-2 waits" {
		t.Errorf("gateways: %s", got)
	}
	for _, step := range []struct {
		action string
		status int
		state  registry.RolloutState
	}{
		{"resume", 409, ""}, {"pause", 200, registry.RolloutPaused}, {"pause", 409, ""}, {"resume", 200, registry.RolloutRunning},
		{"abort", 200, registry.RolloutReverting}, {"abort", 409, ""}, {"promote", 200, registry.RolloutPromoted}, {"promote", 409, ""}, {"stop", 400, ""},
	} {
		got := in.do("POST", "/v1/rollouts/1/"+step.action, "").want(step.status)
		if step.status == 200 {
			if got.json(&r); r.State != step.state {
				t.Errorf("%s: %s, want %s", step.action, r.State, step.state)
			}
		}
	}
	in.do("GET", "/v1/rollouts/9", "").wantDetail(404, "there is no rollout of seq 9")
	in.do("POST", "/v1/rollouts/9/pause", "").wantDetail(404, "there is no rollout of seq 9")
}

// A change that was taken back is not live, although every gateway has its seq.
func TestWaitTellsThatAChangeWasTakenBack(t *testing.T) {
	t.Parallel()
	in := startPaced(t, "default")
	value, err := registry.MarshalJSON(registry.Rollout{Seq: 1, State: registry.RolloutReverted, Message: "gateway edge-2: no"})
	if err != nil {
		t.Fatal(err)
	}
	in.local.snapshot.Store(&registry.Snapshot{Seq: 2, Objects: []registry.Object{{Kind: registry.KindRollout, Name: registry.RolloutRef(1).Name, Value: value}}})
	status := in.local.Status(context.Background())
	status.SeqLive = 2
	in.local.status.Store(&status)
	got := in.do("PUT", "/v1/upstreams/io?wait=20s", `{}`).want(202)
	if !strings.Contains(got.body, "taken back: gateway edge-2: no") {
		t.Error(got.body)
	}
}
