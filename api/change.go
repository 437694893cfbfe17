package api

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"

	"sluice/controlplane/spec"
	"sluice/registry"
)

// edit is a wish to write or delete one object.
type edit struct {
	registry.Ref
	object any    // a spec type; nil deletes
	at     string // JSON pointer of the object in the request's body
	when   precondition
}

// change is a set of edits that are made as one.
type change struct {
	edits  []edit
	reason string
	dryRun bool
}

// outcome is what became of a change.
type outcome struct {
	seq     registry.Seq
	results []result // in the order of the edits
}

type result struct {
	action ChangeAction
	gone   bool         // deleted
	seq    registry.Seq // of the object now
}

var (
	errDryRun = errors.New("dry run")
	// errAgain says that what a change was planned on does not hold any more.
	errAgain = errors.New("changed in between")
)

// maxAttempts is how often a change is planned anew when others come in between.
const maxAttempts = 10

// change commits, or, as a dry run, goes as far as it can without.
func (s *Server) change(ctx context.Context, c change) (outcome, error) {
	for range maxAttempts {
		out, err := s.tryChange(ctx, c)
		if !errors.Is(err, errAgain) {
			return out, err
		}
	}
	return outcome{}, newProblem(http.StatusConflict, "others kept changing the same objects: try again")
}

func (s *Server) tryChange(ctx context.Context, c change) (outcome, error) {
	p, err := s.plan(ctx, c)
	if err != nil {
		return outcome{}, err
	}
	tx := registry.Tx{Ops: p.ops, Author: author(ctx), Reason: c.reason, Check: func(ctx context.Context, after registry.View) error {
		if err := s.check(ctx, p, after); err != nil {
			return err
		}
		if c.dryRun {
			return errDryRun
		}
		return nil
	}}
	done, err := s.registry.Commit(ctx, tx)
	if errors.Is(err, errDryRun) {
		return p.outcome(p.seq, p.wouldChange), nil
	}
	if conflict, ok := errors.AsType[*registry.ConflictError](err); ok && !p.demanded[conflict.Ref] {
		return outcome{}, errAgain
	}
	if err != nil {
		return outcome{}, s.fault(err)
	}
	if !done.Unchanged {
		s.log.Info("desired state changed", "seq", done.Seq, "author", tx.Author, "reason", tx.Reason, "objects", names(done.Changed))
	}
	return p.outcome(done.Seq, func(i int) bool { return slices.Contains(done.Changed, p.edits[i].Ref) }), nil
}

func names(refs []registry.Ref) []string {
	out := make([]string, len(refs))
	for i, r := range refs {
		out[i] = r.String()
	}
	return out
}

// plan is a change in the terms of the registry.
type plan struct {
	change
	seq      registry.Seq      // of the state that it was made from
	before   []registry.Object // one for each edit; the zero Object where there is none
	values   []json.RawMessage // one for each edit, as it is stored
	ops      []registry.Op
	dropped  []string              // keys that no certificate will need any more
	demanded map[registry.Ref]bool // the caller, not the plan, demands a version of these
}

func (s *Server) plan(ctx context.Context, c change) (plan, error) {
	p := plan{change: c, demanded: map[registry.Ref]bool{}}
	keys := newKeys()
	for _, e := range c.edits {
		before, seq, err := s.find(ctx, e.Ref)
		if err != nil {
			return p, err
		}
		p.seq = seq
		op := registry.Op{Ref: e.Ref}
		object := e.object
		if e.Kind == registry.KindCertificate {
			object = keys.split(e.object, before)
			op.IfSeq = &before.Seq // the plan for the keys holds for this one alone
		}
		if object != nil {
			if op.Value, err = registry.MarshalJSON(object); err != nil {
				return p, fmt.Errorf("encode %s: %w", e.Ref, err)
			}
		}
		if e.when.set() {
			if op.IfSeq, err = e.when.seq(e.Ref, before.Seq); err != nil {
				return p, err
			}
			p.demanded[e.Ref] = e.when != anyVersion
		}
		p.before, p.values, p.ops = append(p.before, before), append(p.values, op.Value), append(p.ops, op)
	}
	if err := s.planKeys(ctx, &p, keys); err != nil {
		return p, err
	}
	return p, nil
}

// find returns an object, or the zero Object, and the Seq of the state. It lists, because a value that cannot be decoded is not an error there: it
// can be written over.
func (s *Server) find(ctx context.Context, ref registry.Ref) (registry.Object, registry.Seq, error) {
	page, err := s.registry.List(ctx, ref.Kind, ref.Name, 1)
	if err != nil {
		return registry.Object{}, 0, s.fault(err)
	}
	if len(page.Objects) == 1 && page.Objects[0].Name == ref.Name {
		return page.Objects[0], page.Seq, nil
	}
	return registry.Object{}, page.Seq, nil
}

func (p plan) wouldChange(i int) bool {
	exists := p.before[i].Seq > 0
	if p.values[i] == nil {
		return exists
	}
	return !exists || !registry.SameJSON(p.before[i].Value, p.values[i])
}

func (p plan) outcome(seq registry.Seq, changed func(i int) bool) outcome {
	out := outcome{seq: seq}
	for i, before := range p.before {
		r := result{action: Unchanged, seq: before.Seq}
		if changed(i) {
			r.seq = seq
			switch {
			case p.values[i] == nil:
				r.gone = true
			case before.Seq == 0:
				r.action = Created
			default:
				r.action = Updated
			}
		}
		out.results = append(out.results, r)
	}
	return out
}

// fields returns errors of an edited object with their fields as the request's body has them.
func (e edit) fields(errs []spec.FieldError) []spec.FieldError {
	out := slices.Clone(errs)
	for i := range out {
		out[i].Field = e.at + out[i].Field
	}
	return out
}
