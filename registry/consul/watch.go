package consul

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/consul/api"

	"sluice/registry"
	"sluice/registry/keyspace"
)

// Watch implements registry.Watcher. One blocking query carries all of sluice's own keys, and one more each service that
// an object uses.
func (r *Registry) Watch(ctx context.Context, uses func(registry.Object) []string, out chan<- registry.Snapshot) error {
	inner, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(r.lifetime, cancel)()
	w := &watcher{
		r:        r,
		uses:     uses,
		state:    newState(r.keys),
		ours:     make(chan []*api.KVPair),
		news:     make(chan news),
		services: make(map[string]*follower),
		usedBy:   make(map[registry.Ref][]string),
	}
	w.wg.Go(func() { w.followKeys(inner) })
	if r.several() {
		w.wg.Go(func() { r.probe(inner) })
	}
	w.run(inner, out)
	w.wg.Wait()
	if err := ctx.Err(); err != nil {
		return err
	}
	return errors.New("consul: the registry was closed under its Watch")
}

// watcher is one Watch. The goroutine of run owns all but the channels.
type watcher struct {
	r        *Registry
	uses     func(registry.Object) []string
	state    *state
	pace     keyspace.Pace
	listed   bool // our own keys
	sent     bool // a first Snapshot
	ours     chan []*api.KVPair
	news     chan news
	services map[string]*follower
	usedBy   map[registry.Ref][]string
	wg       sync.WaitGroup // of the goroutines that ask
}

// follower is a service that is followed.
type follower struct {
	name     string
	since    time.Time
	answered bool
	cancel   context.CancelFunc
}

// news is what Consul answers about a service.
type news struct {
	of        *follower
	instances []instance
	whole     bool            // what is missing was taken away: nothing was missed since the last answer
	gap       time.Time       // when Consul answered again, after it had not; zero when it always did
	filtered  bool            // what is missing may be there
	left      map[string]bool // the Consul nodes that are gone with all that they had: their agents left the cluster
	err       error           // instead of an answer
}

func (w *watcher) run(ctx context.Context, out chan<- registry.Snapshot) {
	tick := time.NewTicker(w.r.timing.tick)
	defer tick.Stop()
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
			w.state.Dirty, w.sent = false, true
			w.pace.Sent(time.Now())
			continue
		case <-due:
			continue
		case pairs := <-w.ours:
			w.listed = true
			w.state.takeKeys(pairs)
		case n := <-w.news:
			w.take(n)
		case now := <-tick.C:
			w.tidy(ctx, now)
		case <-ctx.Done():
			return
		}
		if w.state.flush() {
			w.followUsed(ctx)
			w.state.flush() // of nodes that are no longer used
		}
	}
}

// complete reports whether everything that a Snapshot needs has answered. Later on, a service that is new and does not
// answer holds the others up for a moment only.
func (w *watcher) complete() bool {
	if !w.listed {
		return false
	}
	for _, f := range w.services {
		if !f.answered && (!w.sent || time.Since(f.since) < w.r.timing.newService) {
			return false
		}
	}
	return true
}

func (w *watcher) take(n news) {
	f := n.of
	if w.services[f.name] != f {
		return // it was dropped while this was on its way
	}
	problem := func(format string, args ...any) {
		w.state.SetProblem("service "+f.name, &registry.Problem{Object: "service/" + f.name, Message: fmt.Sprintf(format, args...)})
	}
	switch {
	case n.err != nil && denied(n.err):
		// Not to know the nodes of one service must not hold up all the others.
		f.answered = true
		problem("consul does not let sluice read it (%v): its nodes are the last that were known. Give the token service_prefix and node_prefix read", n.err)
		return
	case n.err != nil && away(n.err):
		return // Health tells; what is known stands
	case n.err != nil:
		f.answered = true
		problem("%v: its nodes are the last that were known", n.err)
		return
	case n.filtered:
		problem("consul leaves out what the token may not read: of that, the nodes are the last that were known. Give it service_prefix and node_prefix read")
	default:
		w.state.SetProblem("service "+f.name, nil)
	}
	f.answered = true
	w.state.takeService(f.name, n)
}

// tidy looks for what is old.
func (w *watcher) tidy(ctx context.Context, now time.Time) {
	for _, f := range w.services {
		if !f.answered && w.sent && now.Sub(f.since) >= w.r.timing.newService {
			w.state.SetProblem("service "+f.name, &registry.Problem{
				Object: "service/" + f.name, Message: "consul has not answered yet which nodes it has: they are missing",
			})
		}
	}
	w.state.endGrace(now)
	old := w.state.oldTombstones(now.Add(-registry.TombstoneTTL))
	if len(old) == 0 {
		return
	}
	w.wg.Go(func() {
		for key, index := range old {
			// Another instance may have been faster, and what can't be deleted now is found again.
			if _, _, err := w.r.txn(ctx, w.r.timing.call, &api.KVTxnOp{Verb: api.KVDeleteCAS, Key: key, Index: index}); err != nil {
				return
			}
		}
	})
}

// followUsed starts and ends the following of services, as the objects name them. An object that can't be read any more
// uses what it last did, as what it last was is what stays live.
func (w *watcher) followUsed(ctx context.Context) {
	if w.uses == nil {
		return
	}
	used := make(map[string]bool)
	usedBy := make(map[registry.Ref][]string)
	for _, o := range w.state.Objects.Items() {
		services := w.uses(o)
		if len(services) == 0 {
			services = w.usedBy[o.Ref()]
		}
		if len(services) > 0 {
			usedBy[o.Ref()] = services
		}
		for _, s := range services {
			used[s] = true
		}
	}
	w.usedBy = usedBy
	for name, f := range w.services {
		if !used[name] {
			f.cancel()
			delete(w.services, name)
			w.state.dropService(name)
			w.state.SetProblem("service "+name, nil)
		}
	}
	for name := range used {
		if w.services[name] == nil {
			w.follow(ctx, name)
		}
	}
	names := slices.Sorted(maps.Keys(used))
	w.r.used.Store(&names)
}

