package controlplane

import (
	"bytes"
	"context"
	"maps"
	"slices"
	"time"

	"sluice/registry"
	"sluice/templates"
)

// loop is the state of a running Controller; one goroutine owns it.
type loop struct {
	*Controller
	watchman

	snapshot registry.Snapshot // with what is kept of what the registry lost
	have     bool              // snapshot is set
	stale    bool              // it is from the disk
	good     Good              // what was last proven live
	files    map[string]FileFact
	print    string // the templates' fingerprint

	dirty  bool         // snapshot, files or templates changed since wanted was made
	since  time.Time    // of the first change that is gathered
	ready  time.Time    // when gathering ends
	recent [3]time.Time // the last changes, to tell a calm from a storm; oldest first
	rest   time.Time    // until when the next proposal of a storm is not made: they would take all of a core

	turn   turn      // as of wanted
	wanted *proposal // nil when there is none, or it could not be rendered
	live   *proposal // proven live
	force  bool      // have the Applier look at nginx even if wanted is live

	refused   map[Version]*refusal
	older     older
	missing   []Version // of the newest compile's objects, those that were left out
	failure   *Failure
	failed    string // the revision that was refused; empty when it could not be rendered
	wait      *Wait
	applied   *LastApplied
	applying  bool
	results   chan result
	slotting  bool
	slotted   chan error
	put       chan error
	timer     *time.Timer
	alarm     time.Time // when the timer fires; zero when it does not
	published Status
}

// proposal is a configuration that could be made live.
type proposal struct {
	Compiled
	bundle   templates.Bundle
	snapshot registry.Snapshot
	seq      registry.Seq // of the newest change that it has, and all before
	stale    bool
}

// result is how an apply ended.
type result struct {
	proposal *proposal
	applied  Applied
	err      error
}

func newLoop(c *Controller) *loop {
	l := &loop{
		Controller: c,
		files:      map[string]FileFact{},
		refused:    map[Version]*refusal{},
		results:    make(chan result),
		slotted:    make(chan error),
		put:        make(chan error),
		older:      older{found: make(chan history)},
		watchman:   c.newWatchman(),
		timer:      time.NewTimer(time.Hour),
		print:      c.Renderer.Fingerprint(),
	}
	l.timer.Stop()
	if c.loaded != nil {
		l.good = c.loaded.good()
	}
	return l
}

// drain waits for what is in flight.
func (l *loop) drain() {
	l.timer.Stop()
	if l.applying {
		<-l.results
	}
	if l.slotting {
		if err := <-l.slotted; err != nil {
			l.Log.Debug("slots were not stored; the next start does it", "error", err)
		}
	}
	if l.older.looking {
		<-l.older.found
	}
	if l.putting {
		if err := <-l.put; err != nil {
			l.Log.Debug("what the registry lost was not put back", "error", err)
		}
	}
}

func (l *loop) take(s registry.Snapshot) {
	kept, before := len(l.kept), l.snapshot
	next := l.desire.take(s, time.Now())
	if l.have {
		l.events.Add(snapshotEvents(before, next)...)
	}
	l.latest.Store(&next)
	l.snapshot, l.have, l.stale = next, true, false
	if n := len(l.kept); n != kept {
		l.Log.Warn("objects that the registry lost are kept", "objects", n, "seq", s.Seq)
	}
	l.crew.take(s.Objects)
	l.change()
}

// takeLastGood takes what the disk holds, when the registry has not answered until now.
func (l *loop) takeLastGood() {
	if l.have || l.loaded == nil {
		return
	}
	l.Log.Warn("the registry does not answer; starting from the last good state", "seq", l.loaded.Snapshot.Seq)
	l.snapshot, l.have, l.stale = l.loaded.Snapshot, true, true
	l.latest.Store(&l.loaded.Snapshot)
	l.change()
}

