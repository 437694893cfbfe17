package api

import (
	"context"
	"time"

	"sluice/controlplane/spec"
	"sluice/registry"
)

func approvalRef(upstream string) registry.Ref {
	return registry.Ref{Kind: registry.KindApproval, Name: upstream}
}

// ListApprovals implements StrictServerInterface.
func (s *Server) ListApprovals(ctx context.Context, r ListApprovalsRequestObject) (ListApprovalsResponseObject, error) {
	p := r.Params
	page, err := list[spec.Approval](ctx, s, registry.KindApproval, newListing(p.From, p.Prefix, p.Limit), nil)
	if err != nil {
		return nil, err
	}
	items := convert(page.items, func(n named[spec.Approval]) NamedApproval { return NamedApproval(n) })
	return ListApprovals200JSONResponse{Items: items, Next: page.next, Seq: page.seq}, nil
}

// GetApproval implements StrictServerInterface.
func (s *Server) GetApproval(ctx context.Context, r GetApprovalRequestObject) (GetApprovalResponseObject, error) {
	object, seq, err := get[spec.Approval](ctx, s, approvalRef(r.Name))
	if err != nil {
		return nil, err
	}
	return GetApproval200JSONResponse{Body: object, Headers: GetApproval200ResponseHeaders{ETag: etag(seq)}}, nil
}

// PutApproval implements StrictServerInterface. The time is written down, so that the same words a day later are an
// approval of their own.
func (s *Server) PutApproval(ctx context.Context, r PutApprovalRequestObject) (PutApprovalResponseObject, error) {
	approval := *r.Body
	if approval.At == nil {
		approval.At = new(time.Now().UTC())
	}
	return s.put(ctx, approvalRef(r.Name), approval, writing(r.Params))
}

// DeleteApproval implements StrictServerInterface.
func (s *Server) DeleteApproval(ctx context.Context, r DeleteApprovalRequestObject) (DeleteApprovalResponseObject, error) {
	return s.remove(ctx, approvalRef(r.Name), deleting(r.Params))
}
