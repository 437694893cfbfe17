package api

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"regexp"
	"slices"
	"time"

	"sluice/controlplane"
	"sluice/controlplane/spec"
	"sluice/registry"
)

const (
	restorePath = "/v1/restore"
	// maxRestore is an export, and its keys twice: sealed and opened.
	maxRestore = 2 * maxAnswer
	// restoreTime is for the body and for all transactions: of 10,000 objects they take seconds.
	restoreTime = 2 * time.Minute
)

// Restore implements StrictServerInterface.
func (s *Server) Restore(ctx context.Context, r RestoreRequestObject) (RestoreResponseObject, error) {
	e, params := *r.Body, r.Params
	limit, err := parseWait(params.Wait)
	if err != nil {
		return nil, err
	}
	edits, err := e.edits()
	if err != nil {
		return nil, err
	}
	w, err := s.newWaiter(ctx, limit)
	if err != nil {
		return nil, err
	}
	is, err := s.state(ctx)
	if err != nil {
		return nil, err
	}
	c := change{reason: params.XChangeReason, dryRun: params.DryRun}
	c.reasonOr(fmt.Sprintf("restore of the export of seq %d, %s", e.Seq, e.At.UTC().Format(time.RFC3339)))
	p, err := is.planRestore(c, e, edits, params.Replace, params.Tokens)
	if err != nil {
		return nil, err
	}
	if err := s.checkRestore(ctx, is, p); err != nil {
		return nil, err
	}
	trial, err := s.try(ctx, p.plan)
	if err != nil {
		return nil, err
	}
	out := p.outcome(p.seq, p.wouldChange)
	if p.dryRun {
		if out.preview, err = s.preview(ctx, p.plan, trial); err != nil {
			return nil, err
		}
		return out.answer(), nil
	}
	if err := s.restoreSlots(ctx, e, is); err != nil {
		return nil, err
	}
	at, err := s.carryOut(ctx, p)
	if err != nil {
		return nil, err
	}
	for i, r := range out.results {
		out.seq = max(out.seq, at[r.Ref])
		if r.action == Created || r.action == Updated {
			out.results[i].seq = at[r.Ref]
		}
	}
	if w != nil {
		out.waited = w.wait(ctx, out.seq, out.refs())
	}
	return out.answer(), nil
}

// edits returns the edits that write what e holds, those first that others name, or what is wrong with e.
func (e Export) edits() ([]edit, error) {
	if err := e.checkWhole(); err != nil {
		return nil, err
	}
	var out []edit
	var errs []spec.FieldError
	objects := e.State.maps()
	for _, kind := range registry.DesiredKinds() {
		if objects[kind] == nil { // secrets
			continue
		}
		for _, name := range slices.Sorted(maps.Keys(*objects[kind])) {
			written := edit{Ref: registry.Ref{Kind: kind, Name: name}, raw: (*objects[kind])[name], at: "/state/" + string(kind) + "s/" + escapePointer(name)}
			var err error
			if written.object, err = decodeStored(kind, written.raw); err != nil {
				errs = append(errs, spec.FieldError{Field: written.at, Message: "is not " + string(kind) + " that this version can read"})
			}
			out = append(out, written)
		}
	}
	if len(errs) == 0 {
		errs = append(checkExported(out), checkSlots(e.Slots)...)
	}
	return out, invalid(errs)
}

// checkWhole returns whether e is an export that this version knows, as it was written.
func (e Export) checkWhole() error {
	wrong := func(field, format string, args ...any) error {
		return invalid([]spec.FieldError{{Field: field, Message: fmt.Sprintf(format, args...)}})
	}
	if e.Format != ExportFormat {
		return wrong("/format", "is %d, and this version of sluice restores %d: restore it with the version that wrote it, or with a later one", e.Format, ExportFormat)
	}
	if e.Checksum != "" {
		sum, err := e.digest()
		if err != nil {
			return err
		}
		if sum != e.Checksum {
			return wrong("/checksum", "the export is damaged, or was changed: take another copy, or leave checksum out to restore it as it is")
		}
	}
	for _, hash := range slices.Sorted(maps.Keys(e.Keys)) {
		if spec.KeyHash(e.Keys[hash]) != hash {
			return wrong("/keys/"+escapePointer(hash), "is not the key of this name: open it again with sluice restore --key-file")
		}
	}
	return nil
}

// decodeStored decodes an object of the registry.
func decodeStored(kind registry.Kind, value json.RawMessage) (object, error) {
	var fields map[string]json.RawMessage
	if err := json.Unmarshal(value, &fields); err != nil || fields == nil { // null
		return nil, errors.New("not an object")
	}
	if kind == registry.KindToken {
		return spec.Decode[spec.Token](value)
	}
	return kinds[kind].decode(value)
}

