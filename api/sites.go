package api

import (
	"context"
	"net/http"
	"slices"
	"strings"

	"sluice/controlplane/spec"
	"sluice/registry"
)

func siteRef(name string) registry.Ref {
	return registry.Ref{Kind: registry.KindSite, Name: name}
}

// ListSites implements StrictServerInterface.
func (s *Server) ListSites(ctx context.Context, r ListSitesRequestObject) (ListSitesResponseObject, error) {
	p := r.Params
	if err := checkHost(p.Host); err != nil {
		return nil, err
	}
	var f filters[named[spec.Site]]
	f.add(p.Owner != "", func(n named[spec.Site]) bool { return n.Spec.Owner == p.Owner })
	f.add(p.Group != "", func(n named[spec.Site]) bool { return slices.Contains(n.Spec.WithDefaults().Groups, p.Group) })
	f.add(p.Host != "", func(n named[spec.Site]) bool { return serves(n.Spec, strings.ToLower(p.Host)) })
	f.add(p.Upstream != "", func(n named[spec.Site]) bool { return leadsTo(n.Spec, p.Upstream) })
	page, err := list[spec.Site](ctx, s, registry.KindSite, newListing(p.From, p.Prefix, p.Limit), f)
	if err != nil {
		return nil, err
	}
	items := convert(page.items, func(n named[spec.Site]) NamedSite { return NamedSite(n) })
	return ListSites200JSONResponse{Items: items, Next: page.next, Seq: page.seq}, nil
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

// checkHost says what is wrong with the host that a request selects by.
func checkHost(host string) error {
	if strings.ContainsAny(host, ":/ ") {
		return problemf(http.StatusBadRequest, "host: %q is not a host name: give it without a scheme, a port and a path, as chat.example.com", host)
	}
	return nil
}

// serves reports whether a site has the host, by a wildcard too.
func serves(site spec.Site, host string) bool {
	return slices.ContainsFunc(site.Hosts, func(h string) bool {
		rest, wild := strings.CutPrefix(h, "*")
		return h == host || wild && strings.HasSuffix(host, rest) && len(host) > len(rest)
	})
}

func leadsTo(site spec.Site, upstream string) bool {
	return slices.ContainsFunc(site.Routes, func(r spec.Route) bool { return r.Upstream == upstream })
}
