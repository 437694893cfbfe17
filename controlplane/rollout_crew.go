package controlplane

import (
	"cmp"
	"context"
	"errors"
	"maps"
	"math/rand/v2"
	"slices"
	"sync/atomic"
	"time"

	"sluice/controlplane/spec"
	"sluice/registry"
)

// Timing of a gateway in a fleet.
const (
	crewCalm    = 10 * time.Second       // who else is there is looked up this often
	crewPace    = time.Second            // and this often while a rollout is under way: reports come once a second
	crewReserve = 5 * time.Second        // by those that only step in when the first few do not
	crewFirst   = 3                      // gateways that carry a rollout on at the full pace
	maxJitter   = 200 * time.Millisecond // of an apply after a calm, so that not all gateways of a group reload in one moment
	keepEnded   = 20                     // rollouts that have ended, for people to look at
	tidyEvery   = time.Hour              // the history is looked through for what is too old
)

// crew is what a gateway does for the fleet, as every other gateway does: it carries rollouts on, and tidies the history.
type crew struct {
	*Controller
	poke     chan struct{}                      // capacity 1: a rollout, or this gateway's part in one, is another
	rollouts atomic.Pointer[[]registry.Rollout] // of the newest Snapshot, sorted by seq
	peers    atomic.Int32                       // other gateways of the group
	tidyNext time.Time                          // when the history is looked through again
}

// take notes the rollouts of a Snapshot.
func (c *crew) take(objects []registry.Object) {
	var all []registry.Rollout
	for _, o := range objects {
		if o.Kind == registry.KindRollout {
			if r, err := registry.DecodeRollout(o.Value); err == nil {
				all = append(all, r)
			}
		}
	}
	sortRollouts(all)
	before := c.rollouts.Swap(&all)
	if len(all) > 0 || before != nil && len(*before) > 0 {
		poke(c.poke)
	}
}

func sortRollouts(list []registry.Rollout) []registry.Rollout {
	slices.SortFunc(list, func(a, b registry.Rollout) int { return cmp.Compare(a.Seq, b.Seq) })
	return list
}

// jitter returns how long a change after a calm waits here.
func (c *crew) jitter() time.Duration {
	if c.peers.Load() == 0 {
		return 0
	}
	return rand.N(maxJitter)
}

// run carries rollouts on until ctx ends.
func (c *crew) run(ctx context.Context) error {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-c.poke:
		case <-timer.C:
		}
		next, err := c.pass(ctx)
		if err != nil && ctx.Err() == nil {
			c.Log.Debug("the rollouts are looked at again later", "error", err)
		}
		timer.Reset(next)
	}
}

// pass does what can be done now, and returns when to look again.
func (c *crew) pass(ctx context.Context) (time.Duration, error) {
	ctx, cancel := context.WithTimeout(ctx, crewCalm)
	defer cancel()
	fleet, err := c.fleet(ctx)
	if err != nil {
		return crewCalm, err
	}
	err = c.tidyHistory(ctx)
	all := c.rollouts.Load()
	if all == nil {
		return crewCalm, err
	}
	active := slices.DeleteFunc(slices.Clone(*all), func(r registry.Rollout) bool { return r.HasEnded() })
	for i, r := range active {
		if r.State == registry.RolloutReverting {
			err = errors.Join(err, c.revert(ctx, r, active[i+1:]))
		}
	}
	if len(active) == 0 {
		return crewCalm, errors.Join(err, c.tidy(ctx, *all))
	}
	err = errors.Join(err, c.step(ctx, active, fleet))
	rank := slices.IndexFunc(fleet, func(s Status) bool { return s.Gateway == c.Gateway })
	if rank < crewFirst {
		return crewPace, err
	}
	return crewReserve, err
}

// fleet returns the reports of all gateways that are alive, sorted; this one's is as fresh as can be.
func (c *crew) fleet(ctx context.Context) ([]Status, error) {
	page, err := c.Registry.List(ctx, registry.KindGateway, "", 0)
	if err != nil {
		return nil, err
	}
	own := c.Status(ctx)
	fleet := []Status{own}
	peers := int32(0)
	for _, o := range page.Objects {
		status, err := spec.Decode[Status](o.Value)
		if err != nil || o.Name == c.Gateway {
			continue // what a later version reports cannot be worse than nothing
		}
		fleet = append(fleet, status)
		if status.Group == own.Group {
			peers++
		}
	}
	c.peers.Store(peers)
	slices.SortFunc(fleet, func(a, b Status) int { return cmp.Compare(a.Gateway, b.Gateway) })
	return fleet, nil
}

// step carries the oldest rollout on. Those behind it go on their way with it while it has not begun.
func (c *crew) step(ctx context.Context, active []registry.Rollout, fleet []Status) error {
	var was, is registry.Rollout
	err := c.Registry.UpdateRollout(ctx, active[0].Seq, func(r *registry.Rollout) error {
		was = *r
		mergeRollouts(r, active[1:])
		*r = StepRollout(*r, fleet, time.Now())
		is = *r
		return nil
	})
	if err != nil {
		return err
	}
	c.tell(was, is)
	for _, r := range active[1:] {
		if !slices.Contains(is.Covers, r.Seq) {
			continue
		}
		err = errors.Join(err, c.Registry.UpdateRollout(ctx, r.Seq, func(r *registry.Rollout) error {
			if r.State == registry.RolloutRunning {
				endRollout(r, registry.RolloutMerged, "", time.Now())
				r.Into, r.Keys = is.Seq, nil
			}
			return nil
		}))
	}
	return err
}

// tell logs what this instance did to a rollout.
func (c *crew) tell(was, is registry.Rollout) {
	for _, name := range slices.Sorted(maps.Keys(is.Released)) {
		if _, ok := was.Released[name]; !ok {
			c.Log.Info("rollout goes on", "seq", is.Seq, "gateway", name, "wave", is.Released[name].Wave)
		}
	}
	if was.State != is.State {
		c.Log.Info("rollout", "seq", is.Seq, "state", is.State, "message", is.Message)
	}
}

// tidy deletes the keys that nobody names any more, and rollouts that ended long ago.
func (c *crew) tidy(ctx context.Context, ended []registry.Rollout) error {
	for _, r := range ended {
		if len(r.Keys) == 0 {
			continue
		}
		if err := c.dropKeys(ctx, r); err != nil {
			return err
		}
	}
	for _, r := range ended[:max(0, len(ended)-keepEnded)] {
		if err := c.Registry.DropRollout(ctx, r.Seq); err != nil {
			return err
		}
	}
	return nil
}

// tidyHistory deletes some of what is too old, at each pass until there is no more.
func (c *crew) tidyHistory(ctx context.Context) error {
	now := time.Now()
	if now.Before(c.tidyNext) {
		return nil
	}
	more, err := c.Registry.TidyHistory(ctx, now.Add(-registry.HistoryAge))
	if err == nil && !more {
		c.tidyNext = now.Add(registry.Jitter(tidyEvery))
	}
	return err
}
