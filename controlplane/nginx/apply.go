package nginx

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"sluice/templates"
)

// Apply makes b live and returns when that is proven, or when the last good one is live again: then with a *RefusedError.
// It does nothing when b is live already. When ctx ends while nginx reloads, Apply returns at once and leaves it to the
// next one, or to the next Driver, to see what became of it.
func (d *Driver) Apply(ctx context.Context, b templates.Bundle) (Applied, error) {
	begin := time.Now()
	if err := d.acquire(ctx); err != nil {
		return Applied{}, err
	}
	defer d.release()
	defer d.remember()
	how, err := d.apply(ctx, b)
	if err != nil {
		return Applied{}, err
	}
	applied := Applied{Revision: b.Revision, How: how, Took: time.Since(begin)}
	if how != Nothing {
		d.log.Info("configuration is live", "how", how, "revision", b.Revision, "config", d.live.ID, "took", applied.Took)
	}
	return applied, nil
}

func (d *Driver) apply(ctx context.Context, b templates.Bundle) (How, error) {
	want, err := d.wanted(b)
	if err != nil {
		return "", &RefusedError{Stage: StageWrite, Err: err}
	}
	if err := d.look(ctx); err != nil {
		return "", err
	}
	if d.master == (process{}) {
		if d.o.Attach {
			return "", d.prepare(ctx, b, want)
		}
		return Started, d.start(ctx, b, want)
	}
	if old := d.upgrading(); old != (process{}) {
		if d.live.same(want) {
			return Nothing, nil
		}
		return "", &RefusedError{Stage: StageReload, Err: fmt.Errorf("a binary upgrade is under way, and the old master %d "+
			"still serves beside the new one %d: finish it with signal QUIT to %d", old.pid, d.master.pid, old.pid)}
	}
	id, err := d.repair(ctx)
	if err != nil {
		return "", err
	}
	if id == d.live.ID && d.live.same(want) {
		return Nothing, nil
	}
	return Reloaded, d.reload(ctx, b, want)
}

// ready stages and tests b. When the test has passed, it is on the disk for good and poised to become current: all of that
// takes its time side by side.
func (d *Driver) ready(ctx context.Context, b templates.Bundle, want manifest) (staged, error) {
	s, err := d.stage(b, want)
	if err != nil {
		return staged{}, &RefusedError{Stage: StageWrite, Err: err}
	}
	synced := make(chan error, 1)
	go func() { synced <- errors.Join(s.sync(), d.poise(s.ID)) }()
	err = d.test(ctx, s)
	if err := <-synced; err != nil {
		return staged{}, &RefusedError{Stage: StageWrite, Err: err}
	}
	if err != nil {
		return staged{}, errors.Join(err, d.prune())
	}
	return s, nil
}

