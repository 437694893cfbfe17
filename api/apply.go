package api

import (
	"context"
	"maps"
	"slices"
	"strings"

	"sluice/controlplane/spec"
	"sluice/registry"
)

// Apply implements StrictServerInterface.
func (s *Server) Apply(ctx context.Context, r ApplyRequestObject) (ApplyResponseObject, error) {
	doc := *r.Body
	if err := invalid(doc.ValidateObjects()); err != nil {
		return nil, err
	}
	c := change{edits: edits(doc), reason: r.Params.XChangeReason, dryRun: r.Params.DryRun}
	out, err := s.change(ctx, c)
	if err != nil {
		return nil, err
	}
	answer := Apply200JSONResponse{Seq: out.seq, DryRun: c.dryRun, Changes: []Change{}}
	for i, e := range c.edits {
		answer.Changes = append(answer.Changes, Change{Kind: ChangeKind(e.Kind), Name: e.Name, Action: out.results[i].action})
	}
	return answer, nil
}

// edits lists the objects of a document, those first that others name.
func edits(d spec.Document) []edit {
	var out []edit
	out = appendEdits(out, registry.KindCertificate, "/certificates/", d.Certificates)
	out = appendEdits(out, registry.KindUpstream, "/upstreams/", d.Upstreams)
	out = appendEdits(out, registry.KindSite, "/sites/", d.Sites)
	return appendEdits(out, registry.KindOverride, "/overrides/", d.Overrides)
}

func appendEdits[T any](out []edit, kind registry.Kind, at string, objects map[string]T) []edit {
	for _, name := range slices.Sorted(maps.Keys(objects)) {
		pointer := at + strings.NewReplacer("~", "~0", "/", "~1").Replace(name)
		out = append(out, edit{Ref: registry.Ref{Kind: kind, Name: name}, object: objects[name], at: pointer})
	}
	return out
}
