package controlplane

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"sluice/registry"
)

var noon = time.Date(2026, 1, 2, 12, 0, 0, 0, time.UTC)

// crewOf builds reports: "g1 waits", "g1 live", "g1 applying", "g1 refused", "g1 unseen", "g1 seen", "g1 old"; a group
// stands before a slash: "b/g3 waits".
func crewOf(seq registry.Seq, words ...string) []Status {
	var fleet []Status
	for _, w := range words {
		name, state, _ := strings.Cut(w, " ")
		s := Status{Gateway: name, Group: "a", Phase: InStep, SeqWanted: seq, SeqLive: seq, Nginx: Live{Running: true}}
		if group, rest, ok := strings.Cut(name, "/"); ok {
			s.Group, s.Gateway = group, rest
		}
		part := &RolloutPart{Seq: seq, State: PartState(state)}
		switch state {
		case "waits", "applying":
			s.Rollout, s.SeqLive = part, seq-1
		case "refused":
			part.Message = "nginx says no"
			s.Rollout, s.SeqLive, s.Phase = part, seq-1, Failed
		case "live":
			s.Rollout = part
		case "died":
			part.State = PartLive
			s.Rollout, s.Nginx.Running = part, false
		case "unseen":
			s.SeqWanted, s.SeqLive = seq-1, seq-1
		case "failed":
			s.Phase, s.SeqLive = Failed, seq-1
		}
		fleet = append(fleet, s)
	}
	return fleet
}

func released(r registry.Rollout) string {
	return strings.Join(slices.Sorted(maps.Keys(r.Released)), " ")
}

