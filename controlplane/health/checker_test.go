package health_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"sluice/controlplane/health"
	"sluice/controlplane/spec"
	"sluice/registry"
)

func TestMain(m *testing.M) {
	if os.Getenv(listenerEnv) != "" {
		listenForBenchmark()
		return
	}
	goleak.VerifyTestMain(m)
}

// target is a node of upstream io with the check of this YAML.
func target(t testing.TB, id, check string) health.Target {
	t.Helper()
	d, err := spec.ParseDocument([]byte("upstreams: {io: {check: {" + check + "}}}"))
	if err != nil {
		t.Fatal(err)
	}
	if errs := d.Validate(); errs != nil {
		t.Fatal(errs)
	}
	return health.Target{
		Upstream: "io", Check: *d.Upstreams["io"].WithDefaults("io").Check,
		Node: registry.Node{Service: "io", ID: id, Address: "127.0.0.1", Port: 9},
	}
}

// fleet is what the fake probes find, by the node's id.
type fleet struct {
	mu      sync.Mutex
	finds   map[string]health.Outcome
	checked map[string][]time.Time
}

func (f *fleet) set(id string, o health.Outcome) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.finds[id] = o
}

func (f *fleet) checks(id string) []time.Time {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.checked[id]
}

func (f *fleet) probe(_ context.Context, t health.Target) health.Outcome {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.checked[t.Node.ID] = append(f.checked[t.Node.ID], time.Now())
	return f.finds[t.Node.ID]
}

// inBubble runs a test in a bubble of synctest, with a Checker that runs and asks a fleet.
func inBubble(t *testing.T, test func(t *testing.T, c *health.Checker, f *fleet)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		f := &fleet{finds: map[string]health.Outcome{}, checked: map[string][]time.Time{}}
		c := health.New(health.Options{Log: slog.New(slog.DiscardHandler)})
		c.Fake(f.probe)
		stop := run(t, c)
		test(t, c, f)
		stop()
	})
}

// run starts c and returns what stops it, which a bubble needs before its test ends.
func run(t testing.TB, c *health.Checker) (stop func()) {
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- c.Run(ctx) }()
	return func() {
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	}
}

func key(id string) health.Key { return health.Key{Upstream: "io", ID: id} }

var (
	dead     = health.Outcome{Failed: true, Refused: true, Reason: "connect: connection refused"}
	hung     = health.Outcome{Failed: true, TimedOut: true, Reason: "connect: no answer in time"}
	stranger = health.Outcome{Failed: true, Stranger: true, Reason: `it is "n2"`}
)

func TestFallAndRise(t *testing.T) {
	t.Parallel()
	inBubble(t, func(t *testing.T, c *health.Checker, f *fleet) {
		c.Set([]health.Target{target(t, "n1", "")})
		synctest.Wait()
		if v := c.Verdicts()[key("n1")]; v.State != health.Healthy {
			t.Errorf("after the first check: %+v", v)
		}
		f.set("n1", dead)
		checks := len(f.checks("n1"))
		for len(f.checks("n1")) < checks+1 {
			time.Sleep(100 * time.Millisecond)
		}
		time.Sleep(2 * time.Second)
		if v := c.Verdicts()[key("n1")]; v.State != health.Healthy || !v.Refused || v.Reason == "" {
			t.Errorf("after one failure: %+v", v)
		}
		time.Sleep(13 * time.Second)
		if v := c.Verdicts()[key("n1")]; v.State != health.Unhealthy || !v.Refused {
			t.Errorf("after three failures: %+v", v)
		}
		f.set("n1", health.Outcome{Proven: true})
		time.Sleep(13 * time.Second)
		if v := c.Verdicts()[key("n1")]; v.State != health.Healthy || v.Refused || !v.Proven || v.Reason != "" || v.Flapping {
			t.Errorf("after two successes: %+v", v)
		}
	})
}

