package health

import (
	"context"
	"time"
)

// Outcome is what a test's probe says it found.
type Outcome struct {
	Failed, Untold, TimedOut, Refused, Stranger, Proven bool
	Reason                                              string
}

type probeFunc func(ctx context.Context, deadline time.Time) outcome

func (f probeFunc) probe(ctx context.Context, deadline time.Time) outcome { return f(ctx, deadline) }

// Fake makes c ask f instead of the network. It comes before Set.
func (c *Checker) Fake(f func(ctx context.Context, t Target) Outcome) {
	c.prober = func(t Target) prober {
		return probeFunc(func(ctx context.Context, deadline time.Time) outcome {
			ctx, cancel := context.WithDeadline(ctx, deadline)
			defer cancel()
			o := f(ctx, t)
			return outcome{o.Failed, o.Untold, o.TimedOut, o.Refused, o.Stranger, o.Proven, o.Reason}
		})
	}
}

// MaxInFlight sets how many checks run at a time.
func (c *Checker) MaxInFlight(n int) { c.inFlight = n }

// StandStill makes c believe that the process did not run for the last while.
func (c *Checker) StandStill(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := time.Now()
	c.stalls.add(now.Add(-d), now)
}