// reload makes b live in the nginx that runs.
func (d *Driver) reload(ctx context.Context, b templates.Bundle, want manifest) error {
	s, err := d.ready(ctx, b, want)
	if err != nil {
		return err
	}
	before := workersOf(d.master)
	tail := openTail(d.errorLog(d.master))
	defer tail.close()
	previous := d.linked(current)
	undo, err := d.swap()
	if err != nil {
		return &RefusedError{Stage: StageWrite, Err: err}
	}
	begin := ticks()
	if err := d.master.signal(syscall.SIGHUP); err != nil {
		return &RefusedError{Stage: StageReload, Err: fmt.Errorf("signal nginx: %w", err), Undo: undo()}
	}
	d.note(s.ID, begin)
	err = d.prove(ctx, s.ID, before, tail)
	if err == nil {
		return d.proven(s)
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	var refused *RefusedError
	if errors.As(err, &refused) {
		refused.Undo = errors.Join(undo(), d.goBack(ctx, previous, before, refused.Stage))
	}
	return err
}

// goBack brings the configuration back to which current leads again, after one was not proven live. stage is where that
// one failed.
func (d *Driver) goBack(ctx context.Context, previous string, before []worker, stage Stage) error {
	ctx = context.WithoutCancel(ctx) // prove has a time-out of its own
	if !d.master.alive() {
		return errors.New("nginx's master died")
	}
	m := d.readManifest(previous)
	if m.ID == "" {
		return nil // nginx had nothing of ours
	}
	answer := m.ID
	if m.Revision == "" {
		answer = "" // the empty configuration of mode Include has no control server
	}
	if stage == StageReload && len(d.newcomers(before)) == 0 {
		if id, ok := d.control.agree(ctx, answers); answer == "" || ok && id == answer {
			return nil // nginx did not take the new one
		}
	}
	before = workersOf(d.master)
	tail := openTail(d.errorLog(d.master))
	defer tail.close()
	begin := ticks()
	if err := d.master.signal(syscall.SIGHUP); err != nil {
		return fmt.Errorf("signal nginx: %w", err)
	}
	d.note(previous, begin)
	return d.prove(ctx, answer, before, tail)
}

// start starts nginx with b. When it does not, it starts with the last good one.
func (d *Driver) start(ctx context.Context, b templates.Bundle, want manifest) error {
	previous := d.linked(good)
	s, err := d.ready(ctx, b, want)
	if err != nil {
		return d.startGood(ctx, previous, err)
	}
	if err := d.quitOrphans(ctx); err != nil {
		return &RefusedError{Stage: StageStart, Err: err}
	}
	if _, err := d.swap(); err != nil {
		return d.startGood(ctx, previous, &RefusedError{Stage: StageWrite, Err: err})
	}
	if err := d.launch(ctx, s.ID); err != nil {
		return d.startGood(ctx, previous, err)
	}
	return d.proven(s)
}

// startGood starts nginx with the last good configuration, because of an error that it returns.
func (d *Driver) startGood(ctx context.Context, id string, because error) error {
	var refused *RefusedError
	if id == "" || ctx.Err() != nil || !errors.As(because, &refused) {
		return because
	}
	refused.Undo = func() error {
		if m, err := d.findMaster(); err != nil {
			return err
		} else if m != (process{}) { // it started, and did not answer as it should
			d.setMaster(m)
			if err := d.stop(ctx); err != nil {
				return err
			}
		}
		if d.linked(current) != id {
			if err := d.link(current, id); err != nil {
				return err
			}
		}
		if err := d.quitOrphans(ctx); err != nil {
			return err
		}
		if err := d.launch(ctx, id); err != nil {
			return err
		}
		d.isLive(d.readManifest(id))
		return nil
	}()
	return because
}

// prepare is all that can be done while a service of the system does not run: it finds the last good configuration when
// it starts, or, before there is one, the first that passed the test.
func (d *Driver) prepare(ctx context.Context, b templates.Bundle, want manifest) error {
	refused := &RefusedError{Stage: StageStart, Err: fmt.Errorf("nginx does not run (%s has the pid of no nginx master), and it is "+
		"not sluice's to start: start it, for example with systemctl start nginx", d.o.PIDFile)}
	d.clearSocket(ctx)
	if d.linked(good) != "" {
		return refused
	}
	if _, err := d.ready(ctx, b, want); err != nil {
		return err
	}
	if _, err := d.swap(); err != nil {
		return &RefusedError{Stage: StageWrite, Err: err}
	}
	return refused
}

// note writes down that a reload began at a tick, for the generations' numbers and their spacing.
func (d *Driver) note(id string, begin uint64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.state.Reloads = append(d.state.Reloads, reload{max(idNumber(id), d.state.last()+1), begin})
	d.state.prune(d.workers(d.master))
	if err := d.state.save(d.o.Dir); err != nil { // a reload is worth more than the numbers of the generations
		d.log.Warn("a restart of sluice will lose the numbers of nginx's generations", "error", err)
	}
}

// proven makes s the last good configuration.
func (d *Driver) proven(s staged) error {
	if err := d.link(good, s.ID); err != nil {
		return fmt.Errorf("the configuration is live, but could not be marked as good: %w", err)
	}
	d.isLive(s.manifest)
	_ = os.Remove(filepath.Join(d.o.Dir, back))
	return errors.Join(syncPath(d.o.Dir), d.prune())
}

func (d *Driver) setMaster(m process) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.master = m
}

func (d *Driver) isLive(m manifest) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.live, d.since = m, time.Now()
}
