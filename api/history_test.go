package api_test

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"sluice/api"
	"sluice/registry"
)

// seqs returns the seqs of a page, as "5 4 3".
func (in *instance) seqs(query string) (list string, next int64) {
	in.t.Helper()
	var page api.HistoryList
	in.do("GET", "/v1/history"+query, "").want(200).json(&page)
	var out []string
	for _, e := range page.Items {
		out = append(out, fmt.Sprint(e.Seq))
	}
	return strings.Join(out, " "), page.Next
}

func TestHistory(t *testing.T) {
	t.Parallel()
	in := start(t)
	in.do("PUT", "/v1/upstreams/io", `{}`, "X-Change-Reason: first").want(201)
	in.do("PUT", "/v1/upstreams/io", `{"balance": {"method": "least_conn"}}`).want(200)
	in.do("PUT", "/v1/upstreams/web", `{}`).want(201)
	in.do("PUT", "/v1/sites/chat", siteOf("chat")).want(201)
	in.do("DELETE", "/v1/upstreams/web", "").want(200)

	for query, want := range map[string]string{
		"": "5 4 3 2 1", "?limit=2": "5 4", "?from=3": "3 2 1", "?from=3&limit=2": "3 2", "?kind=upstream": "5 3 2 1",
		"?kind=upstream&name=web": "5 3", "?name=chat": "4", "?kind=site&name=web": "", "?from=99": "5 4 3 2 1",
	} {
		if got, _ := in.seqs(query); got != want {
			t.Errorf("%s: %q, want %q", query, got, want)
		}
	}
	for _, query := range []string{"?limit=2", "?limit=2&kind=upstream"} {
		var all []string
		for from := ""; ; {
			list, next := in.seqs(query + from)
			all = append(all, list)
			if next == 0 {
				break
			}
			from = fmt.Sprintf("&from=%d", next)
		}
		if got := strings.TrimSpace(strings.Join(all, " ")); got != map[bool]string{true: "5 3 2 1", false: "5 4 3 2 1"}[strings.Contains(query, "kind")] {
			t.Errorf("%s page by page: %s", query, got)
		}
	}
	in.do("GET", "/v1/history?limit=-1", "").want(400)

	var entry api.HistoryEntry
	in.do("GET", "/v1/history/2", "").want(200).json(&entry)
	if entry.Author != "anonymous" || len(entry.Changes) != 1 || entry.Changes[0].Action != api.Updated || len(entry.Changes[0].Differences) == 0 {
		t.Errorf("%+v", entry)
	}
	if len(entry.Gateways) != 1 || entry.Gateways[0].Gateway != "edge-1" {
		t.Errorf("gateways: %+v", entry.Gateways)
	}
	in.do("GET", "/v1/history/6", "").wantDetail(404, "the newest is 5")
	in.do("GET", "/v1/history/0", "").want(404)

	var diff api.HistoryDiff
	in.do("GET", "/v1/history/diff?from=1&to=5", "").want(200).json(&diff)
	if len(diff.Changes) != 2 || diff.Changes[0].Name != "chat" || diff.Changes[0].Action != api.Created || diff.Changes[1].Name != "io" || diff.Changes[1].Action != api.Updated {
		t.Errorf("1 to 5: %+v", diff)
	}
	in.do("GET", "/v1/history/diff?from=5&to=1", "").want(200).json(&diff)
	if len(diff.Changes) != 2 || diff.Changes[0].Action != api.Deleted {
		t.Errorf("5 to 1: %+v", diff)
	}
	in.do("GET", "/v1/history/diff?from=1&to=9", "").want(404)
}