func TestStepRollout(t *testing.T) {
	t.Parallel()
	const seq = 7
	base := registry.Rollout{Seq: seq, State: registry.RolloutRunning, Settings: registry.RolloutSettings{Canary: 1, Share: 50, Soak: 5}}
	with := func(change func(*registry.Rollout)) registry.Rollout {
		r := base
		change(&r)
		return r
	}
	have := func(names ...string) map[string]registry.Release {
		m := map[string]registry.Release{}
		for _, n := range names {
			group, name, ok := strings.Cut(n, "/")
			if !ok {
				group, name = "a", n
			}
			m[name] = registry.Release{Group: group}
		}
		return m
	}
	tests := []struct {
		name     string
		rollout  registry.Rollout
		fleet    []string
		state    registry.RolloutState
		released string
		ready    bool
		message  string
	}{
		{name: "nobody has seen it", rollout: base, fleet: []string{"g1 unseen", "g2 unseen"}, state: registry.RolloutRunning},
		{name: "one of each group is first", rollout: base, fleet: []string{"g2 waits", "g1 waits", "b/g3 waits", "b/g4 waits"}, state: registry.RolloutRunning, released: "g1 g3"},
		{name: "a group that is late has its first as well", rollout: with(func(r *registry.Rollout) { r.Released = have("g1") }),
			fleet: []string{"g1 applying", "g2 waits", "b/g3 waits"}, state: registry.RolloutRunning, released: "g1 g3"},
		{name: "it concerns nobody", rollout: base, fleet: []string{"g1 seen", "g2 seen"}, state: registry.RolloutDone},
		{name: "the first is not ready", rollout: with(func(r *registry.Rollout) { r.Released = have("g1") }),
			fleet: []string{"g1 applying", "g2 waits"}, state: registry.RolloutRunning, released: "g1"},
		{name: "the first is ready", rollout: with(func(r *registry.Rollout) { r.Released = have("g1") }),
			fleet: []string{"g1 live", "g2 waits"}, state: registry.RolloutRunning, released: "g1", ready: true},
		{name: "it soaks", rollout: with(func(r *registry.Rollout) { r.Released, r.Ready = have("g1"), noon.Add(-4*time.Second) }),
			fleet: []string{"g1 live", "g2 waits"}, state: registry.RolloutRunning, released: "g1", ready: true},
		{name: "the next wave is a share of the group", rollout: with(func(r *registry.Rollout) { r.Released, r.Ready = have("g1"), noon.Add(-5*time.Second) }),
			fleet: []string{"g1 live", "g2 waits", "g3 waits", "g4 waits"}, state: registry.RolloutRunning, released: "g1 g2 g3"},
		{name: "a paused one releases nobody", rollout: with(func(r *registry.Rollout) {
			r.State, r.Released, r.Ready = registry.RolloutPaused, have("g1"), noon.Add(-time.Hour)
		}), fleet: []string{"g1 live", "g2 waits"}, state: registry.RolloutPaused, released: "g1", ready: true},
		{name: "a paused one is taken back when a gateway refuses it", rollout: with(func(r *registry.Rollout) { r.State, r.Released = registry.RolloutPaused, have("g1") }),
			fleet: []string{"g1 refused", "g2 waits"}, state: registry.RolloutReverting, released: "g1", message: "gateway g1: nginx says no"},
		{name: "refused", rollout: with(func(r *registry.Rollout) { r.Released = have("g1") }),
			fleet: []string{"g1 refused", "g2 waits"}, state: registry.RolloutReverting, released: "g1", message: "gateway g1: nginx says no"},
		{name: "a gateway that is gone is left out", rollout: with(func(r *registry.Rollout) { r.Released = have("g1") }),
			fleet: []string{"g2 waits"}, state: registry.RolloutRunning, released: "g1", ready: true},
		{name: "all have it", rollout: with(func(r *registry.Rollout) { r.Released = have("g1", "g2") }),
			fleet: []string{"g1 live", "g2 live", "g3 seen"}, state: registry.RolloutDone, released: "g1 g2"},
		{name: "one has not seen it", rollout: with(func(r *registry.Rollout) { r.Released = have("g1") }),
			fleet: []string{"g1 live", "g2 unseen"}, state: registry.RolloutRunning, released: "g1"},
		{name: "one that fails for reasons of its own is not waited for", rollout: with(func(r *registry.Rollout) { r.Released = have("g1") }),
			fleet: []string{"g1 live", "g2 failed"}, state: registry.RolloutDone, released: "g1"},
		{name: "a doubt is no reason yet", rollout: with(func(r *registry.Rollout) { r.Released, r.Ready = have("g1"), noon.Add(-time.Hour) }),
			fleet: []string{"g1 died", "g2 waits"}, state: registry.RolloutRunning, released: "g1"},
		{name: "a doubt that stays is one", rollout: with(func(r *registry.Rollout) {
			r.Released, r.Doubt = have("g1"), &registry.Doubt{Gateway: "g1", Since: noon.Add(-doubtFor)}
		}), fleet: []string{"g1 died", "g2 waits"}, state: registry.RolloutReverting, released: "g1", message: "gateway g1: nginx does not run any more"},
		{name: "what has ended stays", rollout: with(func(r *registry.Rollout) { r.State = registry.RolloutPromoted }),
			fleet: []string{"g1 refused"}, state: registry.RolloutPromoted},
	}
	for _, tc := range tests {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			before := tc.rollout
			before.Released = maps.Clone(tc.rollout.Released)
			got := StepRollout(tc.rollout, crewOf(seq, tc.fleet...), noon)
			if got.State != tc.state || released(got) != tc.released || got.Ready.IsZero() == tc.ready || got.Message != tc.message {
				t.Errorf("%s, released %q, ready %v, %q", got.State, released(got), got.Ready, got.Message)
			}
			if diff := cmp.Diff(before, tc.rollout); diff != "" {
				t.Errorf("the argument was changed: %s", diff)
			}
			if again := StepRollout(got, crewOf(seq, tc.fleet...), noon); !cmp.Equal(got, again) && tc.state != registry.RolloutRunning {
				t.Errorf("a second step at the same moment changed it: %s", cmp.Diff(got, again))
			}
		})
	}
}

// A whole fleet goes through, whoever of it dies on the way.
func TestRolloutReachesAll(t *testing.T) {
	t.Parallel()
	for n := 1; n <= 12; n++ {
		r := registry.Rollout{Seq: 3, State: registry.RolloutRunning, Settings: DefaultRolloutSettings()}
		now := noon
		for step := 0; r.State != registry.RolloutDone; step++ {
			if step > 10*n+10 {
				t.Fatalf("%d gateways: not done after %d steps: %+v", n, step, r)
			}
			var words []string
			for i := range n {
				name := fmt.Sprintf("g%02d", i)
				state := "waits"
				if _, ok := r.Released[name]; ok {
					state = "live"
				}
				if i == 1 && step > 3 {
					continue // it died
				}
				words = append(words, name+" "+state)
			}
			r, now = StepRollout(r, crewOf(3, words...), now), now.Add(6*time.Second)
		}
		if got := len(r.Released); got < n-1 {
			t.Errorf("%d of %d gateways had their turn", got, n)
		}
	}
}

