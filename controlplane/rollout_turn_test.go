package controlplane

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"sluice/registry"
)

// rollOut changes an object as Commit does for a change that is rolled out.
func (w *world) rollOut(t *testing.T, kind registry.Kind, name, value string) registry.Seq {
	t.Helper()
	c := registry.RolledOut{Kind: kind, Name: name, Deleted: value == ""}
	for _, o := range w.snapshot.Objects {
		if o.Kind == kind && o.Name == name {
			c.BeforeSeq, c.Before = o.Seq, o.Value
		}
	}
	w.put(kind, name, value)
	c.Seq = w.snapshot.Seq
	w.setRollout(t, registry.Rollout{Seq: c.Seq, State: registry.RolloutRunning, Settings: DefaultRolloutSettings(), Changes: []registry.RolledOut{c}})
	return c.Seq
}

func (w *world) setRollout(t *testing.T, r registry.Rollout) {
	t.Helper()
	value, err := registry.MarshalJSON(r)
	if err != nil {
		t.Fatal(err)
	}
	o := registry.Object{Kind: registry.KindRollout, Name: registry.RolloutRef(r.Seq).Name, Seq: r.Seq, Value: value}
	w.snapshot.Objects = append(slices.DeleteFunc(slices.Clone(w.snapshot.Objects), func(have registry.Object) bool { return have.Ref() == o.Ref() }), o)
}

// change changes the rollout of seq in the Snapshot.
func (w *world) change(t *testing.T, seq registry.Seq, change func(*registry.Rollout)) *world {
	t.Helper()
	for _, r := range ActiveRollouts(w.snapshot.Objects) {
		if r.Seq == seq {
			change(&r)
			w.setRollout(t, r)
			return w
		}
	}
	t.Fatalf("no rollout of seq %d", seq)
	return w
}

func (r *rig) settle() {
	time.Sleep(5 * time.Second)
	synctest.Wait()
}

func TestGatewayWaitsForItsWave(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, "")
		defer r.stop()
		w := newWorld().nodes(2)
		r.send(w.snapshot)
		r.settle()
		first := r.phase(InStep)

		seq := w.rollOut(t, registry.KindSite, "chat", `{"hosts": ["new.example"], "listeners": [{"port": 8080}], "routes": [{"upstream": "io"}]}`)
		r.send(w.snapshot)
		r.settle()
		s := r.phase(InStep)
		if s.RevisionLive != first.RevisionLive || s.SeqLive != seq-1 || s.SeqWanted != seq || s.Rollout == nil || *s.Rollout != (RolloutPart{Seq: seq, State: PartWaits}) {
			t.Fatalf("it does not wait: %+v, %+v", s, s.Rollout)
		}
		r.send(w.nodes(3).snapshot) // never gated
		r.settle()
		if s = r.phase(InStep); s.Nodes != 3 || s.RevisionLive == first.RevisionLive || s.SeqLive != seq-1 {
			t.Errorf("a node was held up: %+v", s)
		}
		w.put(registry.KindOverride, "io/n000", `{"state": "disabled"}`)
		r.send(w.snapshot)
		r.settle()
		if s = r.phase(InStep); s.Nodes != 2 || s.SeqLive != seq-1 {
			t.Errorf("an override was held up: %+v", s)
		}
		r.send(w.change(t, seq, func(o *registry.Rollout) { o.Released = map[string]registry.Release{"edge-1": {Group: "default"}} }).snapshot)
		r.settle()
		if s = r.phase(InStep); s.SeqLive != w.snapshot.Seq || s.Rollout == nil || s.Rollout.State != PartLive {
			t.Errorf("its turn has come: %+v, %+v", s, s.Rollout)
		}
		r.send(w.change(t, seq, func(o *registry.Rollout) { o.State = registry.RolloutReverting }).snapshot)
		r.settle()
		if s = r.phase(InStep); s.SeqLive != seq-1 || s.Rollout.State != PartWaits {
			t.Errorf("it was taken back: %+v, %+v", s, s.Rollout)
		}
	})
}

// What does not touch a gateway is live there at once.
func TestRolloutThatDoesNotConcernAGateway(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, "")
		defer r.stop()
		w := newWorld().nodes(2)
		w.rollOut(t, registry.KindUpstream, "unused", `{}`)
		r.send(w.snapshot)
		r.settle()
		if s := r.phase(InStep); s.SeqLive != w.snapshot.Seq || s.Rollout != nil {
			t.Errorf("%+v, %+v", s, s.Rollout)
		}
	})
}

// A gateway says that it refuses a change: in nginx's words, also when the rest goes live without it, and when Compile has a
// problem that it had not before.
func TestGatewayRefusesARollout(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name, kind, object, value string
		nginx                     error
		want                      string
	}{
		{"nginx", "site", "chat", `{"hosts": ["new.example"], "listeners": [{"port": 8080}], "routes": [{"upstream": "io"}]}`, errRefused, "bogus"},
		{"nginx, without naming an object", "site", "chat", `{"hosts": ["new.example"], "listeners": [{"port": 8080}], "routes": [{"upstream": "io"}]}`,
			errors.New("nginx: no space left"), "no space left"},
		{"compile", "site", "other", `{"hosts": ["a.example"], "listeners": [{"port": 8080}], "routes": [{"upstream": "nowhere"}]}`, nil, `upstream "nowhere" does not exist`},
	}
	for _, tc := range tests {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				r := newRig(t, "")
				defer r.stop()
				w := newWorld().nodes(2)
				r.send(w.snapshot)
				r.settle()
				r.applier.set(func(a *fakeApplier) {
					a.judge = func(conf string) error {
						if tc.nginx != nil && strings.Contains(conf, "new.example") {
							return tc.nginx
						}
						return nil
					}
				})
				seq := w.rollOut(t, registry.Kind(tc.kind), tc.object, tc.value)
				r.send(w.snapshot)
				r.settle()
				if s := r.Status(t.Context()); s.Rollout == nil || s.Rollout.State != PartWaits {
					t.Fatalf("it does not wait: %+v", s.Rollout)
				}
				r.send(w.change(t, seq, func(o *registry.Rollout) { o.Released = map[string]registry.Release{"edge-1": {Group: "default"}} }).snapshot)
				r.settle()
				if s := r.Status(t.Context()); s.Rollout == nil || s.Rollout.State != PartRefused || !strings.Contains(s.Rollout.Message, tc.want) {
					t.Errorf("part %+v, problems %v, failure %+v", s.Rollout, s.Problems, s.Failure)
				}
			})
		})
	}
}

// The table of ip_hash only grows while gateways disagree about an upstream, whoever writes it.
func TestSlotsDuringARollout(t *testing.T) {
	t.Parallel()
	table := []registry.Slot{{Node: "old", Weight: 1}, {Node: "gone", Weight: 1, Absent: 1}}
	next := grow(grow(table, []Slotted{{Node: "new", Weight: 2}}), []Slotted{{Node: "old", Weight: 5}})
	want := []registry.Slot{{Node: "old", Weight: 1}, {Node: "gone", Weight: 1, Absent: 1}, {Node: "new", Weight: 2}}
	if !slices.Equal(next, want) {
		t.Errorf("%+v", next)
	}
}
