package etcd

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"

	"sluice/registry"
	"sluice/registry/keyspace"
)

// errSilent says that a watch gave no sign of life. It may have died; or it was resumed by the client in an etcd where
// nothing happened since, which is silent by nature (see follow). The list that follows tells which.
var errSilent = errors.New("the watch is silent")

// feed is one prefix of keys that a Watch follows.
type feed struct {
	target string // of endpoints; empty for the main feed
	prefix string
	put    func(keyspace.Entry)
	remove func(key string)

	// Of the goroutine that owns the state:
	listed bool
	revs   map[string]int64 // the mod_revision of each key that is known
	cancel context.CancelFunc
}

// batch is news of a feed: a whole list, or events that belong together, or that etcd does not let us read it.
type batch struct {
	feed    *feed
	list    []*mvccpb.KeyValue
	events  []*clientv3.Event
	refused error
}

// take applies a batch to the state. A list is compared with what is known, so that listing again changes nothing
// where nothing was missed.
func (f *feed) take(b batch) {
	for _, ev := range b.events {
		key := string(ev.Kv.Key)
		if ev.Type == clientv3.EventTypeDelete {
			delete(f.revs, key)
			f.remove(key)
			continue
		}
		f.revs[key] = ev.Kv.ModRevision
		f.put(entry(ev.Kv))
	}
	if b.events != nil {
		return
	}
	revs := make(map[string]int64, len(b.list))
	for _, kv := range b.list {
		key := string(kv.Key)
		revs[key] = kv.ModRevision
		if known, ok := f.revs[key]; !ok || known != kv.ModRevision {
			f.put(entry(kv))
		}
	}
	for key := range f.revs {
		if _, ok := revs[key]; !ok {
			f.remove(key)
		}
	}
	f.revs, f.listed = revs, true
}

// run lists and watches the feed, and begins again whenever that ends, until ctx does.
func (f *feed) run(ctx context.Context, r *Registry, news chan<- batch) {
	wait := r.timing.retryMin
	for {
		listed, err := f.follow(ctx, r, news)
		if ctx.Err() != nil {
			return
		}
		if listed {
			wait = r.timing.retryMin
		}
		if listed && compacted(err) {
			r.log.Info("etcd has compacted what the watch had not seen yet: everything is listed again", "prefix", f.prefix)
			continue
		}
		if err == nil || listed && errors.Is(err, errSilent) {
			continue
		}
		r.note(err)
		r.log.Debug("etcd is listed and watched again", "prefix", f.prefix, "error", err)
		select {
		case <-ctx.Done():
			return
		case <-time.After(wait/2 + rand.N(wait)):
		}
		wait = min(2*wait, r.timing.retryMax)
	}
}

// follow lists the feed and watches it from there on. It returns nil when it is time to list again, and else what ended
// the watch.
func (f *feed) follow(ctx context.Context, r *Registry, news chan<- batch) (listed bool, err error) {
	client, err := r.connect(ctx)
	if err != nil {
		return false, err
	}
	var list *clientv3.GetResponse
	err = r.call(ctx, r.timing.list, func(ctx context.Context, c *clientv3.Client) (err error) {
		list, err = c.Get(ctx, f.prefix, clientv3.WithPrefix())
		return err
	})
	if err != nil {
		if refused(err) {
			send(ctx, news, batch{feed: f, refused: err})
		}
		return false, fmt.Errorf("list %s: %w", f.prefix, err)
	}
	if !send(ctx, news, batch{feed: f, list: list.Kvs}) {
		return false, ctx.Err()
	}

	// Without a leader, a member that is cut off would be silent for ever.
	ctx, cancel := context.WithCancel(clientv3.WithRequireLeader(ctx))
	defer cancel()
	// What comes next is revision+1. But etcd gives a watch that begins in the future no sign of life until that comes, so
	// it begins at the revision that was listed, whose events are left out.
	seen := list.Header.Revision
	events := client.Watch(ctx, f.prefix, clientv3.WithPrefix(), clientv3.WithRev(seen))
	reconcile := time.NewTimer(registry.Jitter(r.timing.reconcile))
	defer reconcile.Stop()
	alive := time.NewTicker(r.timing.progress)
	defer alive.Stop()
	heard, rev := time.Now(), seen
	for {
		select {
		case resp, ok := <-events:
			if !ok {
				return true, errors.New("the watch was closed")
			}
			if err := resp.Err(); err != nil {
				return true, fmt.Errorf("watch %s: %w", f.prefix, err)
			}
			// A revision that goes back is another etcd, or one that was restored: our watch would wait for the future.
			if resp.Header.GetRevision() < rev || resp.Header.GetClusterId() != list.Header.GetClusterId() {
				return true, fmt.Errorf("watch %s: etcd went back from revision %d to %d, or is another cluster",
					f.prefix, rev, resp.Header.GetRevision())
			}
			heard, rev = time.Now(), resp.Header.GetRevision()
			fresh := slices.DeleteFunc(resp.Events, func(ev *clientv3.Event) bool { return ev.Kv.ModRevision <= seen })
			if len(fresh) > 0 && !send(ctx, news, batch{feed: f, events: fresh}) {
				return true, ctx.Err()
			}
		case <-alive.C:
			if time.Since(heard) > r.timing.silence {
				r.leave(client)
				return true, errSilent
			}
			requestProgress(ctx, client, r.timing.progress/4)
		case <-reconcile.C:
			return true, nil
		}
	}
}

// requestProgress asks for a sign of life. That it can't be asked for shows in the silence that follows.
func requestProgress(ctx context.Context, client *clientv3.Client, limit time.Duration) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	_ = client.RequestProgress(ctx)
}

// send reports false when ctx ended.
func send(ctx context.Context, news chan<- batch, b batch) bool {
	select {
	case news <- b:
		return true
	case <-ctx.Done():
		return false
	}
}

// entry is a key of etcd's as the state takes it.
func entry(kv *mvccpb.KeyValue) keyspace.Entry {
	return keyspace.Entry{Key: string(kv.Key), Value: kv.Value, Version: uint64(kv.ModRevision), Created: uint64(kv.CreateRevision)}
}

// mainFeed follows all of sluice's own that a Snapshot needs.
func mainFeed(s *keyspace.State, prefix string) *feed {
	return &feed{prefix: prefix, put: s.Put, remove: s.Remove, revs: make(map[string]int64)}
}

// endpointsFeed follows the nodes of one target.
func endpointsFeed(s *keyspace.State, e endpointSet) *feed {
	return &feed{
		prefix: e.prefix,
		revs:   make(map[string]int64),
		put: func(kv keyspace.Entry) {
			key := kv.Key
			n, err := e.decode(kv)
			s.Problem(key, "node/"+e.service+"/"+strings.TrimPrefix(key, e.prefix), err)
			if err != nil {
				s.Nodes.Remove(e.sortKey(key))
				return
			}
			s.Nodes.Set(e.sortKey(key), n)
		},
		remove: func(key string) {
			s.Problem(key, "", nil)
			s.Nodes.Remove(e.sortKey(key))
		},
	}
}

// drop takes all that came from the feed out of the state.
func (f *feed) drop() {
	for key := range f.revs {
		f.remove(key)
	}
}