func TestLayBefore(t *testing.T) {
	t.Parallel()
	object := func(name string, seq registry.Seq) registry.Object {
		return registry.Object{Kind: registry.KindSite, Name: name, Seq: seq, Value: json.RawMessage(fmt.Sprintf(`{"n":%d}`, seq))}
	}
	change := func(name string, seq, before registry.Seq, deleted bool) registry.RolledOut {
		c := registry.RolledOut{Kind: registry.KindSite, Name: name, Seq: seq, BeforeSeq: before, Deleted: deleted}
		if before > 0 {
			c.Before = object(name, before).Value
		}
		return c
	}
	// 1: a, b, c. 2: a changed, b deleted, d created. 3: a changed again, c deleted.
	s := registry.Snapshot{Seq: 3, Objects: []registry.Object{object("a", 3), object("d", 2), object("z", 1)}}
	two := registry.Rollout{Seq: 2, Changes: []registry.RolledOut{change("a", 2, 1, false), change("b", 2, 1, true), change("d", 2, 0, false)}}
	three := registry.Rollout{Seq: 3, Changes: []registry.RolledOut{change("a", 3, 2, false), change("c", 3, 1, true)}}
	tests := []struct {
		name string
		laid []registry.Rollout
		want []registry.Object
	}{
		{"none", nil, s.Objects},
		{"the newer one", []registry.Rollout{three}, []registry.Object{object("a", 2), object("c", 1), object("d", 2), object("z", 1)}},
		{"both", []registry.Rollout{two, three}, []registry.Object{object("a", 1), object("b", 1), object("c", 1), object("z", 1)}},
	}
	for _, tc := range tests {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			if diff := cmp.Diff(tc.want, layBefore(s, tc.laid).Objects); diff != "" {
				t.Error(diff)
			}
		})
	}
	merged := two
	merged.State = registry.RolloutRunning
	three.State = registry.RolloutRunning
	if n := mergeRollouts(&merged, []registry.Rollout{three}); n != 1 {
		t.Fatalf("%d merged", n)
	}
	if diff := cmp.Diff(layBefore(s, []registry.Rollout{two, three}).Objects, layBefore(s, []registry.Rollout{merged}).Objects); diff != "" {
		t.Errorf("what stood before is another once they go on their way together: %s", diff)
	}
	if !slices.Equal(merged.Covers, []registry.Seq{3}) || merged.Changes[0].Seq != 3 {
		t.Errorf("merged: %+v", merged)
	}
	begun := two
	begun.State, begun.Released = registry.RolloutRunning, map[string]registry.Release{"g1": {}}
	if mergeRollouts(&begun, []registry.Rollout{three}); len(begun.Covers) != 0 {
		t.Error("a rollout that has begun took another one along")
	}
	three.Changes = slices.Clone(three.Changes)
	rebase(&three, two)
	if c := three.Changes[0]; c.BeforeSeq != 1 || string(c.Before) != `{"n":1}` {
		t.Errorf("after the first was taken back, what stood before the second is %+v", c)
	}
}

func TestRolloutByHand(t *testing.T) {
	t.Parallel()
	do := map[string]func(*registry.Rollout) error{
		"pause": PauseRollout, "resume": ResumeRollout, "abort": AbortRollout("ada"), "promote": PromoteRollout("ada", noon),
	}
	tests := []struct {
		from registry.RolloutState
		want map[string]registry.RolloutState // none: refused
	}{
		{registry.RolloutRunning, map[string]registry.RolloutState{"pause": registry.RolloutPaused, "abort": registry.RolloutReverting, "promote": registry.RolloutPromoted}},
		{registry.RolloutPaused, map[string]registry.RolloutState{"resume": registry.RolloutRunning, "abort": registry.RolloutReverting, "promote": registry.RolloutPromoted}},
		{registry.RolloutReverting, map[string]registry.RolloutState{"promote": registry.RolloutPromoted}},
		{registry.RolloutDone, nil}, {registry.RolloutReverted, nil}, {registry.RolloutPromoted, nil}, {registry.RolloutMerged, nil},
	}
	for _, tc := range tests {
		for name, action := range do {
			r := registry.Rollout{State: tc.from, Changes: []registry.RolledOut{{Before: json.RawMessage(`{}`)}}}
			err := action(&r)
			want, ok := tc.want[name]
			if ok != (err == nil) || ok && r.State != want {
				t.Errorf("%s of one that is %s: %s, %v", name, tc.from, r.State, err)
			}
			if r.State == registry.RolloutPromoted && err == nil && (r.Changes[0].Before != nil || r.Ended.IsZero()) {
				t.Errorf("promoted: %+v", r)
			}
		}
	}
}