// change notes that something changed. After a calm it is used at once, else gathered with what follows.
func (l *loop) change() {
	now := time.Now()
	switch {
	case l.dirty:
		l.ready = earlier(later(now.Add(quietMin), l.rest), l.since.Add(quietMax))
	case now.Sub(l.recent[0]) > calm:
		l.since, l.ready = now, now.Add(l.crew.jitter())
	default:
		l.since, l.ready = now, earlier(later(now.Add(quietMin), l.rest), now.Add(quietMax))
	}
	l.dirty = true
	copy(l.recent[:], l.recent[1:])
	l.recent[len(l.recent)-1] = now
}

func earlier(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// look finds changes of files, and stores slots that could not be stored before.
func (l *loop) look(ctx context.Context) {
	if fingerprint := l.Renderer.Fingerprint(); fingerprint != l.print {
		l.print = fingerprint
		l.retryRefused(time.Now(), true)
		l.change()
	}
	if l.have && l.readFiles() {
		l.change()
	}
	l.storeSlots(ctx)
}

// readFiles reads the files that certificates name, and returns whether one is another than before.
func (l *loop) readFiles() bool {
	both := l.snapshot // what stood before may need files too
	both.Objects = slices.Concat(both.Objects, layBefore(l.snapshot, ActiveRollouts(l.snapshot.Objects)).Objects)
	files := ReadFiles(CertificateFiles(both, l.good))
	same := maps.EqualFunc(files, l.files, func(a, b FileFact) bool { return a.Err == b.Err && bytes.Equal(a.Data, b.Data) })
	l.files = files
	return !same
}

// step does the next thing that can be done now, or sets the timer for when it can.
func (l *loop) step(ctx context.Context) {
	l.timer.Stop()
	l.alarm = time.Time{}
	if l.have {
		l.restore(ctx)
		l.lookUp(ctx)
	}
	if l.applying || !l.have || !l.met {
		return
	}
	now := time.Now()
	switch {
	case l.again.IsZero():
	case now.Before(l.again):
		l.until(l.again)
	default:
		l.again = time.Time{}
		l.change()
	}
	if at := l.retryRefused(now, false); !at.IsZero() {
		l.until(at)
	}
	for l.dirty { // once more when Render refused something
		if now.Before(l.ready) {
			l.until(l.ready)
			return
		}
		l.dirty = false
		l.propose()
		l.storeSlots(ctx)
	}
	if l.wanted == nil {
		if !now.Before(l.failure.NextTry) {
			l.change()
			l.until(l.ready)
			return
		}
		l.until(l.failure.NextTry)
		return
	}
	if l.live != nil && l.wanted.bundle.Revision == l.live.bundle.Revision && !l.force {
		l.isLive(l.wanted)
		return
	}
	if at := l.nextTry(); now.Before(at) {
		l.wait = nil
		l.until(at)
		return
	}
	diff := l.diff()
	if at, why := l.Applier.Due(diff.leave > 0); now.Before(at) && l.live != nil && !l.force {
		since := now
		if l.wait != nil {
			since = l.wait.Since
		}
		l.wait = &Wait{Since: since, Until: at, What: diff.String(), Why: why}
		l.until(at)
		return
	}
	l.apply(ctx)
}

// until has step called again at a time, or earlier.
func (l *loop) until(at time.Time) {
	if l.alarm.IsZero() || at.Before(l.alarm) {
		l.alarm = at
		l.timer.Reset(time.Until(at))
	}
}

// isLive notes that p is proven live.
func (l *loop) isLive(p *proposal) {
	l.live, l.good = p, p.Used
	l.failure, l.failed, l.wait = nil, "", nil
	l.acquit()
}

func (l *loop) diff() changes {
	var live templates.Config
	if l.live != nil {
		live = l.live.Config
	}
	return compare(live, l.wanted.Config)
}

// nextTry returns when the wanted configuration may be tried, given what failed before.
func (l *loop) nextTry() time.Time {
	switch {
	case l.failure == nil:
		return time.Time{}
	case l.failed == l.wanted.bundle.Revision:
		return l.failure.NextTry
	default:
		return l.failure.At.Add(retryOther)
	}
}

// propose compiles and renders what is wanted.
func (l *loop) propose() {
	defer func(began time.Time) { l.rest = time.Now().Add(restFactor * time.Since(began)) }(time.Now())
	l.readFiles()
	facts := l.Facts()
	facts.Group, facts.Templates, facts.Files, facts.Refused, facts.Readings = l.Group, l.print, l.files, l.refusals(), l.known
	rollouts := ActiveRollouts(l.snapshot.Objects)
	held := slices.DeleteFunc(slices.Clone(rollouts), func(r registry.Rollout) bool { return !heldFrom(l.Gateway)(r) })
	facts.Growing = touched(rollouts)
	laid := layBefore(l.snapshot, held)
	facts.Rulings = l.judge(laid, time.Now())
	good := l.good
	good.Older = l.older.versions
	compiled := Compile(laid, good, facts)
	l.missing = compiled.LeftOut
	l.aim(compiled, facts.Rulings)
	bundle, err := l.Renderer.Render(compiled.Config)
	l.turn = l.turnIn(rollouts, held, facts)
	if err != nil {
		l.wanted = nil
		if !l.quarantine(compiled.Used, compiled.Config, err) {
			l.fail("", err)
		}
		return
	}
	l.wanted = &proposal{Compiled: compiled, bundle: bundle, snapshot: l.snapshot, seq: l.turn.seq, stale: l.stale}
	l.ground.Store(&ground{snapshot: l.snapshot, good: good, facts: facts, compiled: compiled, bundle: bundle, stale: l.stale})
}

// apply starts to make the wanted configuration live.
func (l *loop) apply(ctx context.Context) {
	p := l.wanted
	l.applying, l.force, l.wait = true, false, nil
	go func() {
		applied, err := l.Applier.Apply(ctx, p.bundle)
		if err == nil && !p.stale {
			if err := l.lastGood(p).save(l.LastGoodPath); err != nil {
				l.Log.Error("a start without the registry would use an older state", "error", err)
			}
		}
		l.results <- result{p, applied, err}
	}()
}

func (l *loop) lastGood(p *proposal) LastGood {
	last := LastGood{Gateway: l.Gateway, Revision: p.bundle.Revision, Snapshot: p.snapshot, Files: p.Used.Files}
	refs := slices.SortedFunc(maps.Keys(p.Used.Objects), compareRefs)
	for _, ref := range refs {
		last.Objects = append(last.Objects, p.Used.Objects[ref])
	}
	return last
}

func (l *loop) finish(r result) {
	l.applying = false
	l.counter.note(r.applied, r.err)
	if r.err != nil {
		if l.quarantine(r.proposal.Used, r.proposal.Config, r.err) {
			return
		}
		l.fail(r.proposal.bundle.Revision, r.err)
		return
	}
	l.isLive(r.proposal)
	if r.applied.How != Nothing || l.applied == nil {
		l.applied = &LastApplied{At: time.Now(), How: r.applied.How, Milliseconds: float64(r.applied.Took.Microseconds()) / 1000}
		l.Log.Info("in step", "revision", r.applied.Revision, "seq", r.proposal.seq, "nodes", r.proposal.Nodes)
	}
}

// fail notes that revision can't be made live: it is tried again, less and less often.
func (l *loop) fail(revision string, err error) {
	now := time.Now()
	attempts := 1
	if l.failure != nil && l.failed == revision {
		attempts = l.failure.Attempts + 1
	}
	delay := backoff(attempts)
	l.failed = revision
	l.failure = &Failure{At: now, Message: err.Error(), Attempts: attempts, NextTry: now.Add(delay)}
	l.Log.Error("not applied; the last good configuration serves", "revision", revision, "attempts", attempts, "next", delay, "error", err)
}

// storeSlots writes the slot tables that the newest compile asked for. Another gateway may be faster: then its table comes
// with the watch.
func (l *loop) storeSlots(ctx context.Context) {
	if l.wanted == nil || l.stale || l.slotting || len(l.wanted.Slots) == 0 {
		return
	}
	tables := l.wanted.Slots
	l.slotting = true
	go func() {
		var first error
		for _, t := range tables {
			if err := l.Registry.PutSlots(ctx, t); err != nil && first == nil {
				first = err
			}
		}
		l.slotted <- first
	}()
}
