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
	tried = nil
	in.do("PUT", "/v1/upstreams/io", `{}`).want(200)
	in.do("PUT", "/v1/approvals/io", `{}`).want(201)
	if tried != nil {
		t.Errorf("what changes nothing was tried: %v", tried)
	}
}
