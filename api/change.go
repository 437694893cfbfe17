package api

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"

	"sluice/controlplane"
	"sluice/controlplane/spec"
	"sluice/registry"
)

// edit is a wish to write or delete one object.
type edit struct {
	registry.Ref
	object object          // nil deletes, unless there is a patch
	patch  json.RawMessage // a merge patch on what is stored
	raw    json.RawMessage // what is to be stored, to the byte
	undoes *registry.ObjectChanged
	at     string // JSON pointer of the object in the request's body
	when   precondition
	seq    *registry.Seq // when set, the plan holds for this version alone
}

// change is a set of edits that are made as one.
type change struct {
	edits  []edit
	reason string
	dryRun bool
	wait   string // as in the request
	owner  string // of all objects that are written; empty when that is left to them
	prune  bool   // delete what the owner has besides
}

// outcome is what became of a change.
type outcome struct {
	seq     registry.Seq
	dryRun  bool
	preview *Preview         // of a dry run; nil where nothing could be told
	results []result         // in the order of the edits
	waited  []GatewayOutcome // nil when nobody waited
}

type result struct {
	registry.Ref
	action      ChangeAction
	seq         registry.Seq // of the object now; zero when there is none
	differences []Difference // of a dry run
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
	limit, err := parseWait(c.wait)
	if err != nil {
		return outcome{}, err
	}
	w, err := s.newWaiter(ctx, limit)
	if err != nil {
		return outcome{}, err
	}
	for range maxAttempts {
		out, err := s.tryChange(ctx, c)
		if errors.Is(err, errAgain) {
			continue
		}
		if err == nil && w != nil && !c.dryRun {
			out.waited = w.wait(ctx, out.seq, out.refs())
		}
		return out, err
	}
	return outcome{}, newProblem(http.StatusConflict, "others kept changing the same objects: try again")
}

