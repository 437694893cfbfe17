package nginx

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"syscall"
	"time"
)

// answers is how many fresh connections in a row must be answered alike. What is proven is that no older worker accepts;
// this is for what we have not thought of.
const answers = 5

// step is how often the proof looks: the time that it may add. Looking more often would take the processor from the workers
// that are to start.
const step = 5 * time.Millisecond

// head is for how long nothing is looked at: until nginx tells the older workers, 100 ms after it has started the new ones,
// nothing can be proven, and the processor is the new workers'.
const head = 90 * time.Millisecond

// quiet is how long after an [error] of the master's new workers may still come. A module may fail a reload with no more
// than that.
const quiet = time.Second

// prove returns when new workers answer id and none of those before accepts any more, or a *RefusedError. With an empty id
// nobody is asked. nginx starts new workers, waits for 100 ms, and only then tells the old ones: until then both accept,
// and an answer of a new one proves nothing.
func (d *Driver) prove(ctx context.Context, id string, before []worker, tail *logTail) error {
	ctx, cancel := context.WithTimeoutCause(ctx, d.o.ProveTimeout, errTimeout{"the proof that new workers serve and old ones do not", d.o.ProveTimeout})
	defer cancel()
	older := pids(before)
	serving := slices.DeleteFunc(slices.Clone(before), func(w worker) bool { return w.leaving })
	var said []logLine
	var failedAt time.Time
	if len(serving) > 0 {
		wait := time.NewTimer(head)
		defer wait.Stop()
		select {
		case <-wait.C:
		case <-ctx.Done():
			// poll tells why
		}
	}
	err := poll(ctx, step, func() (bool, error) {
		for _, line := range tail.lines() {
			if !line.severe() || slices.Contains(older, line.pid) || strings.HasPrefix(line.text, "*") {
				continue // of an older worker, or of a client's connection
			}
			said = append(said, line)
			if line.fatal(d.master.pid) {
				return false, errFatal
			}
			if line.pid == d.master.pid && !line.bindRetry() && (line.level == "error" || line.level == "crit") && failedAt.IsZero() {
				failedAt = time.Now()
			}
		}
		if !d.master.alive() {
			return false, errors.New("nginx's master died")
		}
		if slices.ContainsFunc(serving, worker.accepts) { // the cheap question first: it is asked some hundred times
			if !failedAt.IsZero() && time.Since(failedAt) > quiet && len(d.newcomers(before)) == 0 {
				return false, errFatal
			}
			return false, nil
		}
		if len(d.newcomers(before)) == 0 {
			return false, nil
		}
		if id == "" {
			return true, nil
		}
		answer, ok := d.control.agree(ctx, answers)
		return ok && answer == id, nil
	})
	if err == nil {
		if len(said) > 0 {
			d.log.Warn("nginx complained while it took the configuration", "output", words(said))
		}
		return nil
	}
	refused := &RefusedError{Stage: StageReload, Output: words(said, d.confDir(id), d.Base()), Err: err}
	if len(d.newcomers(before)) > 0 {
		refused.Stage = StageProve
	}
	if errors.Is(err, errFatal) {
		refused.Err = nil
	} else if tail.skipped {
		refused.Err = fmt.Errorf("%w (nginx's error log, %s, cannot be read here: it says why)", err, tail.path)
	}
	return refused
}

// errFatal says that nginx's log told of the failure.
var errFatal = errors.New("nginx gave up")

// newcomers returns the master's workers that accept and were not there before.
func (d *Driver) newcomers(before []worker) []worker {
	return slices.DeleteFunc(accepting(d.master), func(w worker) bool {
		return slices.ContainsFunc(before, func(b worker) bool { return b.process == w.process })
	})
}

// repair brings the links in step with what nginx really serves, whatever the Driver before was doing when it ended, and
// returns the id of that. It is empty when nginx serves nothing of ours.
func (d *Driver) repair(ctx context.Context) (string, error) {
	inStep := func(id string) bool { return d.linked(current) == id && d.linked(good) == id }
	if id, ok := d.control.agree(ctx, 1); ok && id == d.live.ID && inStep(id) {
		return id, nil
	}
	id, err := d.settled(ctx)
	if err != nil || id == "" {
		return "", err
	}
	m := d.readManifest(id)
	if m.ID == "" {
		return "", nil // of a state directory that is lost: nobody knows what it was
	}
	if !inStep(id) {
		d.log.Info("nginx serves another configuration than the links say: they follow", "config", id,
			"current", d.linked(current), "good", d.linked(good))
		for _, link := range []string{current, good} {
			if err := d.link(link, id); err != nil {
				return "", err
			}
		}
		if err := syncPath(d.o.Dir); err != nil {
			return "", err
		}
	}
	d.isLive(m)
	if serving := accepting(d.master); len(serving) > 0 {
		d.mu.Lock()
		d.since = serving[0].since()
		d.mu.Unlock()
	}
	return id, nil
}

const (
	// settleTimeout is for a reload that somebody else began: nginx tries for 2.5 s to bind a port that is taken.
	settleTimeout = 4 * time.Second
	// settleAge is how old the youngest worker must be: for 100 ms of that, older ones accept beside it.
	settleAge = 300 * time.Millisecond
	// settleSwitch is how long after current was switched a reload may still be about to begin.
	settleSwitch = time.Second
)

// settled waits until one generation alone accepts, and returns the id that it answers; empty when it has no control
// server of ours, or does not come to rest.
func (d *Driver) settled(ctx context.Context) (string, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, settleTimeout, errTimeout{"a reload that another began", settleTimeout})
	defer cancel()
	var id string
	err := poll(ctx, 5*time.Millisecond, func() (bool, error) {
		if !d.master.alive() {
			return false, errors.New("nginx's master died")
		}
		serving := accepting(d.master)
		if len(serving) == 0 {
			return false, nil
		}
		for _, w := range serving {
			if w.age() < settleAge {
				return false, nil
			}
		}
		answer, err := d.control.ask(ctx, pageReload)
		if errors.Is(err, os.ErrNotExist) || errors.Is(err, syscall.ECONNREFUSED) {
			return true, nil
		}
		var ok bool
		if id, ok = d.control.agree(ctx, answers); !ok || id != answer {
			return false, nil
		}
		return id == d.linked(current) || d.linkAge(current) > settleSwitch, nil
	})
	if late := (errTimeout{}); errors.As(err, &late) {
		d.log.Warn("nginx does not settle: its workers may be dying one after another", "waited", late.in)
		return "", nil // a new configuration may be what mends it
	}
	if err != nil {
		return "", fmt.Errorf("wait until nginx serves one configuration: %w", err)
	}
	return id, nil
}
