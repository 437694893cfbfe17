package controlplane

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"sluice/registry"
)

// RolloutPart is what a gateway has to do with the oldest rollout that concerns it.
type RolloutPart struct {
	Seq     registry.Seq `json:"seq"`
	State   PartState    `json:"state"`
	Message string       `json:"message,omitempty"`
}

// PartState is how far a gateway is with a rollout.
type PartState string

// The states of a part.
const (
	PartWaits    PartState = "waits" // for its wave: it serves what stood before
	PartApplying PartState = "applying"
	PartLive     PartState = "live"
	PartRefused  PartState = "refused" // see Message
)

// doubtFor is how long a gateway must seem worse off until it counts: reports are up to a second old.
const doubtFor = 3 * time.Second

// maxRolloutBytes is how large a rollout may get by the changes of others: Consul takes values of up to 512 KiB.
const maxRolloutBytes = 300_000

// DefaultRolloutSettings are the pace of rollouts.
func DefaultRolloutSettings() registry.RolloutSettings {
	return registry.RolloutSettings{Canary: 1, Share: 25, Soak: 5}
}

// ActiveRollouts returns the rollouts of objects that have not ended, oldest first.
func ActiveRollouts(objects []registry.Object) []registry.Rollout {
	var active []registry.Rollout
	for _, o := range objects {
		if o.Kind != registry.KindRollout {
			continue
		}
		if r, err := registry.DecodeRollout(o.Value); err == nil && !r.HasEnded() {
			active = append(active, r)
		}
	}
	slices.SortFunc(active, func(a, b registry.Rollout) int { return cmp.Compare(a.Seq, b.Seq) })
	return active
}

// heldFrom reports whether a gateway must not have the change of r yet, or any more.
func heldFrom(gateway string) func(registry.Rollout) bool {
	return func(r registry.Rollout) bool {
		_, released := r.Released[gateway]
		return r.State == registry.RolloutReverting || !released
	}
}

// layBefore returns s with what stood before the rollouts, which are sorted by seq, laid over it.
func layBefore(s registry.Snapshot, rollouts []registry.Rollout) registry.Snapshot {
	if len(rollouts) == 0 {
		return s
	}
	before := map[registry.Ref]registry.RolledOut{}
	for _, r := range slices.Backward(rollouts) { // what stood before the oldest is what counts
		for _, c := range r.Changes {
			if c.Kind != registry.KindSecret { // named by their content: those that are there do no harm
				before[c.Ref()] = c
			}
		}
	}
	objects := slices.DeleteFunc(slices.Clone(s.Objects), func(o registry.Object) bool { _, ok := before[o.Ref()]; return ok })
	for ref, c := range before {
		if c.BeforeSeq > 0 {
			objects = append(objects, registry.Object{Kind: ref.Kind, Name: ref.Name, Seq: c.BeforeSeq, Value: c.Before})
		}
	}
	slices.SortFunc(objects, func(a, b registry.Object) int { return compareRefs(a.Ref(), b.Ref()) })
	s.Objects = objects
	return s
}

// StepRollout returns what becomes of r, given the reports of the gateways that are alive. It is pure.
func StepRollout(r registry.Rollout, fleet []Status, now time.Time) registry.Rollout {
	if r.State != registry.RolloutRunning && r.State != registry.RolloutPaused {
		return r
	}
	step := rolloutStep{Rollout: r, now: now.UTC().Truncate(time.Millisecond)}
	step.Released = maps.Clone(r.Released)
	fleet = slices.SortedFunc(slices.Values(fleet), func(a, b Status) int { return cmp.Compare(a.Gateway, b.Gateway) })
	step.take(fleet)
	return step.Rollout
}

type rolloutStep struct {
	registry.Rollout
	now time.Time
}

