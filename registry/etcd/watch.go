package etcd

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"sluice/registry"
	"sluice/registry/keyspace"
)

// Watch implements registry.Watcher. One watch carries all of sluice's own keys; each key prefix of etcd's
// naming/endpoints that an object names (see registry.EndpointsService) has one more.
func (r *Registry) Watch(ctx context.Context, uses func(registry.Object) []string, out chan<- registry.Snapshot) error {
	inner, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(r.lifetime, cancel)()

	w := &watcher{
		r:      r,
		uses:   uses,
		state:  keyspace.NewState(r.keys),
		news:   make(chan batch),
		alarms: make(chan []registry.Problem),
		feeds:  make(map[string]*feed),
	}
	w.follow(inner, "", mainFeed(w.state, r.keys.State))
	w.wg.Go(func() { r.watchConnection(inner) })
	if r.several() {
		w.wg.Go(func() { r.probe(inner) })
	}
	w.wg.Go(func() { r.watchAlarms(inner, w.alarms) })
	w.run(inner, out)
	w.wg.Wait()
	if err := ctx.Err(); err != nil {
		return err
	}
	return errors.New("etcd: the registry was closed under its Watch")
}

// watcher is one Watch. The goroutine of run owns the state and the feeds.
type watcher struct {
	r      *Registry
	uses   func(registry.Object) []string
	state  *keyspace.State
	pace   keyspace.Pace
	news   chan batch
	alarms chan []registry.Problem
	feeds  map[string]*feed // by target; the main feed is ""
	wg     sync.WaitGroup   // of the goroutines that send news
}

func (w *watcher) run(ctx context.Context, out chan<- registry.Snapshot) {
	for {
		var send chan<- registry.Snapshot
		var next registry.Snapshot
		var due <-chan time.Time
		if w.state.Dirty && w.complete() {
			if wait := w.pace.Wait(time.Now()); wait > 0 {
				due = time.After(wait)
			} else {
				send, next = out, w.state.Snapshot()
			}
		}
		select {
		case send <- next:
			w.state.Dirty = false
			w.pace.Sent(time.Now())
			continue
		case <-due:
			continue
		case b := <-w.news:
			w.take(b)
		case problems := <-w.alarms:
			w.takeAlarms(problems)
		case <-ctx.Done():
			return
		}
		if w.state.Flush() {
			w.followUsed(ctx)
			w.state.Flush() // of nodes that are no longer used
		}
	}
}

// complete reports whether everything that a Snapshot needs was listed.
func (w *watcher) complete() bool {
	for _, f := range w.feeds {
		if !f.listed {
			return false
		}
	}
	return true
}

func (w *watcher) take(b batch) {
	f := b.feed
	if w.feeds[f.target] != f {
		return // it was dropped while this was on its way
	}
	if b.refused == nil {
		w.state.Problem(f.prefix, "", nil)
		f.take(b)
		return
	}
	// Without its own keys there is nothing to say. A prefix of somebody else's must not hold up all the rest.
	if f.target != "" {
		w.state.Problem(f.prefix, "endpoints/"+f.target,
			fmt.Errorf("etcd does not let sluice read it (%w): grant its user the permission to read this prefix", b.refused))
		f.listed = true
	}
}

// takeAlarms keeps alarms among the problems, under keys that etcd does not have.
func (w *watcher) takeAlarms(problems []registry.Problem) {
	w.state.ReplaceProblems("alarm ", problems)
}

// followUsed starts and ends the feeds of endpoints, as the objects name them.
func (w *watcher) followUsed(ctx context.Context) {
	if w.uses == nil {
		return
	}
	used := map[string]bool{"": true}
	for _, o := range w.state.Objects.Items() {
		for _, service := range w.uses(o) {
			if target, ok := registry.EndpointsTarget(service); ok {
				used[target] = true
			}
		}
	}
	for target, f := range w.feeds {
		if !used[target] {
			f.cancel()
			f.drop()
			w.state.Problem(f.prefix, "", nil)
			delete(w.feeds, target)
		}
	}
	for target := range used {
		if w.feeds[target] != nil {
			continue
		}
		e, err := endpointsOf(target)
		if err != nil {
			continue // spec refuses such an upstream; without nodes it is valid
		}
		w.follow(ctx, target, endpointsFeed(w.state, e))
	}
}

func (w *watcher) follow(ctx context.Context, target string, f *feed) {
	ctx, f.cancel = context.WithCancel(ctx)
	f.target = target
	w.feeds[target] = f
	w.wg.Go(func() { f.run(ctx, w.r, w.news) })
}
