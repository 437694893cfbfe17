package consul

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/hashicorp/consul/api"

	"sluice/registry"
)

// Of several agents, one is used at a time: the first, until it does not answer; then the next. What still waits for the one
// that is left, such as a query that would wait for minutes, ends.

// clients are how one agent is asked. Queries that wait have connections of their own: they can't hold up the rest, nor it them.
type clients struct {
	asking  *api.Client // for what is answered at once
	waiting *api.Client // for what waits for a change
}

// use is an agent for as long as it is used.
type use struct {
	address string
	clients
	left  context.Context
	leave context.CancelFunc
}

func (r *Registry) newUse(at int) *use {
	u := &use{address: r.cfg.Addresses[at], clients: r.agents[at]}
	u.left, u.leave = context.WithCancel(r.lifetime)
	return u
}

func (r *Registry) several() bool { return len(r.agents) > 1 }

// using returns the agent in use.
func (r *Registry) using() *use {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.use
}

// leave goes on to the next agent, unless that was done already.
func (r *Registry) leave(u *use) {
	if !r.several() {
		return
	}
	r.mu.Lock()
	if r.use != u {
		r.mu.Unlock()
		return
	}
	r.at++
	r.missed++
	r.use = r.newUse(r.at % len(r.agents))
	r.mu.Unlock()
	r.log.Debug("this agent of consul is left", "address", u.address)
	u.leave()
}

// answered notes that an agent answers.
func (r *Registry) answered(u *use) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.use == u && r.missed > 0 {
		r.missed = 0
		r.log.Info("another agent of consul is used", "address", u.address)
	}
}

// allLeft reports whether no agent has answered since each was left.
func (r *Registry) allLeft() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return !r.several() || r.missed >= len(r.agents)
}

// call runs one request, or a few that belong together, with a limit of time, and notes in Health how it went. What gets no
// answer is tried with each of the other agents, so it must do no harm when it is done twice.
func (r *Registry) call(ctx context.Context, limit time.Duration, f func(context.Context, *api.Client) error) error {
	return r.try(ctx, limit, true, f)
}

// callAgent is call for what an agent answers by itself, also when there is no leader: that it answers says nothing of Consul.
func (r *Registry) callAgent(ctx context.Context, limit time.Duration, f func(context.Context, *api.Client) error) error {
	return r.try(ctx, limit, false, f)
}

func (r *Registry) try(ctx context.Context, limit time.Duration, tells bool, f func(context.Context, *api.Client) error) error {
	for tried := 1; ; tried++ {
		err := r.attempt(ctx, limit, tells, atOnce(f))
		if err == nil || tried >= len(r.agents) || ctx.Err() != nil || r.lifetime.Err() != nil || !away(err) {
			return err
		}
	}
}

// once is call for what must not be done twice.
func (r *Registry) once(ctx context.Context, limit time.Duration, f func(context.Context, *api.Client) error) error {
	return r.attempt(ctx, limit, true, atOnce(f))
}

func atOnce(f func(context.Context, *api.Client) error) func(context.Context, clients) error {
	return func(ctx context.Context, c clients) error { return f(ctx, c.asking) }
}

// attempt asks the agent in use. tells says whether an answer shows that Consul has a leader.
func (r *Registry) attempt(ctx context.Context, limit time.Duration, tells bool, f func(context.Context, clients) error) error {
	if r.lifetime.Err() != nil {
		return errors.New("the registry is closed")
	}
	u := r.using()
	if r.several() && limit == r.timing.call {
		limit = r.timing.patience
	}
	began := time.Now()
	limited, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	defer context.AfterFunc(u.left, cancel)()
	err := f(limited, u.clients)
	switch {
	case err == nil:
	case ctx.Err() != nil:
		// The caller's limit says nothing of Consul, but one that ends again and again before ours is an agent that hangs.
		if errors.Is(ctx.Err(), context.DeadlineExceeded) && time.Since(began) >= r.timing.patience/2 {
			r.leave(u)
		}
		return ctx.Err()
	case u.left.Err() != nil:
		err = fmt.Errorf("no answer from %s, which was left", u.address)
	case errors.Is(err, context.DeadlineExceeded):
		err = fmt.Errorf("no answer from %s within %s", u.address, limit)
	}
	switch {
	case err == nil && !tells:
		return nil
	case err == nil:
		r.answered(u)
	case away(err):
		r.leave(u)
		err = registry.Away(err)
	}
	r.note(began, err)
	return err
}

// probe asks the agent in use for what only the leader can answer, since one that hangs or is cut off from the servers must
// not be found out by the beats of nodes alone.
func (r *Registry) probe(ctx context.Context) {
	tick := time.NewTicker(r.timing.patience)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			_, _ = r.getKey(ctx, r.keys.Head) // what it tells is in Health
		}
	}
}
