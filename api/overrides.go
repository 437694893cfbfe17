package api

import (
	"context"
	"fmt"

	"sluice/controlplane/spec"
	"sluice/registry"
)

func overrideRef(service, id string) registry.Ref {
	return registry.Ref{Kind: registry.KindOverride, Name: service + "/" + id}
}

// checkNode refuses what does not name a node. The two parts must be those that the name is split into again.
func checkNode(service, id string) error {
	name := service + "/" + id
	errs := spec.CheckNode(name)
	if s, i, _ := spec.SplitNode(name); errs == nil && (s != service || i != id) {
		errs = []spec.FieldError{{Message: fmt.Sprintf("%q is ambiguous: an id of a service of endpoints has no slash", name)}}
	}
	return invalid(errs)
}

// serviceOf returns the service of the node that an override is about.
func serviceOf(name string) string {
	service, _, _ := spec.SplitNode(name)
	return service
}

// ListOverrides implements StrictServerInterface.
func (s *Server) ListOverrides(ctx context.Context, r ListOverridesRequestObject) (ListOverridesResponseObject, error) {
	p := r.Params
	if err := checkServiceParameter(p.Service); err != nil {
		return nil, err
	}
	var f filters[named[spec.Override]]
	f.add(p.Owner != "", func(n named[spec.Override]) bool { return n.Spec.Owner == p.Owner })
	f.add(p.Service != "", func(n named[spec.Override]) bool { return serviceOf(n.Name) == p.Service })
	f.add(p.State != "", func(n named[spec.Override]) bool { return n.Spec.WithDefaults().State == p.State })
	page, err := list[spec.Override](ctx, s, registry.KindOverride, newListing(p.From, p.Prefix, p.Limit), f)
	if err != nil {
		return nil, err
	}
	items := convert(page.items, func(n named[spec.Override]) NamedOverride { return NamedOverride(n) })
	return ListOverrides200JSONResponse{Items: items, Next: page.next, Seq: page.seq}, nil
}

// GetOverride implements StrictServerInterface.
func (s *Server) GetOverride(ctx context.Context, r GetOverrideRequestObject) (GetOverrideResponseObject, error) {
	object, seq, err := get[spec.Override](ctx, s, overrideRef(r.Service, r.ID))
	if err != nil {
		return nil, err
	}
	return GetOverride200JSONResponse{Body: object, Headers: GetOverride200ResponseHeaders{ETag: etag(seq)}}, nil
}

// PutOverride implements StrictServerInterface.
func (s *Server) PutOverride(ctx context.Context, r PutOverrideRequestObject) (PutOverrideResponseObject, error) {
	if err := checkNode(r.Service, r.ID); err != nil {
		return nil, err
	}
	return s.put(ctx, overrideRef(r.Service, r.ID), *r.Body, writing(r.Params))
}

// PatchOverride implements StrictServerInterface.
func (s *Server) PatchOverride(ctx context.Context, r PatchOverrideRequestObject) (PatchOverrideResponseObject, error) {
	if err := checkNode(r.Service, r.ID); err != nil {
		return nil, err
	}
	return s.patch(ctx, overrideRef(r.Service, r.ID), *r.Body, writing(r.Params))
}

// DeleteOverride implements StrictServerInterface.
func (s *Server) DeleteOverride(ctx context.Context, r DeleteOverrideRequestObject) (DeleteOverrideResponseObject, error) {
	return s.remove(ctx, overrideRef(r.Service, r.ID), deleting(r.Params))
}