func TestIntervalHasJitter(t *testing.T) {
	t.Parallel()
	inBubble(t, func(t *testing.T, c *health.Checker, f *fleet) {
		c.Set([]health.Target{target(t, "n1", "")})
		time.Sleep(10 * time.Minute)
		checks := f.checks("n1")
		apart := map[time.Duration]bool{}
		for i := range checks[1:] {
			d := checks[i+1].Sub(checks[i])
			apart[d.Truncate(100*time.Millisecond)] = true
			if d < 4*time.Second || d > 6200*time.Millisecond {
				t.Errorf("checks are %s apart", d)
			}
		}
		if len(checks) < 100 || len(checks) > 150 || len(apart) < 10 {
			t.Errorf("%d checks with %d distances", len(checks), len(apart))
		}
	})
}

// Of a fleet that is set at once, the first checks come over the interval; of one more node it comes at once.
func TestFirstChecksAreSpread(t *testing.T) {
	t.Parallel()
	inBubble(t, func(t *testing.T, c *health.Checker, f *fleet) {
		var list []health.Target
		for i := range 2500 {
			list = append(list, target(t, fmt.Sprintf("n%04d", i), ""))
		}
		c.Set(list)
		start := time.Now()
		time.Sleep(7 * time.Second)
		seconds := map[int]int{}
		for i := range list {
			seconds[int(f.checks(list[i].Node.ID)[0].Sub(start)/time.Second)]++
		}
		if len(seconds) < 5 || seconds[0] > 1000 {
			t.Errorf("first checks by second: %v", seconds)
		}
		c.Set(append(list, target(t, "n9999", "")))
		synctest.Wait()
		if len(f.checks("n9999")) != 1 {
			t.Error("a single new node was not checked at once")
		}
	})
}

func TestUrgent(t *testing.T) {
	t.Parallel()
	inBubble(t, func(t *testing.T, c *health.Checker, f *fleet) {
		slow := target(t, "n1", "type: engineio")
		c.Set([]health.Target{slow})
		time.Sleep(time.Minute)
		before := len(f.checks("n1"))
		slow.Urgent = true
		c.Set([]health.Target{slow})
		synctest.Wait()
		if n := len(f.checks("n1")); n != before+1 {
			t.Errorf("%d checks at once", n-before)
		}
		time.Sleep(10 * time.Second)
		if n := len(f.checks("n1")) - before; n < 8 || n > 14 {
			t.Errorf("%d checks within ten seconds", n)
		}
		slow.Urgent = false
		c.Set([]health.Target{slow})
		time.Sleep(2 * time.Second) // the next one was planned already
		before = len(f.checks("n1"))
		time.Sleep(time.Minute)
		if n := len(f.checks("n1")) - before; n > 3 {
			t.Errorf("%d checks within a minute, when it is not urgent any more", n)
		}
	})
}

func TestSetKeepsWhatIsKnown(t *testing.T) {
	t.Parallel()
	one := func(change func(*health.Target)) func(*testing.T) health.Target {
		return func(t *testing.T) health.Target {
			n := target(t, "n1", "")
			change(&n)
			return n
		}
	}
	tests := map[string]struct {
		to   func(*testing.T) health.Target
		want health.State
	}{
		"nothing":     {one(func(*health.Target) {}), health.Unhealthy},
		"weight":      {one(func(n *health.Target) { n.Node.Weight = 7 }), health.Unhealthy},
		"check":       {one(func(n *health.Target) { n.Check.Interval = new(spec.Duration(time.Minute)) }), health.Unhealthy},
		"address":     {one(func(n *health.Target) { n.Node.Address = "127.0.0.2" }), health.Unknown},
		"port":        {one(func(n *health.Target) { n.Node.Port = 10 }), health.Unknown},
		"incarnation": {one(func(n *health.Target) { n.Node.Incarnation = "2" }), health.Unknown},
		"service":     {one(func(n *health.Target) { n.Node.Service = "other" }), health.Unknown},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			inBubble(t, func(t *testing.T, c *health.Checker, f *fleet) {
				f.set("n1", dead)
				c.Set([]health.Target{target(t, "n0", ""), target(t, "n1", ""), target(t, "n2", "")})
				time.Sleep(20 * time.Second)
				c.Set([]health.Target{tt.to(t), target(t, "n2", "")})
				got := map[string]health.State{}
				for k, v := range c.Verdicts() {
					got[k.ID] = v.State
				}
				if diff := cmp.Diff(map[string]health.State{"n1": tt.want, "n2": health.Healthy}, got); diff != "" {
					t.Error(diff)
				}
			})
		})
	}
}

