package api_test

import (
	"errors"
	"strings"
	"testing"

	"sluice/api"
	"sluice/controlplane"
	"sluice/registry"
)

// A change is tried before it is committed, and refused in nginx's words.
func TestChangesAreTried(t *testing.T) {
	t.Parallel()
	in := start(t)
	var tried map[registry.Ref]*registry.Object
	answer := func(trial controlplane.Trial, err error) {
		in.local.try = func(changes map[registry.Ref]*registry.Object) (controlplane.Trial, error) {
			tried = changes
			return trial, err
		}
	}
	io := registry.Ref{Kind: registry.KindUpstream, Name: "io"}
	answer(controlplane.Trial{How: controlplane.Reload, Refused: []registry.Problem{{Object: "upstream/io", Message: "[emerg] bogus in http/upstream-io.conf:3"}}}, nil)
	in.do("PUT", "/v1/upstreams/io", `{}`).wantDetail(422, "[emerg] bogus")
	in.do("GET", "/v1/upstreams/io", "").want(404)
	if o := tried[io]; o == nil || string(o.Value) != `{}` {
		t.Errorf("tried %v", tried)
	}
	p := in.do("POST", "/v1/apply", `{"upstreams": {"io": {}}}`).problem(422)
	if p.Errors[0].Field != "/upstreams/io" {
		t.Errorf("%+v", p.Errors)
	}

	answer(controlplane.Trial{}, errors.New("nginx is away"))
	in.do("PUT", "/v1/upstreams/io", `{}`).want(201)
	answer(controlplane.Trial{How: controlplane.Reload, Files: []controlplane.FileDiff{{Path: "http/upstream-io.conf", Diff: "-a\n+b\n"}}}, nil)
	var result api.ChangeResult
	in.do("DELETE", "/v1/upstreams/io?dryRun=true", "").want(200).json(&result)
	if result.Preview == nil || result.Preview.How != controlplane.Reload || !strings.Contains(result.Preview.Files[0].Diff, "+b") {
		t.Errorf("preview: %+v", result.Preview)
	}
	if o, ok := tried[io]; !ok || o != nil {
		t.Errorf("a deletion was tried as %v", o)
	}
	if len(result.Preview.Gateways) != 0 {
		t.Errorf("what cannot be told is left out: %+v", result.Preview.Gateways)
	}
	tried = nil
	in.do("PUT", "/v1/upstreams/io", `{}`).want(200)
	in.do("PUT", "/v1/approvals/io", `{}`).want(201)
	if tried != nil {
		t.Errorf("what changes nothing was tried: %v", tried)
	}
}

// A dry run tells what the change would do at each gateway; of them, only the instance's own has tested it.
func TestDryRunTellsOfEachGateway(t *testing.T) {
	t.Parallel()
	in := start(t)
	status := *in.local.status.Load()
	rendering := controlplane.Rendering{Templates: "t1", AccessLog: "logs/access.log"}
	rendering.Capabilities.HTTP2 = true
	status.Rendering = &rendering
	in.local.status.Store(&status)
	other := status
	other.Gateway, other.Group = "edge-0", "internal"
	in.hold(other)
	var asked map[registry.Ref]*registry.Object
	in.local.forecast = func(changes map[registry.Ref]*registry.Object, fleet []controlplane.Status) []controlplane.Forecast {
		asked = changes
		var out []controlplane.Forecast
		for _, s := range fleet {
			if s.Rendering == nil || *s.Rendering != rendering {
				t.Errorf("%s renders with %+v", s.Gateway, s.Rendering)
			}
			out = append(out, controlplane.Forecast{Gateway: s.Gateway, Group: s.Group, How: controlplane.Nothing, Sockets: &controlplane.Touched{Leaving: 3}})
		}
		return out
	}
	dryRun := func() *api.Preview {
		t.Helper()
		var result api.ChangeResult
		in.do("PUT", "/v1/overrides/io/n1?dryRun=true", `{"state": "disabled"}`).want(200).json(&result)
		return result.Preview
	}
	p := dryRun()
	if p == nil || p.How != controlplane.Nothing || len(p.Gateways) != 2 || p.Gateways[0].Gateway != "edge-0" || p.Gateways[1].Tested {
		t.Fatalf("what could not be tried is told all the same: %+v", p)
	}
	if o := asked[registry.Ref{Kind: registry.KindOverride, Name: "io/n1"}]; o == nil {
		t.Errorf("asked for %v", asked)
	}
	in.local.try = func(map[registry.Ref]*registry.Object) (controlplane.Trial, error) {
		return controlplane.Trial{How: controlplane.Reload}, nil
	}
	p = dryRun()
	if own, other := p.Gateways[1], p.Gateways[0]; p.How != controlplane.Reload || own.How != controlplane.Reload || !own.Tested || other.Tested || own.Sockets.Leaving != 3 {
		t.Errorf("what was tried: %+v", p)
	}
	in.local.try, in.local.forecast = nil, nil
	if p = dryRun(); p != nil {
		t.Errorf("nothing can be told: %+v", p)
	}
}