func (s *rolloutStep) take(fleet []Status) {
	if gateway, why := s.refused(fleet); gateway != "" {
		s.State, s.Message, s.Ready, s.Doubt = registry.RolloutReverting, fmt.Sprintf("gateway %s: %s", gateway, why), time.Time{}, nil
		return
	}
	s.doubt(fleet)
	if s.State == registry.RolloutPaused {
		return
	}
	waiting := s.waiting(fleet)
	for _, group := range slices.Sorted(maps.Keys(waiting)) {
		if !s.begun(group) {
			s.release(group, waiting[group], max(1, s.Settings.Canary))
			delete(waiting, group)
		}
	}
	switch {
	case s.Doubt != nil || !s.inStep(fleet):
		s.Ready = time.Time{}
	case len(waiting) == 0:
		if allSeen(fleet, s.Seq) {
			endRollout(&s.Rollout, registry.RolloutDone, "", s.now)
		}
	case s.Ready.IsZero():
		s.Ready = s.now
	case s.now.Sub(s.Ready).Seconds() >= s.Settings.Soak:
		for _, group := range slices.Sorted(maps.Keys(waiting)) {
			s.release(group, waiting[group], max(1, (size(fleet, group)*s.Settings.Share+99)/100))
		}
		s.Ready = time.Time{}
	}
}

// refused returns a gateway that has the change and does not take it.
func (s *rolloutStep) refused(fleet []Status) (gateway, why string) {
	for _, g := range fleet {
		if _, ok := s.Released[g.Gateway]; ok && g.Rollout != nil && g.Rollout.Seq == s.Seq && g.Rollout.State == PartRefused {
			return g.Gateway, g.Rollout.Message
		}
	}
	if s.Doubt != nil && s.now.Sub(s.Doubt.Since) >= doubtFor {
		if gateway, why := s.worse(fleet); gateway != "" {
			return gateway, why
		}
	}
	return "", ""
}

// doubt notes which gateway seems worse off, and since when.
func (s *rolloutStep) doubt(fleet []Status) {
	gateway, why := s.worse(fleet)
	switch {
	case gateway == "":
		s.Doubt = nil
	case s.Doubt == nil || s.Doubt.Gateway != gateway:
		s.Doubt = &registry.Doubt{Gateway: gateway, Since: s.now, Message: why}
	}
}

// worse returns a gateway that is worse off with the change than those of its group that wait for it.
func (s *rolloutStep) worse(fleet []Status) (gateway, why string) {
	for _, g := range fleet {
		if _, ok := s.Released[g.Gateway]; !ok || g.Rollout == nil || g.Rollout.Seq != s.Seq || g.Rollout.State != PartLive {
			continue
		}
		if !g.Nginx.Running {
			return g.Gateway, "nginx does not run any more"
		}
		for _, u := range g.Upstreams {
			if u.Nodes > 0 && u.Up == 0 && s.betterElsewhere(fleet, g, u.Name) {
				return g.Gateway, fmt.Sprintf("upstream %q has no node that takes connections, where the change is not live it has", u.Name)
			}
		}
	}
	return "", ""
}

func (s *rolloutStep) betterElsewhere(fleet []Status, than Status, upstream string) bool {
	return slices.ContainsFunc(fleet, func(g Status) bool {
		return g.Group == than.Group && s.waits(g) &&
			slices.ContainsFunc(g.Upstreams, func(u UpstreamStatus) bool { return u.Name == upstream && u.Up > 0 })
	})
}

func (s *rolloutStep) waits(g Status) bool {
	_, released := s.Released[g.Gateway]
	return !released && g.Rollout != nil && g.Rollout.Seq == s.Seq && g.Rollout.State == PartWaits
}

// waiting returns the gateways that wait for their turn, by group, sorted.
func (s *rolloutStep) waiting(fleet []Status) map[string][]string {
	waiting := map[string][]string{}
	for _, g := range fleet {
		if s.waits(g) {
			waiting[g.Group] = append(waiting[g.Group], g.Gateway)
		}
	}
	return waiting
}

// begun reports whether the turn of a gateway of the group has come.
func (s *rolloutStep) begun(group string) bool {
	for _, r := range s.Released {
		if r.Group == group {
			return true
		}
	}
	return false
}

func (s *rolloutStep) release(group string, waiting []string, n int) {
	wave := 0
	for _, r := range s.Released {
		if r.Group == group {
			wave = max(wave, r.Wave+1)
		}
	}
	if s.Released == nil {
		s.Released = map[string]registry.Release{}
	}
	for _, name := range waiting[:min(n, len(waiting))] {
		s.Released[name] = registry.Release{Group: group, Wave: wave, At: s.now}
	}
}

