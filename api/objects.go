package api

import (
	"context"
	"errors"
	"net/http"

	"sluice/controlplane/spec"
	"sluice/registry"
)

// named is one object of a list. The generated types of each kind convert from it.
type named[T any] struct {
	Name string
	Seq  registry.Seq
	Spec T
}

// page is a part of a list.
type page[T any] struct {
	items []named[T]
	next  string
	seq   registry.Seq
}

// list returns a part of the objects of a kind. Those that cannot be decoded are left out; the gateways report them.
func list[T any](ctx context.Context, s *Server, kind registry.Kind, l listing, f filters[named[T]]) (page[T], error) {
	got, err := s.registry.List(ctx, kind, l.begin(), f.look(l))
	if err != nil {
		return page[T]{}, s.fault(err)
	}
	decoded := func(yield func(string, named[T]) bool) {
		for _, o := range got.Objects {
			object, err := spec.Decode[T](o.Value)
			if err != nil {
				s.log.Warn("an object was left out of a list", "object", o.Ref().String(), "error", err)
				continue
			}
			if !yield(o.Name, named[T]{o.Name, o.Seq, object}) {
				return
			}
		}
	}
	out := page[T]{seq: got.Seq}
	out.items, out.next = pageOf(l, f, decoded, got.Next)
	return out, nil
}

// convert converts the items of a page; it never returns nil, which JSON would write as null.
func convert[T, U any](items []named[T], as func(named[T]) U) []U {
	out := make([]U, 0, len(items))
	for _, item := range items {
		out = append(out, as(item))
	}
	return out
}

// get returns one object and its Seq.
func get[T any](ctx context.Context, s *Server, ref registry.Ref) (T, registry.Seq, error) {
	var zero T
	o, err := s.registry.Get(ctx, ref)
	if err != nil {
		return zero, 0, s.fault(err)
	}
	object, err := spec.Decode[T](o.Value)
	if err != nil {
		return zero, 0, problemf(http.StatusInternalServerError, "%s cannot be decoded: write it anew, or delete it", ref)
	}
	return object, o.Seq, nil
}

// writing is what a write says besides the object. The parameters of every PUT and PATCH convert to it.
type writing PutUpstreamParams

// deleting is what a DELETE says. The parameters of every DELETE convert to it.
type deleting DeleteUpstreamParams

// put writes one object.
func (s *Server) put(ctx context.Context, ref registry.Ref, o object, w writing) (written, error) {
	if err := invalid(o.Validate()); err != nil {
		return written{}, err
	}
	return s.write(ctx, edit{Ref: ref, object: o}, w)
}

// patch changes the fields of one object.
func (s *Server) patch(ctx context.Context, ref registry.Ref, patch MergePatch, w writing) (written, error) {
	if field, ok := errors.AsType[spec.FieldError](kinds[ref.Kind].patch(patch)); ok {
		return written{}, invalid([]spec.FieldError{field})
	}
	return s.write(ctx, edit{Ref: ref, patch: patch}, w)
}

func (s *Server) write(ctx context.Context, e edit, w writing) (written, error) {
	var err error
	if e.when, err = parsePrecondition(w.IfMatch, w.IfNoneMatch); err != nil {
		return written{}, err
	}
	out, err := s.change(ctx, change{edits: []edit{e}, reason: w.XChangeReason, dryRun: w.DryRun, wait: w.Wait})
	if err != nil {
		return written{}, err
	}
	return out.answerOne(), nil
}

// remove deletes one object.
func (s *Server) remove(ctx context.Context, ref registry.Ref, d deleting) (written, error) {
	if !registry.ValidObjectName(ref.Name) { // the registry would refuse the change instead of missing the object
		return written{}, problemf(http.StatusNotFound, "%s does not exist", ref)
	}
	when, err := parsePrecondition(d.IfMatch, "")
	if err != nil {
		return written{}, err
	}
	out, err := s.change(ctx, change{edits: []edit{{Ref: ref, when: when}}, reason: d.XChangeReason, dryRun: d.DryRun, wait: d.Wait})
	if err != nil {
		return written{}, err
	}
	if out.results[0].action != Deleted {
		return written{}, problemf(http.StatusNotFound, "%s does not exist", ref)
	}
	return out.answerOne(), nil
}
