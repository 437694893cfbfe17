package registrytest

import (
	"encoding/json"
	"errors"
	"slices"
	"testing"
	"time"

	"sluice/registry"
)

func rolloutTests() []test {
	return []test{
		{"begin with their change", rolloutBegins},
		{"go on by compare-and-set", rolloutUpdates},
		{"keep the keys that stood before", rolloutKeepsKeys},
		{"are written by Commit alone", rolloutRefused},
	}
}

var pace = registry.RolloutSettings{Canary: 1, Share: 25, Soak: 5}

func (e *env) rollOut(t *testing.T, ops ...registry.Op) registry.Seq {
	t.Helper()
	done, err := e.One.Commit(e.ctx, registry.Tx{Ops: ops, Author: "tester", Reason: "why", Rollout: &pace})
	if err != nil {
		t.Fatal(err)
	}
	return done.Seq
}

// rollout returns the rollout of seq as a Snapshot has it.
func rollout(t *testing.T, s registry.Snapshot, seq registry.Seq) (registry.Rollout, bool) {
	t.Helper()
	for _, o := range s.Objects {
		if o.Ref() == registry.RolloutRef(seq) {
			r, err := registry.DecodeRollout(o.Value)
			if err != nil {
				t.Fatal(err)
			}
			return r, true
		}
	}
	return registry.Rollout{}, false
}

func rolloutBegins(t *testing.T, e *env) {
	e.commit(t, write(site("a"), `{"x":1}`), write(site("b"), `{"x":2}`), write(site("same"), `{}`))
	w := e.watch(t, e.Two)
	w.next(e.Settle)
	seq := e.rollOut(t, write(site("a"), `{"x":9}`), erase(site("b")), write(site("new"), `{}`), write(site("same"), `{}`))
	s := w.until(e.Settle, "the change", func(s registry.Snapshot) bool { return s.Seq == seq })
	r, ok := rollout(t, s, seq)
	if !ok {
		t.Fatalf("the change came without its rollout: %+v", s.Objects)
	}
	want := []registry.RolledOut{
		{Kind: registry.KindSite, Name: "a", Seq: seq, BeforeSeq: 1, Before: json.RawMessage(`{"x":1}`)},
		{Kind: registry.KindSite, Name: "b", Seq: seq, BeforeSeq: 1, Before: json.RawMessage(`{"x":2}`), Deleted: true},
		{Kind: registry.KindSite, Name: "new", Seq: seq},
	}
	same := func(a, b registry.RolledOut) bool {
		return a.Ref() == b.Ref() && a.Seq == b.Seq && a.BeforeSeq == b.BeforeSeq && string(a.Before) == string(b.Before) && a.Deleted == b.Deleted
	}
	if !slices.EqualFunc(r.Changes, want, same) {
		t.Errorf("changes: %+v, want %+v", r.Changes, want)
	}
	if r.Seq != seq || r.State != registry.RolloutRunning || r.Settings != pace || r.Author != "tester" || r.Reason != "why" || r.At.IsZero() {
		t.Errorf("rollout: %+v", r)
	}
	if done, err := e.One.Commit(e.ctx, registry.Tx{Ops: []registry.Op{write(site("a"), `{"x":9}`)}, Rollout: &pace}); err != nil || !done.Unchanged {
		t.Errorf("a change that changes nothing: %+v, %v", done, err)
	}
	page, err := e.One.List(e.ctx, registry.KindRollout, "", 0)
	if err != nil || len(page.Objects) != 1 || page.Objects[0].Seq != seq {
		t.Errorf("list: %+v, %v", page, err)
	}
}

func rolloutUpdates(t *testing.T, e *env) {
	seq := e.rollOut(t, write(site("a"), `{}`))
	w := e.watch(t, e.Two)
	w.next(e.Settle)
	errs := make(chan error)
	for _, name := range []string{"g1", "g2", "g3", "g4"} {
		go func() {
			errs <- e.One.UpdateRollout(e.ctx, seq, func(r *registry.Rollout) error {
				if r.Released == nil {
					r.Released = map[string]registry.Release{}
				}
				r.Released[name] = registry.Release{Group: "default", At: time.Now()}
				return nil
			})
		}()
	}
	for range 4 {
		if err := <-errs; err != nil {
			t.Error(err)
		}
	}
	s := w.until(e.Settle, "all four updates", func(s registry.Snapshot) bool {
		r, _ := rollout(t, s, seq)
		return len(r.Released) == 4
	})
	if s.Seq != seq {
		t.Errorf("the progress of a rollout moved the seq from %d to %d", seq, s.Seq)
	}
	no := errors.New("no")
	if err := e.One.UpdateRollout(e.ctx, seq, func(r *registry.Rollout) error { r.State = registry.RolloutDone; return no }); !errors.Is(err, no) {
		t.Errorf("an update that was called off returned %v", err)
	}
	if o := e.get(t, registry.RolloutRef(seq)); o.Seq != seq {
		t.Errorf("the object is at seq %d, want %d", o.Seq, seq)
	}
	if err := e.One.UpdateRollout(e.ctx, 99, func(*registry.Rollout) error { return nil }); !errors.Is(err, registry.ErrNotFound) {
		t.Errorf("update of what does not exist: %v", err)
	}
	for range 2 {
		if err := e.Two.DropRollout(e.ctx, seq); err != nil {
			t.Error(err)
		}
	}
	w.until(e.Settle, "no rollout", func(s registry.Snapshot) bool { _, ok := rollout(t, s, seq); return !ok })
}

func rolloutKeepsKeys(t *testing.T, e *env) {
	e.commit(t, write(site("a"), `{"x":1}`), write(secret("old"), `{"pem":"-"}`))
	seq := e.rollOut(t, write(site("a"), `{"x":2}`), erase(secret("old")), write(secret("new"), `{"pem":"+"}`))
	e.get(t, secret("old"))
	r, err := registry.DecodeRollout(e.get(t, registry.RolloutRef(seq)).Value)
	if err != nil || !slices.Equal(r.Keys, []string{"old"}) {
		t.Errorf("keys %v, %v", r.Keys, err)
	}
	for _, c := range r.Changes {
		if c.Kind == registry.KindSecret && c.Before != nil {
			t.Errorf("the rollout holds a secret: %+v", c)
		}
	}
}

func rolloutRefused(t *testing.T, e *env) {
	if _, err := e.One.Commit(e.ctx, registry.Tx{Ops: []registry.Op{write(registry.RolloutRef(7), `{"seq":7}`)}}); err == nil {
		t.Error("Commit took a rollout as an object")
	}
	o := registry.Object{Kind: registry.KindRollout, Name: "x", Value: json.RawMessage(`{}`)}
	if err := e.One.Hold(e.ctx, o, time.Minute); err == nil {
		t.Error("Hold took a rollout")
	}
}
