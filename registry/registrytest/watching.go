package registrytest

import (
	"context"
	"errors"
	"slices"
	"testing"
	"time"

	"sluice/registry"
)

// watching is a running Watch, and the newest Snapshot that it sent.
type watching struct {
	t      *testing.T
	out    chan registry.Snapshot
	last   registry.Snapshot
	cancel context.CancelFunc
	done   chan error
}

func (e *env) watch(t *testing.T, r registry.Watcher) *watching {
	t.Helper()
	ctx, cancel := context.WithCancel(e.ctx)
	w := &watching{t: t, out: make(chan registry.Snapshot), cancel: cancel, done: make(chan error, 1)}
	go func() { w.done <- r.Watch(ctx, uses, w.out) }()
	t.Cleanup(w.stop)
	return w
}

// uses says that an upstream needs the service of its own name, as for registries that watch by service. Nodes of other
// services need not be in the Snapshot, so tests of nodes commit an upstream of that name first.
func uses(o registry.Object) []string {
	if o.Kind == registry.KindUpstream {
		return []string{o.Name}
	}
	return nil
}

func (w *watching) stop() {
	w.cancel()
	for {
		select {
		case <-w.out:
		case err := <-w.done:
			if err != nil && !errors.Is(err, context.Canceled) { // nil: the test has seen the end
				w.t.Errorf("Watch ended with %v, and not with its context's error", err)
			}
			return
		}
	}
}

// next waits for a Snapshot.
func (w *watching) next(limit time.Duration) registry.Snapshot {
	w.t.Helper()
	select {
	case w.last = <-w.out:
		return w.last
	case err := <-w.done:
		w.done <- err
		w.t.Fatalf("Watch ended: %v", err)
	case <-time.After(limit):
		w.t.Fatalf("no Snapshot within %s; the last one was %+v", limit, w.last)
	}
	panic("unreachable")
}

// until waits for a Snapshot that holds what is wanted.
func (w *watching) until(limit time.Duration, what string, ok func(registry.Snapshot) bool) registry.Snapshot {
	w.t.Helper()
	deadline := time.Now().Add(limit)
	for !ok(w.last) {
		left := time.Until(deadline)
		if left <= 0 {
			w.t.Fatalf("not in a Snapshot within %s: %s; the last one was %+v", limit, what, w.last)
		}
		w.next(left)
	}
	return w.last
}

// silent fails when a Snapshot comes within d.
func (w *watching) silent(d time.Duration, why string) {
	w.t.Helper()
	select {
	case s := <-w.out:
		w.t.Fatalf("%s, but there is a Snapshot: %+v\nafter: %+v", why, s, w.last)
	case <-time.After(d):
	}
}

func hasSeq(seq registry.Seq) func(registry.Snapshot) bool {
	return func(s registry.Snapshot) bool { return s.Seq >= seq }
}

func hasNode(ref registry.NodeRef) func(registry.Snapshot) bool {
	return func(s registry.Snapshot) bool { return indexNode(s.Nodes, ref) >= 0 }
}

func lacksNode(ref registry.NodeRef) func(registry.Snapshot) bool {
	return func(s registry.Snapshot) bool { return indexNode(s.Nodes, ref) < 0 }
}

func indexNode(nodes []registry.Node, ref registry.NodeRef) int {
	return slices.IndexFunc(nodes, func(n registry.Node) bool {
		return n.Service == ref.Service && n.ID == ref.ID && (ref.Incarnation == "" || n.Incarnation == ref.Incarnation)
	})
}

func hasTombstone(s registry.Snapshot, ref registry.NodeRef) bool {
	return slices.ContainsFunc(s.Tombstones, func(t registry.Tombstone) bool {
		return t.Service == ref.Service && t.ID == ref.ID
	})
}