// inStep reports whether all gateways whose turn has come, and that are alive, have the change live.
func (s *rolloutStep) inStep(fleet []Status) bool {
	return !slices.ContainsFunc(fleet, func(g Status) bool {
		_, released := s.Released[g.Gateway]
		return released && g.SeqLive < s.Seq
	})
}

// allSeen reports whether every gateway that is alive has the change, as far as it concerns it. One that fails for reasons
// of its own is not waited for: that may be for ever.
func allSeen(fleet []Status, seq registry.Seq) bool {
	return !slices.ContainsFunc(fleet, func(g Status) bool {
		return g.SeqLive < seq && (g.Phase != Failed || g.Rollout != nil || g.SeqWanted < seq)
	})
}

func size(fleet []Status, group string) (n int) {
	for _, g := range fleet {
		if g.Group == group {
			n++
		}
	}
	return n
}

// Of ops: what can be done with a rollout by hand. The error says why it can't be done.
var (
	errNotRunning = errors.New("it is not running")
	errNotPaused  = errors.New("it is not paused")
	errEnded      = errors.New("it has ended")
)

// PauseRollout lets no further gateway's turn come.
func PauseRollout(r *registry.Rollout) error {
	if r.State != registry.RolloutRunning {
		return errNotRunning
	}
	r.State, r.Ready = registry.RolloutPaused, time.Time{}
	return nil
}

// ResumeRollout goes on with a rollout that was paused.
func ResumeRollout(r *registry.Rollout) error {
	if r.State != registry.RolloutPaused {
		return errNotPaused
	}
	r.State = registry.RolloutRunning
	return nil
}

// AbortRollout takes the change back. who is told to those who read it.
func AbortRollout(who string) func(r *registry.Rollout) error {
	return func(r *registry.Rollout) error {
		if r.HasEnded() || r.State == registry.RolloutReverting {
			return errEnded
		}
		r.State, r.Message, r.Ready, r.Doubt = registry.RolloutReverting, "aborted by "+who, time.Time{}, nil
		return nil
	}
}

// PromoteRollout lets all gateways have the change at once.
func PromoteRollout(who string, now time.Time) func(r *registry.Rollout) error {
	return func(r *registry.Rollout) error {
		if r.HasEnded() {
			return errEnded
		}
		endRollout(r, registry.RolloutPromoted, "promoted by "+who, now)
		return nil
	}
}

// endRollout forgets what stood before: nobody lays it over any more.
func endRollout(r *registry.Rollout, state registry.RolloutState, message string, now time.Time) {
	r.State, r.Message, r.Ended, r.Ready, r.Doubt = state, message, now.UTC().Truncate(time.Millisecond), time.Time{}, nil
	r.Changes = slices.Clone(r.Changes)
	for i := range r.Changes {
		r.Changes[i].Before = nil
	}
}

// mergeRollouts has first carry the changes of those that follow it as well, as far as they find room, and returns how many
// of them.
func mergeRollouts(first *registry.Rollout, rest []registry.Rollout) int {
	if len(first.Released) > 0 || first.State != registry.RolloutRunning {
		return 0
	}
	for n, r := range rest {
		if slices.Contains(first.Covers, r.Seq) {
			continue
		}
		if r.State != registry.RolloutRunning {
			return n
		}
		merged := *first
		merged.Changes = slices.Clone(first.Changes)
		for _, c := range r.Changes {
			i := slices.IndexFunc(merged.Changes, func(m registry.RolledOut) bool { return m.Ref() == c.Ref() })
			if i < 0 {
				merged.Changes = append(merged.Changes, c)
				continue
			}
			merged.Changes[i].Seq, merged.Changes[i].Deleted = c.Seq, c.Deleted
		}
		merged.Keys = slices.Compact(slices.Sorted(slices.Values(slices.Concat(first.Keys, r.Keys))))
		merged.Covers = append(slices.Clone(first.Covers), r.Seq)
		if value, err := json.Marshal(merged); err != nil || len(value) > maxRolloutBytes {
			return n
		}
		*first = merged
	}
	return len(rest)
}
