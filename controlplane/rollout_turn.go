package controlplane

import (
	"maps"
	"slices"

	"sluice/registry"
	"sluice/templates"
)

// turn is what the rollouts under way mean for this gateway.
type turn struct {
	seq  registry.Seq // of the newest change that it may have, and all before
	part *RolloutPart // as Compile sees it; nil when no rollout concerns it
}

// variant is a configuration as it is with some of the changes, and without others.
type variant struct {
	compiled Compiled
	bundle   templates.Bundle
	err      error // of Render
}

func (l *loop) variant(s registry.Snapshot, facts Facts) variant {
	compiled := Compile(s, l.good, facts)
	bundle, err := l.Renderer.Render(compiled.Config)
	return variant{compiled, bundle, err}
}

// sameAs reports whether it makes no difference to this gateway which of the two it has.
func (v variant) sameAs(w variant) bool {
	return v.bundle.Revision == w.bundle.Revision && (v.err == nil) == (w.err == nil) && slices.Equal(v.compiled.Problems, w.compiled.Problems)
}

// turnIn works out the turn. held are those of the rollouts whose turn has not come here.
func (l *loop) turnIn(rollouts, held []registry.Rollout, facts Facts) turn {
	if len(rollouts) == 0 {
		return turn{seq: l.snapshot.Seq}
	}
	// The guard has judged the nodes of the upstreams as they are to be live here, not as the other variants have them.
	facts.Rulings = maps.Clone(facts.Rulings)
	maps.DeleteFunc(facts.Rulings, func(name string, _ Ruling) bool { return facts.Growing[name] })
	is := l.variant(layBefore(l.snapshot, held), facts)
	without := is
	for i, r := range held {
		with := l.variant(layBefore(l.snapshot, held[i+1:]), facts)
		if !with.sameAs(without) {
			return turn{seq: r.Seq - 1, part: &RolloutPart{Seq: r.Seq, State: PartWaits}}
		}
		without = with
	}
	t := turn{seq: l.snapshot.Seq}
	i := slices.IndexFunc(rollouts, func(r registry.Rollout) bool { return !heldFrom(l.Gateway)(r) })
	if i < 0 {
		return t
	}
	t.part = &RolloutPart{Seq: rollouts[i].Seq, State: PartApplying}
	before := Compile(layBefore(l.snapshot, sortRollouts(append(slices.Clone(held), rollouts[i]))), l.good, facts)
	for _, p := range is.compiled.Problems {
		if !slices.ContainsFunc(before.Problems, func(b registry.Problem) bool { return b.Object == p.Object }) {
			t.part.State, t.part.Message = PartRefused, p.String()
			break
		}
	}
	return t
}

// part returns how far the gateway is with its turn.
func (l *loop) part() *RolloutPart {
	if l.turn.part == nil || l.turn.part.State != PartApplying {
		return l.turn.part
	}
	part := *l.turn.part
	switch {
	case l.failure != nil && (l.wanted == nil || l.failed == l.wanted.bundle.Revision):
		part.State, part.Message = PartRefused, l.failure.Message
	case l.wanted != nil && l.live != nil && l.wanted.bundle.Revision == l.live.bundle.Revision:
		part.State = PartLive
	}
	return &part
}

// touched returns the names of the upstreams that rollouts change.
func touched(rollouts []registry.Rollout) map[string]bool {
	upstreams := map[string]bool{}
	for _, r := range rollouts {
		for _, c := range r.Changes {
			if c.Kind == registry.KindUpstream {
				upstreams[c.Name] = true
			}
		}
	}
	return upstreams
}

// usesBefore returns the services that what stood before a rollout needs.
func usesBefore(o registry.Object) []string {
	r, err := registry.DecodeRollout(o.Value)
	if err != nil || r.HasEnded() {
		return nil
	}
	var services []string
	for _, c := range r.Changes {
		if c.Kind == registry.KindUpstream && c.BeforeSeq > 0 {
			services = append(services, Uses(registry.Object{Kind: c.Kind, Name: c.Name, Value: c.Before})...)
		}
	}
	return services
}
