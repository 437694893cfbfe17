package api_test

import (
	"context"
	"errors"
	"sync/atomic"
	"time"

	"sluice/controlplane"
	"sluice/registry"
)

// fakeLocal is the gateway of the instance under test.
type fakeLocal struct {
	try      func(changes map[registry.Ref]*registry.Object) (controlplane.Trial, error)
	forecast func(changes map[registry.Ref]*registry.Object, fleet []controlplane.Status) []controlplane.Forecast
	snapshot atomic.Pointer[registry.Snapshot]
	events   *controlplane.Events
	status   atomic.Pointer[controlplane.Status]
	retries  atomic.Int32
}

func newLocal(name string) *fakeLocal {
	l := &fakeLocal{events: controlplane.NewEvents()}
	l.status.Store(&controlplane.Status{
		Gateway: name, Group: "default", Version: "test", Phase: controlplane.InStep, RevisionLive: "abc",
		Registry: controlplane.RegistryHealth{Connected: true, Since: time.Now()},
		Nginx: controlplane.Live{Running: true, PID: 1, Binary: "/usr/sbin/nginx", Version: "1.22.1", Since: time.Now(),
			Generations: []controlplane.Generation{{Number: 1, Since: time.Now(), Workers: []controlplane.Worker{{PID: 2, Memory: 3, Sockets: 4}}}}},
	})
	return l
}

func (l *fakeLocal) Status(context.Context) controlplane.Status { return *l.status.Load() }
func (l *fakeLocal) Retry()                                     { l.retries.Add(1) }

func (l *fakeLocal) Try(_ context.Context, changes map[registry.Ref]*registry.Object) (controlplane.Trial, error) {
	if l.try == nil {
		return controlplane.Trial{}, errors.New("nothing can be tried")
	}
	return l.try(changes)
}

func (l *fakeLocal) Forecast(changes map[registry.Ref]*registry.Object, fleet []controlplane.Status) ([]controlplane.Forecast, error) {
	if l.forecast == nil {
		return nil, errors.New("nothing can be told")
	}
	return l.forecast(changes, fleet), nil
}

func (l *fakeLocal) Events() *controlplane.Events { return l.events }

func (l *fakeLocal) Snapshot() (registry.Snapshot, bool) {
	if s := l.snapshot.Load(); s != nil {
		return *s, true
	}
	return registry.Snapshot{}, false
}

func (l *fakeLocal) Readings() *controlplane.Readings { return nil }

func (l *fakeLocal) Applies() controlplane.Applies {
	return controlplane.Applies{
		Counts: []controlplane.ApplyCount{{How: controlplane.Reload, Result: "live", Count: 3}, {Result: "failed", Count: 1}},
		Took:   controlplane.Histogram{Count: 3, Sum: 0.6, Buckets: map[float64]uint64{0.1: 1, 0.5: 3}},
	}
}

// brokenRegistry fails in all that it is asked.
type brokenRegistry struct {
	registry.Registry
	err       error
	connected bool
}

func (b brokenRegistry) List(context.Context, registry.Kind, string, int) (registry.Page, error) {
	return registry.Page{}, b.err
}

func (b brokenRegistry) Get(context.Context, registry.Ref) (registry.Object, error) {
	return registry.Object{}, b.err
}

func (b brokenRegistry) ListNodes(context.Context, string, string, int) (registry.NodePage, error) {
	return registry.NodePage{}, b.err
}

func (b brokenRegistry) GetNode(context.Context, registry.NodeRef) (registry.Node, error) {
	return registry.Node{}, b.err
}

func (b brokenRegistry) Put(context.Context, registry.Node, time.Duration) error { return b.err }

func (b brokenRegistry) Health() registry.Health { return registry.Health{Connected: b.connected} }

func (b brokenRegistry) Remove(context.Context, registry.NodeRef) error { return b.err }

func (b brokenRegistry) Commit(context.Context, registry.Tx) (registry.Committed, error) {
	return registry.Committed{}, b.err
}

func (b brokenRegistry) UpdateRollout(context.Context, registry.Seq, func(*registry.Rollout) error) error {
	return b.err
}