func TestRevert(t *testing.T) {
	t.Parallel()
	in := start(t)
	in.do("PUT", "/v1/upstreams/io", `{"balance": {"method": "ip_hash"}}`).want(201)    // 1
	in.do("PUT", "/v1/sites/chat", siteOf("chat")).want(201)                            // 2
	in.do("PUT", "/v1/upstreams/io", `{"balance": {"method": "least_conn"}}`).want(200) // 3
	in.do("PUT", "/v1/overrides/io/n1", `{"state": "draining"}`).want(201)              // 4
	upstream := func() string { return in.do("GET", "/v1/upstreams/io", "").want(200).body }

	var result api.ChangeResult
	in.do("POST", "/v1/history/3/revert?dryRun=true", "").want(200).json(&result)
	if len(result.Changes) != 1 || result.Changes[0].Action != api.Updated || strings.Contains(upstream(), "ip_hash") {
		t.Errorf("dry run: %+v, %s", result, upstream())
	}
	in.do("POST", "/v1/history/3/revert", "").want(200) // 5
	if !strings.Contains(upstream(), "ip_hash") {
		t.Errorf("reverted: %s", upstream())
	}
	in.do("POST", "/v1/history/3/revert", "").wantDetail(409, "was changed since")
	in.do("POST", "/v1/history/1/revert", "").wantDetail(409, "is used by site/chat")
	in.do("POST", "/v1/history/99/revert", "").want(404)
	var entry api.HistoryEntry
	in.do("GET", "/v1/history/5", "").want(200).json(&entry)
	if entry.Reason != "revert of seq 3" {
		t.Errorf("reason %q", entry.Reason)
	}

	// Back to a seq undoes all that came later, and deletes what did not exist.
	in.do("POST", "/v1/history/2/revert?back=true", "", "X-Change-Reason: all of it").want(200).json(&result)
	in.do("GET", "/v1/overrides/io/n1", "").want(404)
	before, err := in.registry.Get(t.Context(), registry.Ref{Kind: registry.KindUpstream, Name: "io"})
	if err != nil || string(before.Value) != `{"balance":{"method":"ip_hash"}}` {
		t.Errorf("not to the byte: %s %v", before.Value, err)
	}
	in.do("POST", "/v1/history/0/revert?back=true", "").want(200)
	in.do("GET", "/v1/upstreams/io", "").want(404)
	in.do("POST", "/v1/history/2/revert?back=true", "").want(200)
	in.do("GET", "/v1/sites/chat", "").want(200)
}

// Tokens and keys are not undone.
func TestRevertLeavesTokensAlone(t *testing.T) {
	t.Parallel()
	in := startWith(t, newRegistry(t), adminToken)
	in.do("PUT", "/v1/upstreams/io", `{}`, bearer(adminToken)).want(201)
	viewer := in.token(`{"name": "eyes", "role": "viewer"}`)
	in.do("DELETE", "/v1/tokens/eyes", "", bearer(adminToken)).want(204)
	in.do("POST", "/v1/history/2/revert?back=true", "", bearer(adminToken)).want(200)
	in.do("GET", "/v1/sites", "", bearer(viewer)).want(401)
	in.do("POST", "/v1/history/1/revert?back=true", "", bearer(adminToken)).want(200)
	if got := in.do("GET", "/v1/history/diff?from=1&to=3", "", bearer(adminToken)).want(200).body; strings.Contains(got, "token") {
		t.Errorf("the difference has tokens: %s", got)
	}
}

// agedRegistry has the changes up to a seq be of long ago.
type agedRegistry struct {
	registry.Registry
	upTo registry.Seq
}

func (r agedRegistry) List(ctx context.Context, kind registry.Kind, from string, limit int) (registry.Page, error) {
	page, err := r.Registry.List(ctx, kind, from, limit)
	for i, o := range page.Objects {
		if kind != registry.KindHistory || o.Seq > r.upTo {
			continue
		}
		var c registry.Change
		if err := json.Unmarshal(o.Value, &c); err != nil {
			return page, err
		}
		c.At = c.At.Add(-registry.HistoryAge)
		if page.Objects[i].Value, err = registry.MarshalJSON(c); err != nil {
			return page, err
		}
	}
	return page, err
}

// What is too old is gone, whether or not it was tidied up.
func TestHistoryThatIsGone(t *testing.T) {
	t.Parallel()
	in := startWith(t, agedRegistry{newRegistry(t), 2}, "")
	for i := range 5 {
		in.do("PUT", "/v1/upstreams/io", fmt.Sprintf(`{"service": "s%d"}`, i))
	}
	for query, want := range map[string]string{
		"": "5 4 3, 0", "?limit=2": "5 4, 3", "?limit=3": "5 4 3, 0", "?limit=2&from=3": "3, 0", "?from=2": ", 0", "?name=io&limit=2": "5 4, 3", "?name=io&limit=3": "5 4 3, 0",
	} {
		list, next := in.seqs(query)
		if got := fmt.Sprintf("%s, %d", list, next); got != want {
			t.Errorf("%s: %q, want %q", query, got, want)
		}
	}
	const gone = "change 2 is not in the history any more: of the last 1000 changes, those of 90 days are kept"
	in.do("GET", "/v1/history/2", "").wantDetail(404, gone)
	in.do("GET", "/v1/history/diff?from=1&to=4", "").wantDetail(404, gone)
	in.do("GET", "/v1/history/diff?from=2&to=4", "").want(200)
	in.do("POST", "/v1/history/2/revert", "").wantDetail(404, gone)
	in.do("POST", "/v1/history/1/revert?back=true", "").wantDetail(404, gone)
	in.do("POST", "/v1/history/2/revert?back=true", "").want(200)
	if got := in.do("GET", "/v1/upstreams/io", "").want(200).body; got != `{"service":"s1"}` {
		t.Error(got)
	}
}
