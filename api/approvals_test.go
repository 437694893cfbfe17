package api_test

import (
	"testing"
	"time"

	"sluice/api"
	"sluice/controlplane/spec"
)

// Each PUT without a time is an approval of its own: the same words may be said again the next day.
func TestApprovals(t *testing.T) {
	t.Parallel()
	in := start(t)
	var first, second spec.Approval
	in.do("PUT", "/v1/approvals/io", `{"note":"moved"}`).want(201)
	in.do("GET", "/v1/approvals/io", "").want(200).json(&first)
	if first.At == nil || time.Since(*first.At) > time.Minute {
		t.Errorf("the approval has no time: %+v", first)
	}
	in.do("PUT", "/v1/approvals/io", `{"note":"moved"}`).want(200)
	in.do("GET", "/v1/approvals/io", "").want(200).json(&second)
	if second.At == nil || !second.At.After(*first.At) {
		t.Errorf("the second approval is at %v, the first at %v", second.At, first.At)
	}
	in.do("PUT", "/v1/approvals/io", `{"at":"2026-01-02T03:04:05Z","until":"2026-01-04T03:04:05Z"}`).wantDetail(422, "more than 24h after at")
	var list api.ApprovalList
	in.do("GET", "/v1/approvals", "").want(200).json(&list)
	if len(list.Items) != 1 || list.Items[0].Name != "io" || list.Items[0].Spec.Note != "moved" {
		t.Errorf("approvals: %+v", list)
	}
	in.do("GET", "/v1/approvals/io", "").want(200)
	in.do("DELETE", "/v1/approvals/io", "").want(200)
	in.do("GET", "/v1/approvals/io", "").want(404)
}