func (w *watcher) follow(ctx context.Context, name string) {
	ctx, cancel := context.WithCancel(ctx)
	f := &follower{name: name, since: time.Now(), cancel: cancel}
	w.services[name] = f
	if err := servable(name); err != nil {
		f.answered = true
		w.state.SetProblem("service "+name, &registry.Problem{Object: "service/" + name, Message: err.Error()})
		return
	}
	w.r.turns.join()
	w.wg.Go(func() {
		defer w.r.turns.leave()
		w.followService(ctx, f)
	})
}

// followService tells the news of a service: what changes in an answer beyond what a node is, is none.
func (w *watcher) followService(ctx context.Context, f *follower) {
	var now, last news // last: what was answered, as it was told
	var failure string // told since
	var gap time.Time
	told := false
	tell := func(ctx context.Context, n news) {
		select {
		case w.news <- n:
		case <-ctx.Done():
		}
	}
	q := &query{
		r:     w.r,
		what:  "service " + f.name,
		turns: &w.r.turns,
		ask: func(_ context.Context, c *api.Client, opts *api.QueryOptions) (*api.QueryMeta, error) {
			got, meta, err := w.askService(c, f, opts)
			if err == nil && meta.QueryBackend == api.QueryBackendStreaming && got.lacks(last) {
				got, meta, err = w.askService(c, f, linearizable(opts.Context()))
			}
			if err == nil && got.lacks(last) {
				got.left, err = leftOf(c, got, last, linearizable(opts.Context()))
			}
			now = got
			return meta, err
		},
		answered: func(ctx context.Context, whole bool) {
			if told && !whole {
				gap = time.Now()
			}
			now.whole, now.gap = whole, gap
			if !told || failure != "" || !now.same(last) {
				tell(ctx, now)
			}
			last, told, failure = now, true, ""
		},
		failed: func(ctx context.Context, err error) {
			if failure != err.Error() {
				tell(ctx, news{of: f, err: err})
			}
			failure = err.Error()
		},
	}
	q.run(ctx)
}

// askService asks about a service.
//
// What waits for a change is answered by a view of the agent's, which streams from the servers. That tells neither that the
// token may not read something, nor that it has not got anything yet when no server answers: both look like a service without
// nodes. So where nodes are missing, it is asked again without waiting, which a server answers and tells all.
func (w *watcher) askService(c *api.Client, f *follower, opts *api.QueryOptions) (news, *api.QueryMeta, error) {
	entries, meta, err := c.Health().Service(f.name, "", false, opts)
	if err != nil {
		return news{}, nil, err
	}
	return news{of: f, instances: w.r.instances(f.name, entries), filtered: meta.ResultsFilteredByACLs}, meta, nil
}

// leftOf returns those of the Consul nodes of what is missing in now that are not in the catalog any more.
func leftOf(c *api.Client, now, last news, opts *api.QueryOptions) (map[string]bool, error) {
	left := make(map[string]bool)
	for _, i := range last.instances {
		if left[i.where] || slices.ContainsFunc(now.instances, func(n instance) bool { return n.where == i.where }) {
			continue
		}
		node, meta, err := c.Catalog().Node(i.where, opts)
		if err != nil && !denied(err) {
			return nil, err
		}
		left[i.where] = err == nil && node == nil && !meta.ResultsFilteredByACLs
	}
	return left, nil
}

// lacks reports whether something that other has is missing in n.
func (n news) lacks(other news) bool {
	return slices.ContainsFunc(other.instances, func(o instance) bool {
		return !slices.ContainsFunc(n.instances, func(i instance) bool { return i.node.ID == o.node.ID })
	})
}

// same reports whether n says the same of the nodes as other.
func (n news) same(other news) bool {
	return n.filtered == other.filtered && slices.EqualFunc(n.instances, other.instances, func(a, b instance) bool {
		return a.condition == b.condition && a.adrift == b.adrift && sameNode(a.node, b.node) && (a.err == nil) == (b.err == nil) &&
			(a.err == nil || a.err.Error() == b.err.Error())
	})
}

func sameNode(a, b registry.Node) bool { return reflect.DeepEqual(a, b) }

// followKeys tells all keys that a Snapshot needs, whenever one of them changed.
func (w *watcher) followKeys(ctx context.Context) {
	var pairs []*api.KVPair
	q := &query{
		r:    w.r,
		what: "keys " + w.r.keys.State,
		ask: func(_ context.Context, c *api.Client, opts *api.QueryOptions) (meta *api.QueryMeta, err error) {
			pairs, meta, err = c.KV().List(w.r.keys.State, opts)
			if err == nil && meta.ResultsFilteredByACLs {
				err = &refusal{403, "what the token may not read was left out: give it key_prefix \"" +
					strings.TrimSuffix(w.r.keys.State, "state/") + "\" write"}
			}
			return meta, err
		},
		answered: func(ctx context.Context, _ bool) {
			select {
			case w.ours <- pairs:
			case <-ctx.Done():
			}
		},
		failed: func(_ context.Context, err error) {
			if denied(err) { // without our own keys there is nothing to say
				w.r.refused(err)
			}
		},
	}
	q.run(ctx)
}