// checkExported returns what is wrong with the state that edits make where there is nothing else.
func checkExported(edits []edit) []spec.FieldError {
	doc := spec.Document{
		Upstreams: map[string]spec.Upstream{}, Sites: map[string]spec.Site{},
		Certificates: map[string]spec.Certificate{}, Overrides: map[string]spec.Override{},
	}
	var errs []spec.FieldError
	for _, e := range edits {
		switch object := e.object.(type) {
		case spec.Upstream:
			doc.Upstreams[e.Name] = object
		case spec.Site:
			doc.Sites[e.Name] = object
		case spec.Override:
			doc.Overrides[e.Name] = object
		case spec.Certificate:
			doc.Certificates[e.Name] = object
			if object.Key != "" { // it would be stored, and shown, as it is
				errs = append(errs, spec.FieldError{Field: e.at + "/key", Message: "does not belong here: put it into /keys, by its SHA-256"})
			}
		case spec.Token:
			errs = append(errs, e.fields(slices.Concat(spec.CheckName(e.Name), object.Validate()))...)
			if object.Hash == "" {
				errs = append(errs, spec.FieldError{Field: e.at + "/hash", Message: "is missing: a token is known by nothing else"})
			}
		default:
			errs = append(errs, e.fields(slices.Concat(spec.CheckName(e.Name), object.Validate()))...)
		}
	}
	return append(errs, edit{at: "/state"}.fields(doc.Validate())...)
}

var nodeKey = regexp.MustCompile(`^[0-9a-f]{10}$`)

func checkSlots(tables map[string][]registry.Slot) []spec.FieldError {
	var errs []spec.FieldError
	for _, upstream := range slices.Sorted(maps.Keys(tables)) {
		bad := slices.ContainsFunc(tables[upstream], func(s registry.Slot) bool { return !nodeKey.MatchString(s.Node) || s.Weight < 1 })
		if bad || !spec.ValidName(upstream) {
			errs = append(errs, spec.FieldError{Field: "/slots/" + escapePointer(upstream), Message: "are not the slots of an upstream: leave them out, and its nodes get new ones"})
		}
	}
	return errs
}

// restorePlan is a plan that may take several transactions.
type restorePlan struct {
	plan
	steps []registry.Op // what changes, in an order in which objects are there before others name them, and gone after
}

// planRestore returns what has to be done so that is becomes e, whose objects edits write.
func (is state) planRestore(c change, e Export, edits []edit, replace, tokens bool) (restorePlan, error) {
	p := restorePlan{plan: plan{change: c, seq: is.seq}}
	named, needed := map[registry.Ref]bool{}, map[string]bool{}
	var keyOps []registry.Op
	var errs []spec.FieldError
	for _, written := range edits {
		if written.Kind == registry.KindToken && (!tokens || is.objects[written.Ref].Seq > 0) {
			continue
		}
		named[written.Ref] = true
		p.add(written, is.objects[written.Ref])
		cert, ok := written.object.(spec.Certificate)
		if !ok || cert.KeySHA256 == "" || needed[cert.KeySHA256] {
			continue
		}
		needed[cert.KeySHA256] = true
		op, fault := is.keyOp(e, cert)
		if fault != "" {
			errs = append(errs, spec.FieldError{Field: written.at + "/keySHA256", Message: fault})
		}
		if op.Value != nil {
			keyOps = append(keyOps, op)
		}
	}
	if err := invalid(errs); err != nil {
		return p, err
	}
	for _, kind := range slices.Backward(registry.DesiredKinds()) {
		for _, o := range is.of(kind) {
			if _, ok := kinds[kind]; ok && !named[o.Ref()] {
				p.add(edit{Ref: o.Ref()}, o)
			}
		}
	}
	if err := p.checkReplaces(replace); err != nil {
		return p, err
	}
	p.steps = keyOps
	for i, op := range p.ops {
		if p.wouldChange(i) {
			p.steps = append(p.steps, op)
		}
	}
	p.ops = append(p.ops, keyOps...)
	for _, o := range is.of(registry.KindSecret) {
		if replace && !needed[o.Name] {
			p.steps = append(p.steps, registry.Op{Ref: o.Ref()})
		}
	}
	return p, nil
}

func (p *restorePlan) add(e edit, before registry.Object) {
	p.edits, p.before, p.values = append(p.edits, e), append(p.before, before), append(p.values, e.raw)
	p.ops = append(p.ops, registry.Op{Ref: e.Ref, Value: e.raw})
}

// checkReplaces refuses to change or delete what is there, unless that is meant.
func (p *restorePlan) checkReplaces(meant bool) error {
	var differs []string
	for i, o := range p.before {
		if o.Seq > 0 && p.wouldChange(i) {
			differs = append(differs, o.Ref().String())
		}
	}
	if meant || len(differs) == 0 {
		return nil
	}
	problem := problemf(http.StatusConflict, "the state is not empty, and of its objects %d are not as in the export, first %s: with ?replace=true "+
		"(sluice restore --replace) they are replaced or deleted; a dry run shows them", len(differs), differs[0])
	problem.Object = differs[0]
	return problem
}

