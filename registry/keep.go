package registry

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"time"
)

// DefaultTTL is how long a node lives without a beat. It beats every 5 s, so that two beats may be lost.
const DefaultTTL = 15 * time.Second

// firstRetry is the wait after the first Put that failed; it doubles up to the ordinary beat.
const firstRetry = 100 * time.Millisecond

// Putter takes beats: a registry, or an instance's API.
type Putter interface {
	Put(ctx context.Context, n Node, ttl time.Duration) error
}

// Keep registers n at once and then refreshes it, each ttl/3 ± 20 %, until ctx ends; it returns ctx's error, or, before
// anything is put, what is wrong with n. A Put that fails is repeated soon: two beats may be lost before ttl has passed.
// A ttl of zero means DefaultTTL. Keep does not remove n when it ends: a caller that leaves on purpose calls Remove,
// one that merely restarts does not.
func Keep(ctx context.Context, nodes Putter, n Node, ttl time.Duration, log *slog.Logger) error {
	if ttl <= 0 {
		ttl = DefaultTTL
	}
	if err := n.Validate(); err != nil {
		return fmt.Errorf("keep node %s: %w", n.Ref(), err)
	}
	beat := ttl / 3
	failures, retry := 0, firstRetry
	for {
		wait := Jitter(beat)
		err := putWithin(ctx, beat, nodes, n, ttl)
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case err != nil:
			if failures++; failures == 1 {
				log.Warn("node is not registered: trying on", "node", n.Ref().String(), "error", err)
			}
			wait = min(Jitter(retry), wait)
			retry = min(2*retry, beat)
		case failures > 0:
			log.Info("node is registered again", "node", n.Ref().String(), "failures", failures)
			failures, retry = 0, firstRetry
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(wait):
		}
	}
}

// putWithin keeps a Put that hangs from costing more than one beat.
func putWithin(ctx context.Context, limit time.Duration, nodes Putter, n Node, ttl time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	return nodes.Put(ctx, n, ttl)
}

// Jitter spreads d by ± 20 %, so that those who started together do not act together.
func Jitter(d time.Duration) time.Duration {
	return time.Duration(float64(d) * (0.8 + 0.4*rand.Float64()))
}
