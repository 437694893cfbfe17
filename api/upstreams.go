package api

import (
	"context"

	"sluice/controlplane"
	"sluice/controlplane/spec"
	"sluice/registry"
)

func upstreamRef(name string) registry.Ref {
	return registry.Ref{Kind: registry.KindUpstream, Name: name}
}

// ListUpstreams implements StrictServerInterface.
func (s *Server) ListUpstreams(ctx context.Context, r ListUpstreamsRequestObject) (ListUpstreamsResponseObject, error) {
	p := r.Params
	if err := checkServiceParameter(p.Service); err != nil {
		return nil, err
	}
	var f filters[named[spec.Upstream]]
	f.add(p.Owner != "", func(n named[spec.Upstream]) bool { return n.Spec.Owner == p.Owner })
	f.add(p.Service != "", func(n named[spec.Upstream]) bool {
		return controlplane.UpstreamService(n.Spec.WithDefaults(n.Name)) == p.Service
	})
	page, err := list[spec.Upstream](ctx, s, registry.KindUpstream, newListing(p.From, p.Prefix, p.Limit), f)
	if err != nil {
		return nil, err
	}
	items := convert(page.items, func(n named[spec.Upstream]) NamedUpstream { return NamedUpstream(n) })
	return ListUpstreams200JSONResponse{Items: items, Next: page.next, Seq: page.seq}, nil
}

// GetUpstream implements StrictServerInterface.
func (s *Server) GetUpstream(ctx context.Context, r GetUpstreamRequestObject) (GetUpstreamResponseObject, error) {
	object, seq, err := get[spec.Upstream](ctx, s, upstreamRef(r.Name))
	if err != nil {
		return nil, err
	}
	return GetUpstream200JSONResponse{Body: object, Headers: GetUpstream200ResponseHeaders{ETag: etag(seq)}}, nil
}

// PutUpstream implements StrictServerInterface.
func (s *Server) PutUpstream(ctx context.Context, r PutUpstreamRequestObject) (PutUpstreamResponseObject, error) {
	return s.put(ctx, upstreamRef(r.Name), *r.Body, writing(r.Params))
}

// PatchUpstream implements StrictServerInterface.
func (s *Server) PatchUpstream(ctx context.Context, r PatchUpstreamRequestObject) (PatchUpstreamResponseObject, error) {
	return s.patch(ctx, upstreamRef(r.Name), *r.Body, writing(r.Params))
}

// DeleteUpstream implements StrictServerInterface.
func (s *Server) DeleteUpstream(ctx context.Context, r DeleteUpstreamRequestObject) (DeleteUpstreamResponseObject, error) {
	return s.remove(ctx, upstreamRef(r.Name), deleting(r.Params))
}