func TestNoneIsNotChecked(t *testing.T) {
	t.Parallel()
	inBubble(t, func(t *testing.T, c *health.Checker, f *fleet) {
		c.Set([]health.Target{target(t, "n1", "type: none")})
		time.Sleep(time.Minute)
		if n := len(f.checks("n1")); n > 0 || len(c.Verdicts()) > 0 {
			t.Errorf("%d checks, %v", n, c.Verdicts())
		}
		c.Set(nil)
	})
}

// Changed tells of what matters, not of each check.
func TestChanged(t *testing.T) {
	t.Parallel()
	inBubble(t, func(t *testing.T, c *health.Checker, f *fleet) {
		changed := func() bool {
			select {
			case <-c.Changed():
				return true
			default:
				return false
			}
		}
		c.Set([]health.Target{target(t, "n1", "")})
		synctest.Wait()
		if !changed() {
			t.Error("not told that a node is healthy")
		}
		time.Sleep(time.Minute)
		if changed() {
			t.Error("told although nothing changed")
		}
		for _, o := range []health.Outcome{hung, stranger, dead, {}} {
			f.set("n1", o)
			time.Sleep(time.Minute)
			if !changed() {
				t.Errorf("not told of %+v", o)
			}
		}
		last := c.Verdicts()[key("n1")].Last
		if time.Since(last) > 10*time.Second {
			t.Errorf("the last check was %s ago", time.Since(last))
		}
	})
}

// What runs when the check is changed does not count for the new one.
func TestCheckChangesWhileOneRuns(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := health.New(health.Options{Log: slog.New(slog.DiscardHandler)})
		c.Fake(func(ctx context.Context, t health.Target) health.Outcome {
			if t.Check.Path == "/old" {
				<-ctx.Done()
				return health.Outcome{Failed: true, Stranger: true}
			}
			return health.Outcome{}
		})
		stop := run(t, c)
		c.Set([]health.Target{target(t, "n1", "type: http, path: /old")})
		synctest.Wait()
		c.Set([]health.Target{target(t, "n1", "type: http, path: /new")})
		time.Sleep(3 * time.Second)
		if v := c.Verdicts()[key("n1")]; v.State != health.Healthy || v.Stranger {
			t.Errorf("%+v", v)
		}
		stop()
	})
}

// When more is due than may run at a time, the rest waits and is no failure.
func TestInFlightIsBounded(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := health.New(health.Options{Log: slog.New(slog.DiscardHandler)})
		c.MaxInFlight(10)
		var mu sync.Mutex
		running, most, made := 0, 0, 0
		c.Fake(func(ctx context.Context, _ health.Target) health.Outcome {
			mu.Lock()
			running++
			made++
			most = max(most, running)
			mu.Unlock()
			<-ctx.Done()
			mu.Lock()
			running--
			mu.Unlock()
			return hung
		})
		stop := run(t, c)
		var list []health.Target
		for i := range 100 {
			list = append(list, target(t, fmt.Sprint("n", i), ""))
		}
		c.Set(list)
		time.Sleep(2 * time.Minute)
		stop()
		if most != 10 || made < 500 {
			t.Errorf("%d checks, at most %d at a time", made, most)
		}
	})
}
