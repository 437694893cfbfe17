package api

import (
	"encoding/json"
	"net/http"
	"slices"
)

// written is the answer of every operation that writes: the generated types are one for each operation and status, and
// say all the same.
type written struct {
	status int
	etag   string // empty when there is no one object
	body   ChangeResult
}

func (a written) write(w http.ResponseWriter) error {
	h := w.Header()
	h.Set("Content-Type", "application/json")
	if a.etag != "" {
		h.Set("ETag", a.etag)
	}
	w.WriteHeader(a.status)
	return json.NewEncoder(w).Encode(a.body)
}

// answer tells what became of a change.
func (out outcome) answer() written {
	a := written{status: http.StatusOK, body: ChangeResult{Seq: out.seq, DryRun: out.dryRun, Changes: make([]Change, 0, len(out.results))}}
	for _, r := range out.results {
		a.body.Changes = append(a.body.Changes, Change{Kind: string(r.Kind), Name: r.Name, Action: r.action, Seq: r.seq, Differences: r.differences})
	}
	a.body.Preview = out.preview
	if out.waited != nil {
		a.body.Gateways = out.waited
		a.body.Live = new(!slices.ContainsFunc(out.waited, func(o GatewayOutcome) bool { return !o.Live }))
		if !*a.body.Live {
			a.status = http.StatusAccepted
		}
	}
	return a
}

// answerOne tells what became of a change of one object.
func (out outcome) answerOne() written {
	a := out.answer()
	if r := out.results[0]; r.seq > 0 {
		a.etag = etag(r.seq)
	}
	if out.results[0].action == Created && !out.dryRun && a.status == http.StatusOK {
		a.status = http.StatusCreated
	}
	return a
}

// VisitPutUpstreamResponse implements PutUpstreamResponseObject.
func (a written) VisitPutUpstreamResponse(w http.ResponseWriter) error { return a.write(w) }

// VisitPatchUpstreamResponse implements PatchUpstreamResponseObject.
func (a written) VisitPatchUpstreamResponse(w http.ResponseWriter) error { return a.write(w) }

// VisitDeleteUpstreamResponse implements DeleteUpstreamResponseObject.
func (a written) VisitDeleteUpstreamResponse(w http.ResponseWriter) error { return a.write(w) }

// VisitPutSiteResponse implements PutSiteResponseObject.
func (a written) VisitPutSiteResponse(w http.ResponseWriter) error { return a.write(w) }

// VisitPatchSiteResponse implements PatchSiteResponseObject.
func (a written) VisitPatchSiteResponse(w http.ResponseWriter) error { return a.write(w) }

// VisitDeleteSiteResponse implements DeleteSiteResponseObject.
func (a written) VisitDeleteSiteResponse(w http.ResponseWriter) error { return a.write(w) }

// VisitPutCertificateResponse implements PutCertificateResponseObject.
func (a written) VisitPutCertificateResponse(w http.ResponseWriter) error { return a.write(w) }

// VisitPatchCertificateResponse implements PatchCertificateResponseObject.
func (a written) VisitPatchCertificateResponse(w http.ResponseWriter) error { return a.write(w) }

// VisitDeleteCertificateResponse implements DeleteCertificateResponseObject.
func (a written) VisitDeleteCertificateResponse(w http.ResponseWriter) error { return a.write(w) }

// VisitPutOverrideResponse implements PutOverrideResponseObject.
func (a written) VisitPutOverrideResponse(w http.ResponseWriter) error { return a.write(w) }

// VisitPatchOverrideResponse implements PatchOverrideResponseObject.
func (a written) VisitPatchOverrideResponse(w http.ResponseWriter) error { return a.write(w) }

// VisitDeleteOverrideResponse implements DeleteOverrideResponseObject.
func (a written) VisitDeleteOverrideResponse(w http.ResponseWriter) error { return a.write(w) }

// VisitPutApprovalResponse implements PutApprovalResponseObject.
func (a written) VisitPutApprovalResponse(w http.ResponseWriter) error { return a.write(w) }

// VisitDeleteApprovalResponse implements DeleteApprovalResponseObject.
func (a written) VisitDeleteApprovalResponse(w http.ResponseWriter) error { return a.write(w) }

// VisitApplyResponse implements ApplyResponseObject.
func (a written) VisitApplyResponse(w http.ResponseWriter) error { return a.write(w) }

// VisitRestoreResponse implements RestoreResponseObject.
func (a written) VisitRestoreResponse(w http.ResponseWriter) error { return a.write(w) }

// VisitRevertResponse implements RevertResponseObject.
func (a written) VisitRevertResponse(w http.ResponseWriter) error { return a.write(w) }
