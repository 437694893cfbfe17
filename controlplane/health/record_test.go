package health_test

import (
	"context"
	"log/slog"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"sluice/controlplane/health"
)

// From the third fall within ten minutes on, a node has to answer for longer before it is healthy, and never for more
// than five minutes; after ten quiet minutes all is forgotten.
func TestFlapDamping(t *testing.T) {
	t.Parallel()
	inBubble(t, func(t *testing.T, c *health.Checker, f *fleet) {
		n := target(t, "n1", "interval: 1s, fall: 1")
		c.Set([]health.Target{n})
		synctest.Wait()
		state := func(want health.State) time.Duration {
			t.Helper()
			start := time.Now()
			for c.Verdicts()[n.Key()].State != want {
				if time.Since(start) > time.Hour {
					t.Fatalf("stayed %+v", c.Verdicts()[n.Key()])
				}
				time.Sleep(100 * time.Millisecond)
			}
			return time.Since(start)
		}
		var back []time.Duration
		for range 8 {
			f.set("n1", dead)
			state(health.Unhealthy)
			f.set("n1", health.Outcome{})
			back = append(back, state(health.Healthy))
		}
		for i, least := range []time.Duration{0, 0, 30 * time.Second, time.Minute, 2 * time.Minute, 4 * time.Minute} {
			if back[i] < least || back[i] > least+5*time.Second {
				t.Errorf("after fall %d it was healthy after %s", i+1, back[i])
			}
		}
		for i, d := range back {
			if d > 5*time.Minute+5*time.Second {
				t.Errorf("after fall %d it was healthy after %s", i+1, d)
			}
		}
		if v := c.Verdicts()[n.Key()]; !v.Flapping {
			t.Errorf("%+v", v)
		}
		f.set("n1", dead)
		state(health.Unhealthy)
		f.set("n1", health.Outcome{})
		time.Sleep(10 * time.Second)
		if v := c.Verdicts()[n.Key()]; v.State != health.Unhealthy || !strings.Contains(v.Reason, "it has to answer for") {
			t.Errorf("%+v", v)
		}
		time.Sleep(20 * time.Minute)
		if v := c.Verdicts()[n.Key()]; v.State != health.Healthy || v.Flapping || v.Reason != "" {
			t.Errorf("after a quiet time: %+v", v)
		}
	})
}

// A process that is started again and again at the same place flaps, although each registers as another.
func TestRestartsFlap(t *testing.T) {
	t.Parallel()
	inBubble(t, func(t *testing.T, c *health.Checker, f *fleet) {
		n := target(t, "n1", "interval: 1s, fall: 1")
		for _, incarnation := range []string{"a", "b", "c"} {
			f.set("n1", health.Outcome{})
			n.Node.Incarnation = incarnation
			c.Set([]health.Target{n})
			time.Sleep(3 * time.Second)
			f.set("n1", dead)
			time.Sleep(3 * time.Second)
		}
		if v := c.Verdicts()[n.Key()]; v.State != health.Unhealthy || !v.Flapping {
			t.Errorf("%+v", v)
		}
	})
}

// A new node that fails is unhealthy after its fall, and that is no fall from health.
func TestNeverHealthy(t *testing.T) {
	t.Parallel()
	inBubble(t, func(t *testing.T, c *health.Checker, f *fleet) {
		f.set("n1", hung)
		c.Set([]health.Target{target(t, "n1", "")})
		synctest.Wait()
		if v := c.Verdicts()[key("n1")]; v.State != health.Unknown || v.Last.IsZero() {
			t.Errorf("after one failure: %+v", v)
		}
		time.Sleep(time.Minute)
		f.set("n1", health.Outcome{})
		for before := len(f.checks("n1")); len(f.checks("n1")) == before; {
			time.Sleep(time.Second)
		}
		if v := c.Verdicts()[key("n1")]; v.State != health.Unhealthy || v.Reason != "it answers again: 1 of 2 checks in a row" {
			t.Errorf("after one success: %+v", v)
		}
	})
}

// What this machine is at fault for tells nothing, and is tried again soon.
func TestUntold(t *testing.T) {
	t.Parallel()
	inBubble(t, func(t *testing.T, c *health.Checker, f *fleet) {
		c.Set([]health.Target{target(t, "n1", "")})
		synctest.Wait()
		f.set("n1", health.Outcome{Failed: true, Untold: true, Reason: "open a socket: too many open files"})
		time.Sleep(10 * time.Second)
		before := len(f.checks("n1"))
		time.Sleep(time.Minute)
		if v := c.Verdicts()[key("n1")]; v.State != health.Healthy || time.Since(v.Last) < time.Minute {
			t.Errorf("%+v", v)
		}
		if n := len(f.checks("n1")) - before; n < 45 {
			t.Errorf("%d checks within a minute", n)
		}
	})
}

// Time-outs count against nodes only when this process was there to see the answer.
func TestStandstill(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		still bool
		want  health.State
	}{"busy": {true, health.Healthy}, "idle": {false, health.Unhealthy}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				c := health.New(health.Options{Log: slog.New(slog.DiscardHandler)})
				var hangs atomic.Bool
				c.Fake(func(ctx context.Context, _ health.Target) health.Outcome {
					if !hangs.Load() {
						return health.Outcome{}
					}
					<-ctx.Done()
					if tt.still {
						c.StandStill(time.Second)
					}
					return hung
				})
				defer run(t, c)()
				c.Set([]health.Target{target(t, "n1", "")})
				synctest.Wait()
				hangs.Store(true)
				time.Sleep(2 * time.Minute)
				if v := c.Verdicts()[key("n1")]; v.State != tt.want {
					t.Errorf("%+v", v)
				}
			})
		})
	}
}