func (s *Server) tryChange(ctx context.Context, c change) (outcome, error) {
	p, err := s.plan(ctx, c)
	if err != nil {
		return outcome{}, err
	}
	pace, err := s.paceOf(ctx, p)
	if err != nil {
		return outcome{}, err
	}
	var trial *controlplane.Trial
	tx := registry.Tx{Ops: p.ops, Author: author(ctx), Reason: withoutTokens(c.reason), Rollout: pace, Check: func(ctx context.Context, after registry.View) error {
		if err := s.check(ctx, p, after); err != nil {
			return err
		}
		if trial, err = s.try(ctx, p); err != nil {
			return err
		}
		if c.dryRun {
			return errDryRun
		}
		return nil
	}}
	done, err := s.registry.Commit(ctx, tx)
	if errors.Is(err, errDryRun) {
		out := p.outcome(p.seq, p.wouldChange)
		out.preview, err = s.preview(ctx, p, trial)
		return out, err
	}
	if conflict, ok := errors.AsType[*registry.ConflictError](err); ok && !p.demanded[conflict.Ref] {
		return outcome{}, errAgain
	}
	if err != nil {
		return outcome{}, s.fault(err)
	}
	if !done.Unchanged {
		noteChange(ctx, done.Seq, done.Changed)
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
	pruned, err := s.pruned(ctx, c)
	if err != nil {
		return p, err
	}
	p.edits = slices.Concat(c.edits, pruned)
	keys := newKeys()
	find := s.finder(p.edits)
	for i := range p.edits {
		e := &p.edits[i]
		before, seq, err := find(ctx, e.Ref)
		if err != nil {
			return p, err
		}
		p.seq = seq
		if err := c.checkOwner(before); err != nil {
			return p, err
		}
		if err := e.checkUndone(before); err != nil {
			return p, err
		}
		op := registry.Op{Ref: e.Ref, IfSeq: e.seq}
		if op.Value, err = e.value(before, keys); err != nil {
			return p, err
		}
		if e.onBefore() && op.IfSeq == nil {
			op.IfSeq = &before.Seq
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

// onBefore reports whether what is written was made from the version before, and holds for that one alone: the patch of
// an object, what undoes a change, and what becomes of a certificate's key.
func (e edit) onBefore() bool {
	return e.patch != nil || e.undoes != nil || e.Kind == registry.KindCertificate
}

// value returns what is to be stored in place of before; nil to delete it. It sets e.object to what that means.
func (e *edit) value(before registry.Object, k keys) (json.RawMessage, error) {
	stored := before.Value
	var err error
	switch {
	case e.raw != nil:
		if e.object, err = kinds[e.Kind].decode(e.raw); err != nil {
			return nil, problemf(http.StatusConflict, "%s cannot be decoded as it was", e.Ref)
		}
		if e.Kind == registry.KindCertificate {
			k.split(e.object, before)
		}
		return e.raw, invalid(e.fields(e.object.Validate()))
	case e.patch != nil:
		if stored, err = e.patched(before); err != nil {
			return nil, err
		}
	}
	written := e.object
	if e.Kind == registry.KindCertificate {
		written = k.split(e.object, before)
	}
	if written == nil {
		return nil, nil
	}
	value, err := registry.MarshalJSON(written)
	if err != nil {
		return nil, fmt.Errorf("encode %s: %w", e.Ref, err)
	}
	if before.Seq > 0 {
		value = kinds[e.Kind].keep(stored, value)
	}
	return value, nil
}

// patched returns what the patch makes of before, and sets e.object to that.
func (e *edit) patched(before registry.Object) (json.RawMessage, error) {
	stored := before.Value
	if before.Seq == 0 {
		if e.Kind != registry.KindOverride {
			return nil, problemf(http.StatusNotFound, "%s does not exist: create it with PUT", e.Ref)
		}
		stored = json.RawMessage("{}") // a node without an override has one without fields
	}
	patch := e.patch
	if e.Kind == registry.KindCertificate {
		patch = patchOfKey(patch)
	}
	merged, err := spec.MergePatch(stored, patch)
	if err != nil {
		return nil, problemf(http.StatusConflict, "%s cannot be decoded: write it anew with PUT, or delete it", e.Ref)
	}
	if e.object, err = kinds[e.Kind].decode(merged); err != nil {
		return nil, problemf(http.StatusConflict, "%s cannot be decoded: write it anew with PUT, or delete it", e.Ref)
	}
	return merged, invalid(e.object.Validate())
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

// manyOfKind is from how many objects of a kind on all of the kind is read at once, instead of one after the other.
const manyOfKind = 5

// finder returns find for the objects of edits.
func (s *Server) finder(edits []edit) func(context.Context, registry.Ref) (registry.Object, registry.Seq, error) {
	count := map[registry.Kind]int{}
	for _, e := range edits {
		count[e.Kind]++
	}
	type list struct {
		objects map[string]registry.Object
		seq     registry.Seq
	}
	lists := map[registry.Kind]list{}
	return func(ctx context.Context, ref registry.Ref) (registry.Object, registry.Seq, error) {
		if count[ref.Kind] < manyOfKind {
			return s.find(ctx, ref)
		}
		l, ok := lists[ref.Kind]
		if !ok {
			page, err := s.registry.List(ctx, ref.Kind, "", 0)
			if err != nil {
				return registry.Object{}, 0, s.fault(err)
			}
			l = list{make(map[string]registry.Object, len(page.Objects)), page.Seq}
			for _, o := range page.Objects {
				l.objects[o.Name] = o
			}
			lists[ref.Kind] = l
		}
		return l.objects[ref.Name], l.seq, nil
	}
}

func (p plan) wouldChange(i int) bool {
	exists := p.before[i].Seq > 0
	if p.values[i] == nil {
		return exists
	}
	return !exists || !registry.SameJSON(p.before[i].Value, p.values[i])
}

func (p plan) outcome(seq registry.Seq, changed func(i int) bool) outcome {
	out := outcome{seq: seq, dryRun: p.dryRun}
	for i, before := range p.before {
		r := result{Ref: p.edits[i].Ref, action: Unchanged, seq: before.Seq}
		if changed(i) {
			r.action, r.seq = p.action(i), seq
			if r.action == Deleted {
				r.seq = 0
			}
			if p.dryRun {
				r.seq = before.Seq
				if !r.Kind.Confidential() {
					r.differences = differences(before.Value, p.values[i])
				}
			}
		}
		out.results = append(out.results, r)
	}
	return out
}

// refs are the objects that were really changed.
func (o outcome) refs() []registry.Ref {
	var out []registry.Ref
	for _, r := range o.results {
		if r.action != Unchanged {
			out = append(out, r.Ref)
		}
	}
	return out
}

func (p plan) action(i int) ChangeAction {
	switch {
	case p.values[i] == nil:
		return Deleted
	case p.before[i].Seq == 0:
		return Created
	default:
		return Updated
	}
}

// fields returns errors of an edited object with their fields as the request's body has them.
func (e edit) fields(errs []spec.FieldError) []spec.FieldError {
	out := slices.Clone(errs)
	for i := range out {
		out[i].Field = e.at + out[i].Field
	}
	return out
}