// keyOp returns the operation that stores the key of a certificate, which has no value where it is stored, or why there is no key.
func (is state) keyOp(e Export, cert spec.Certificate) (op registry.Op, fault string) {
	op.Ref = secretRef(cert.KeySHA256)
	if o, ok := is.objects[op.Ref]; ok {
		return op, misfit(cert.Chain, o)
	}
	pem, ok := e.Keys[cert.KeySHA256]
	if !ok {
		return op, "its key is neither stored nor in keys: sluice restore --key-file opens those of an export that has them; else write the certificate with its key first"
	}
	if err := spec.CheckKey(cert.Chain, pem); err != nil {
		return op, err.Error()
	}
	var err error
	if op.Value, err = json.Marshal(controlplane.Secret{PEM: pem}); err != nil {
		return op, err.Error()
	}
	return op, ""
}

// checkRestore refuses what would fail after a part of it is done, and what a rollout that is under way could undo again.
func (s *Server) checkRestore(ctx context.Context, is state, p restorePlan) error {
	for _, op := range p.steps {
		_, err := registry.NewPlan(registry.Tx{Ops: []registry.Op{op}, Author: author(ctx), Reason: p.reason}, is.seq, is.objects, time.Now())
		if e, ok := errors.AsType[*registry.TooLargeError](err); ok {
			problem := problemf(http.StatusRequestEntityTooLarge, "%s alone is too large: %s", op.Ref, e)
			problem.Object = op.String()
			return problem
		}
	}
	if len(p.steps) == 0 {
		return nil
	}
	page, err := s.registry.List(ctx, registry.KindRollout, "", 0)
	if err != nil {
		return s.fault(err)
	}
	if active := controlplane.ActiveRollouts(page.Objects); len(active) > 0 {
		return problemf(http.StatusConflict, "the rollout of seq %d is under way: wait for its end, promote it, or abort it (sluice rollout)", active[0].Seq)
	}
	return nil
}

// restoreSlots writes the tables that are missing, before the objects: a gateway that finds an ip_hash upstream without one
// gives its nodes new positions.
func (s *Server) restoreSlots(ctx context.Context, e Export, is state) error {
	for _, t := range is.slots {
		delete(e.Slots, t.Upstream)
	}
	for _, upstream := range slices.Sorted(maps.Keys(e.Slots)) {
		err := s.registry.PutSlots(ctx, registry.SlotTable{Upstream: upstream, Slots: e.Slots[upstream]})
		if _, there := errors.AsType[*registry.ConflictError](err); err != nil && !there {
			return s.fault(err)
		}
	}
	return nil
}

// carryOut commits the steps in as few transactions as take them, and returns the Seq of each. Every one demands that nobody
// else committed anything since the state was read, so what was checked holds until the end.
func (s *Server) carryOut(ctx context.Context, p restorePlan) (map[registry.Ref]registry.Seq, error) {
	done := map[registry.Ref]registry.Seq{}
	head, most := p.seq, registry.MaxTxObjects
	for left := p.steps; len(left) > 0; {
		n := min(most, len(left))
		tx := registry.Tx{Ops: left[:n], Author: author(ctx), Reason: withoutTokens(p.reason), Head: &head}
		committed, err := s.registry.Commit(ctx, tx)
		if _, ok := errors.AsType[*registry.TooLargeError](err); ok && n > 1 {
			most = n / 2
			continue
		}
		if err != nil {
			return nil, s.interrupted(err, len(done), len(p.steps))
		}
		noteChange(ctx, committed.Seq, committed.Changed)
		s.log.Info("desired state changed", "seq", committed.Seq, "author", tx.Author, "reason", tx.Reason, "objects", names(committed.Changed))
		for _, ref := range committed.Changed {
			done[ref] = committed.Seq
		}
		head, most, left = committed.Seq, registry.MaxTxObjects, left[n:]
	}
	return done, nil
}

// interrupted says how far a restore came.
func (s *Server) interrupted(err error, done, of int) error {
	if _, ok := errors.AsType[*registry.ConflictError](err); ok {
		return problemf(http.StatusConflict, "somebody else changed the desired state while it was restored; %d of %d objects are done: restore it again to go on", done, of)
	}
	p, internal := asProblem(s.fault(err))
	if internal {
		s.log.Error("a restore was interrupted", "done", done, "of", of, "error", err)
	}
	return problemf(p.Status, "%d of %d objects are done; restore it again to go on. What came in between: %s", done, of, p.Detail)
}
