package api_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"sluice/api"
	"sluice/registry"
)

const document1 = `{"upstreams":{"io":{}},"sites":{"a":{"hosts":["a"],"listeners":[{"port":8080}],"routes":[{"upstream":"io"}]}},"overrides":{"io/n1":{"state":"draining"}}}`

func changes(a answer) []string {
	var got api.ChangeResult
	a.want(200).json(&got)
	out := []string{fmt.Sprintf("seq %d", got.Seq)}
	for _, c := range got.Changes {
		out = append(out, fmt.Sprintf("%s %s/%s", c.Action, c.Kind, c.Name))
	}
	return out
}

func TestApply(t *testing.T) {
	t.Parallel()
	in := start(t)
	steps := []struct {
		name, query, body string
		want              []string
	}{
		{"dry run", "?dryRun=true", document1, []string{"seq 0", "created upstream/io", "created site/a", "created override/io/n1"}},
		{"first", "", document1, []string{"seq 1", "created upstream/io", "created site/a", "created override/io/n1"}},
		{"again", "", document1, []string{"seq 1", "unchanged upstream/io", "unchanged site/a", "unchanged override/io/n1"}},
		{"dry run again", "?dryRun=true", document1, []string{"seq 1", "unchanged upstream/io", "unchanged site/a", "unchanged override/io/n1"}},
		{"one more", "", `{"upstreams":{"io":{"service":"x"},"web":{}}}`, []string{"seq 2", "updated upstream/io", "created upstream/web"}},
		{"dry run of a change", "?dryRun=true", `{"upstreams":{"io":{},"web":{}}}`, []string{"seq 2", "updated upstream/io", "unchanged upstream/web"}},
		{"nothing", "", `{}`, []string{"seq 2"}},
	}
	for _, step := range steps {
		if diff := cmp.Diff(step.want, changes(in.do("POST", "/v1/apply"+step.query, step.body))); diff != "" {
			t.Errorf("%s:\n%s", step.name, diff)
		}
	}
}

func TestApplyIsAllOrNothing(t *testing.T) {
	t.Parallel()
	in := start(t)
	for _, query := range []string{"", "?dryRun=true"} {
		in.do("POST", "/v1/apply"+query, `{"upstreams":{"io":{}},"sites":{"a/b":{}}}`).wantDetail(422, `/sites/a~1b: "a/b" is not a name`)
		in.do("POST", "/v1/apply"+query, `{"upstreams":{"web":{}},"sites":{"a":{"hosts":["a"],"listeners":[{"port":8080}],"routes":[{"upstream":"io"}]}}}`).
			wantDetail(422, `/sites/a/routes/0/upstream: there is no upstream "io"`)
		in.do("POST", "/v1/apply"+query, `{"upstreams":{"io":{}},"sites":{"a":`+siteOf("x")+`,"b":`+siteOf("x")+`}}`).
			wantDetail(409, `/sites/b/hosts/0: site "a" has "x" on 0.0.0.0:8080 too`)
	}
	page, err := in.registry.List(t.Context(), registry.KindUpstream, "", 0)
	if err != nil || page.Seq != 0 || len(page.Objects) != 0 {
		t.Errorf("something was written: %+v, %v", page, err)
	}
}

func TestApplyHasLimits(t *testing.T) {
	t.Parallel()
	in := start(t)
	var upstreams []string
	for i := range registry.MaxTxObjects + 1 {
		upstreams = append(upstreams, fmt.Sprintf(`"u%d":{}`, i))
	}
	in.do("POST", "/v1/apply", `{"upstreams":{`+strings.Join(upstreams, ",")+`}}`).
		wantDetail(413, "the change has 121 objects; one transaction takes at most 120: split it")
	in.do("POST", "/v1/apply", `{"upstreams":{`+strings.Join(upstreams[1:], ",")+`}}`).want(200)
}
