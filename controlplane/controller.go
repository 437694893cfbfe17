package controlplane

import (
	"context"
	"errors"
	"log/slog"
	"reflect"
	"slices"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"sluice/registry"
	"sluice/templates"
)

// Renderer writes a configuration down.
type Renderer interface {
	Render(cfg templates.Config) (templates.Bundle, error)
	// Fingerprint names the templates that Render uses: two gateways with the same ones have the same.
	Fingerprint() string
}

// Source is what the controller needs of a registry.
type Source interface {
	registry.Watcher
	registry.Store
	registry.Slotter
	registry.Leaser
	registry.Roller
}

// Options are what a Controller is made of. All are required but Checker and Wake.
type Options struct {
	Gateway      string
	Group        string // the sites that name it are this gateway's
	Version      string // of sluice, for the report
	LastGoodPath string // the file of the LastGood; what the guard remembers is beside it
	Registry     Source
	Applier      Applier
	Renderer     Renderer
	Checker      Checker         // somebody else runs it
	Facts        func() Facts    // without Group and Files; asked again at each compile
	Wake         <-chan struct{} // nginx died, or somebody else changed it
	Log          *slog.Logger
}

// Timing of the controller.
const (
	calm        = time.Second           // a change is applied at once when there were few before it in this time
	quietMin    = 20 * time.Millisecond // others are gathered until it was quiet for this long,
	quietMax    = time.Second           // but no longer than this
	restFactor  = 9                     // in a storm, a proposal is followed by a rest so many times as long as it took
	staleAfter  = time.Second           // the registry has this long to answer before the last good state is taken
	inputPeriod = 2 * time.Second       // certificate files and template overrides are looked at this often
	retryMin    = 5 * time.Second       // what nginx refused is tried again after this, doubling
	retryMax    = 5 * time.Minute       // up to this
	retryOther  = time.Second           // something else than what was refused is tried after this
	reportEvery = 10 * time.Second      // the report's lease is refreshed this often
	reportTTL   = 30 * time.Second      // and two refreshes may be lost
	reportMin   = time.Second           // reports are at least this far apart
	maxOld      = 4                     // old generations of workers beyond which there is an alarm
)

// Controller keeps one gateway in step: it holds the newest Snapshot, compiles it, and has one apply in flight.
type Controller struct {
	Options
	retry   chan struct{} // capacity 1
	changed chan struct{} // capacity 1: the status is another
	status  atomic.Pointer[Status]
	events  *Events
	counter applyCounter
	crew    *crew
	latest  atomic.Pointer[registry.Snapshot] // nil before there is one
	ground  atomic.Pointer[ground]            // of trials; nil before there is one
	known   *Readings                         // of the objects of the newest Snapshot, and some more
	loaded  *LastGood                         // from disk; nil when there was none

	memories chan memory // capacity 1: the newest that is to be saved
}

// New returns a Controller that knows what the disk holds as last proven good. A file that can't be read is reported and
// otherwise taken as absent.
func New(o Options) *Controller {
	c := &Controller{
		Options: o, retry: make(chan struct{}, 1), changed: make(chan struct{}, 1), events: NewEvents(), memories: make(chan memory, 1), known: NewReadings(),
	}
	c.crew = &crew{Controller: c, poke: make(chan struct{}, 1)}
	last, ok, err := loadLastGood(o.LastGoodPath)
	if err != nil {
		o.Log.Warn("the last good state is of no use; waiting for the registry", "error", err)
	}
	if ok {
		c.loaded = &last
	}
	c.status.Store(&Status{Gateway: o.Gateway, Group: o.Group, Version: o.Version, Phase: Starting})
	return c
}

// Run keeps the gateway in step until ctx ends, and returns ctx's error.
func (c *Controller) Run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	snapshots := make(chan registry.Snapshot)
	g.Go(func() error { return c.Registry.Watch(ctx, Uses, snapshots) })
	told := make(chan []peer)
	g.Go(func() error { return c.peers(ctx, told) })
	g.Go(func() error { return c.saveMemory(ctx) })
	g.Go(func() error { return newLoop(c).run(ctx, snapshots, told) })
	g.Go(func() error { return c.report(ctx) })
	g.Go(func() error { return c.watchHealth(ctx) })
	g.Go(func() error { return c.crew.run(ctx) })
	return g.Wait()
}

