package api

import (
	"context"
	"maps"
	"net/http"
	"slices"

	"sluice/controlplane/spec"
	"sluice/registry"
)

// Apply implements StrictServerInterface.
func (s *Server) Apply(ctx context.Context, r ApplyRequestObject) (ApplyResponseObject, error) {
	doc := *r.Body
	p := r.Params
	var errs []spec.FieldError
	if p.Owner != "" {
		doc, errs = owned(doc, p.Owner)
		if !spec.ValidName(p.Owner) {
			return nil, problemf(http.StatusBadRequest, "the owner %q is not a name: %s", p.Owner, spec.CheckName(p.Owner)[0].Message)
		}
	} else if p.Prune {
		return nil, newProblem(http.StatusBadRequest, "prune deletes what an owner has and the document lacks: name the owner")
	}
	if err := invalid(append(errs, doc.ValidateObjects()...)); err != nil {
		return nil, err
	}
	c := change{edits: edits(doc), reason: p.XChangeReason, dryRun: p.DryRun, wait: p.Wait, owner: p.Owner, prune: p.Prune}
	return s.changeMany(ctx, c)
}

// changeMany answers a change of any number of objects.
func (s *Server) changeMany(ctx context.Context, c change) (written, error) {
	out, err := s.change(ctx, c)
	if err != nil {
		return written{}, err
	}
	return out.answer(), nil
}

// owned returns a document whose objects have an owner, and where one names another.
func owned(d spec.Document, owner string) (spec.Document, []spec.FieldError) {
	var errs []spec.FieldError
	give := func(at string, have *string) {
		if *have != "" && *have != owner {
			errs = append(errs, spec.FieldError{Field: at + "/owner", Message: "is another owner than that of the request: leave it out"})
		}
		*have = owner
	}
	for name, o := range d.Certificates {
		give("/certificates/"+escapePointer(name), &o.Owner)
		d.Certificates[name] = o
	}
	for name, o := range d.Upstreams {
		give("/upstreams/"+escapePointer(name), &o.Owner)
		d.Upstreams[name] = o
	}
	for name, o := range d.Sites {
		give("/sites/"+escapePointer(name), &o.Owner)
		d.Sites[name] = o
	}
	for name, o := range d.Overrides {
		give("/overrides/"+escapePointer(name), &o.Owner)
		d.Overrides[name] = o
	}
	return d, errs
}

// edits lists the objects of a document, those first that others name.
func edits(d spec.Document) []edit {
	var out []edit
	out = appendEdits(out, registry.KindCertificate, "/certificates/", d.Certificates)
	out = appendEdits(out, registry.KindUpstream, "/upstreams/", d.Upstreams)
	out = appendEdits(out, registry.KindSite, "/sites/", d.Sites)
	return appendEdits(out, registry.KindOverride, "/overrides/", d.Overrides)
}

func appendEdits[T object](out []edit, kind registry.Kind, at string, objects map[string]T) []edit {
	for _, name := range slices.Sorted(maps.Keys(objects)) {
		out = append(out, edit{Ref: registry.Ref{Kind: kind, Name: name}, object: objects[name], at: at + escapePointer(name)})
	}
	return out
}

// ownership is the part of an object that says whose it is.
type ownership struct {
	Owner string `json:"owner"`
}

func ownerOf(o registry.Object) string {
	v, err := spec.Decode[ownership](o.Value)
	if err != nil {
		return ""
	}
	return v.Owner
}

// checkOwner refuses to take an object away from another owner.
func (c change) checkOwner(before registry.Object) error {
	if c.owner == "" || before.Seq == 0 {
		return nil
	}
	if have := ownerOf(before); have != "" && have != c.owner {
		p := problemf(http.StatusConflict, "%s belongs to %q: remove it from that owner's document first, or write it without an owner", before.Ref(), have)
		p.Object = before.Ref().String()
		return p
	}
	return nil
}

// pruned returns the edits that delete what the owner has and the change does not name: sites first, which name others.
func (s *Server) pruned(ctx context.Context, c change) ([]edit, error) {
	if !c.prune {
		return nil, nil
	}
	named := map[registry.Ref]bool{}
	for _, e := range c.edits {
		named[e.Ref] = true
	}
	var out []edit
	for _, kind := range slices.Backward(registry.DesiredKinds()) {
		if _, ok := kinds[kind]; !ok {
			continue
		}
		page, err := s.registry.List(ctx, kind, "", 0)
		if err != nil {
			return nil, s.fault(err)
		}
		for _, o := range page.Objects {
			if !named[o.Ref()] && ownerOf(o) == c.owner {
				out = append(out, edit{Ref: o.Ref(), seq: &o.Seq})
			}
		}
	}
	return out, nil
}
