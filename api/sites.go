package api

import (
	"context"

	"sluice/controlplane/spec"
	"sluice/registry"
)

func siteRef(name string) registry.Ref {
	return registry.Ref{Kind: registry.KindSite, Name: name}
}

// ListSites implements StrictServerInterface.
func (s *Server) ListSites(ctx context.Context, r ListSitesRequestObject) (ListSitesResponseObject, error) {
	p, err := list[spec.Site](ctx, s, registry.KindSite, r.Params.From, r.Params.Limit)
	if err != nil {
		return nil, err
	}
	items := each(p.items, func(n named[spec.Site]) NamedSite { return NamedSite(n) })
	return ListSites200JSONResponse{Items: items, Next: p.next, Seq: p.seq}, nil
}

// GetSite implements StrictServerInterface.
func (s *Server) GetSite(ctx context.Context, r GetSiteRequestObject) (GetSiteResponseObject, error) {
	object, seq, err := get[spec.Site](ctx, s, siteRef(r.Name))
	if err != nil {
		return nil, err
	}
	return GetSite200JSONResponse{Body: object, Headers: GetSite200ResponseHeaders{ETag: etag(seq)}}, nil
}

// PutSite implements StrictServerInterface.
func (s *Server) PutSite(ctx context.Context, r PutSiteRequestObject) (PutSiteResponseObject, error) {
	return s.put(ctx, siteRef(r.Name), *r.Body, writing(r.Params))
}

// PatchSite implements StrictServerInterface.
func (s *Server) PatchSite(ctx context.Context, r PatchSiteRequestObject) (PatchSiteResponseObject, error) {
	return s.patch(ctx, siteRef(r.Name), *r.Body, writing(r.Params))
}

// DeleteSite implements StrictServerInterface.
func (s *Server) DeleteSite(ctx context.Context, r DeleteSiteRequestObject) (DeleteSiteResponseObject, error) {
	return s.remove(ctx, siteRef(r.Name), deleting(r.Params))
}