// Retry tries at once what waits for its next try, and looks at nginx again.
func (c *Controller) Retry() { poke(c.retry) }

// Status returns the gateway's state now.
func (c *Controller) Status(ctx context.Context) Status {
	s := *c.status.Load()
	health := c.Registry.Health()
	s.Registry = RegistryHealth{Connected: health.Connected, Since: health.Since, Error: health.Error}
	s.Nginx = c.Applier.Live(ctx)
	if g := c.ground.Load(); g != nil {
		s.Rendering = &g.facts.Rendering
		s.count(g.compiled.Members)
	}
	s.Problems = slices.Clip(s.Problems)
	for _, note := range s.Nginx.Notes {
		s.Problems = append(s.Problems, registry.Problem{Object: "gateway/" + c.Gateway, Message: note})
	}
	return s
}

// Events returns what this gateway sees happen.
func (c *Controller) Events() *Events { return c.events }

// Applies counts what became of configurations since the start.
func (c *Controller) Applies() Applies { return c.counter.applies() }

// Snapshot returns the newest Snapshot, or the last good one of the disk; ok is false before there is either.
func (c *Controller) Snapshot() (s registry.Snapshot, ok bool) {
	latest := c.latest.Load()
	if latest == nil {
		return registry.Snapshot{}, false
	}
	return *latest, true
}

// Readings are what the objects of the Snapshot were read as.
func (c *Controller) Readings() *Readings { return c.known }

// watchHealth tells when the registry goes away or comes back.
func (c *Controller) watchHealth(ctx context.Context) error {
	tick := time.NewTicker(inputPeriod)
	defer tick.Stop()
	connected := true
	for {
		health := c.Registry.Health()
		if health.Connected != connected {
			connected = health.Connected
			e := Event{Type: EventRegistry, What: "back"}
			if !connected {
				e = Event{Type: EventRegistry, What: "away", Message: health.Error}
			}
			c.events.Add(e)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
}

// publish makes s the status; the report follows when it says something new.
func (c *Controller) publish(s Status) {
	was := *c.status.Swap(&s)
	c.events.Add(statusEvents(was, s)...)
	if !reflect.DeepEqual(was.Rollout, s.Rollout) {
		poke(c.crew.poke)
	}
	poke(c.changed)
}

func poke(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// run makes and applies configurations until ctx ends.
func (l *loop) run(ctx context.Context, snapshots <-chan registry.Snapshot, told <-chan []peer) error {
	ctx, cancel := context.WithCancel(ctx)
	defer func() {
		cancel()
		l.drain()
	}()
	stale := time.NewTimer(staleAfter)
	defer stale.Stop()
	inputs := time.NewTicker(inputPeriod)
	defer inputs.Stop()
	var checked <-chan struct{}
	if l.Checker != nil {
		checked = l.Checker.Changed()
	}
	for {
		l.step(ctx)
		l.publish()
		select {
		case <-ctx.Done():
			return ctx.Err()
		case s := <-snapshots:
			l.take(s)
		case <-stale.C:
			l.takeLastGood()
			if !l.met {
				l.meet(nil)
			}
		case list := <-told:
			l.meet(list)
		case <-checked:
			l.change()
		case err := <-l.put:
			l.restored(err)
		case h := <-l.older.found:
			l.found(h)
		case <-inputs.C:
			l.look(ctx)
		case <-l.Wake:
			l.force = true
		case <-l.retry:
			l.force, l.failure = true, nil
			l.retryRefused(time.Now(), true)
			l.change()
		case r := <-l.results:
			l.finish(r)
		case err := <-l.slotted:
			l.slotting = false
			var conflict *registry.ConflictError
			if err != nil && !errors.As(err, &conflict) {
				l.Log.Warn("slots were not stored; they are tried again", "error", err)
			}
		case <-l.timer.C:
		}
	}
}
