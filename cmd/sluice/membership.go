package main

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"sluice/registry"
)

// leaveTime is how long a node that leaves tries to say so; without a word, it leaves when its ttl has passed.
const leaveTime = 5 * time.Second

// membership keeps a node registered from join to leave.
type membership struct {
	nodes    nodeWriter
	gateways gatewayLister
	node     registry.Node
	ttl      time.Duration
	log      *slog.Logger

	stop context.CancelFunc // nil before join
	kept sync.WaitGroup
}

func newMembership(nodes nodeWriter, gateways gatewayLister, n registry.Node, ttl time.Duration, log *slog.Logger) *membership {
	return &membership{nodes: nodes, gateways: gateways, node: n, ttl: ttl, log: log.With("node", n.Ref().String())}
}

// join begins to register the node, and returns at once.
func (m *membership) join() {
	ctx, stop := context.WithCancel(context.Background())
	m.stop = stop
	m.kept.Go(func() {
		putter := &settlingPutter{Putter: m.nodes, first: func() { m.log.Info("registered", "address", m.node.HostPort()) }}
		if err := registry.Keep(ctx, putter, m.node, m.ttl, m.log); !errors.Is(err, context.Canceled) {
			m.log.Error("the node cannot be registered", "error", err)
		}
	})
}

// leave takes the node away. Before join, it does nothing.
func (m *membership) leave() {
	if m.stop == nil {
		return
	}
	m.stop()
	m.kept.Wait()
	ctx, cancel := context.WithTimeout(context.Background(), leaveTime)
	defer cancel()
	err := m.nodes.Remove(ctx, m.node.Ref())
	switch {
	case err == nil:
		m.log.Info("deregistered")
	case errors.Is(err, registry.ErrNotFound):
		m.log.Info("was not registered any more")
	default:
		m.log.Warn("could not be deregistered: it leaves when its ttl has passed", "ttl", m.ttl, "error", err)
	}
}

// settlingPutter lets a Put that is under way come to its end when Keep is stopped: one that is cut short might still
// arrive, after the removal that follows.
type settlingPutter struct {
	registry.Putter
	first func() // is called after the first Put that succeeded
	once  sync.Once
}

func (p *settlingPutter) Put(ctx context.Context, n registry.Node, ttl time.Duration) error {
	settled := context.WithoutCancel(ctx)
	if deadline, ok := ctx.Deadline(); ok {
		var cancel context.CancelFunc
		settled, cancel = context.WithDeadline(settled, deadline)
		defer cancel()
	}
	err := p.Putter.Put(settled, n, ttl)
	if err == nil {
		p.once.Do(p.first)
	}
	return err
}
