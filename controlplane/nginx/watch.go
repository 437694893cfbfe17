package nginx

import (
	"context"
	"slices"
	"time"
)

// glance is how often the watch looks at nginx: a handful of files of /proc.
const glance = 250 * time.Millisecond

// Changed returns a channel that gets a value when nginx changed and it was not us: the master died or is another one, or
// somebody reloaded it. What is to be done then, Apply does.
func (d *Driver) Changed() <-chan struct{} { return d.changed }

// Run watches nginx until ctx ends, and returns ctx's error.
func (d *Driver) Run(ctx context.Context) error {
	ticker := time.NewTicker(glance)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-ticker.C:
		}
		select {
		case d.busy <- struct{}{}:
		default:
			continue // an Apply looks for itself
		}
		changed := d.glance(ctx)
		d.release()
		if changed {
			select {
			case d.changed <- struct{}{}:
			default: // one is waiting already
			}
		}
	}
}

// glance says whether nginx changed since the last look.
func (d *Driver) glance(ctx context.Context) bool {
	d.reaper = d.reaper || inherits(d.master)
	if d.reaper {
		reap()
	}
	master, err := d.findMaster()
	if err != nil {
		return false // Apply says so
	}
	if master == (process{}) && d.o.Attach {
		d.clearSocket(ctx)
	}
	upgrading := master != (process{}) && d.upgrading() != (process{})
	d.mu.Lock()
	defer d.mu.Unlock()
	reloaded := slices.ContainsFunc(d.seen, func(w worker) bool {
		now, ok := readWorker(w.pid)
		return ok && now.process == w.process && now.leaving
	})
	changed := master != d.master || reloaded || upgrading != d.twoMasters
	if changed {
		d.log.Warn("nginx changed and it was not us", "pid", master.pid, "before", d.master.pid, "reloaded", reloaded, "upgrading", upgrading)
	}
	d.master, d.twoMasters = master, upgrading
	d.seen = accepting(master)
	if changed {
		d.state.notice(d.workers(master))
	}
	return changed
}

// remember makes what Apply left behind the state that the watch compares with.
func (d *Driver) remember() {
	upgrading := d.upgrading() != (process{})
	d.mu.Lock()
	defer d.mu.Unlock()
	d.seen = accepting(d.master)
	d.twoMasters = upgrading
}

// clearSocket removes the socket that a killed nginx left, so that the system can start it again.
func (d *Driver) clearSocket(ctx context.Context) {
	if err := d.control.removeStale(ctx); err != nil { // its orphans may serve still
		d.log.Debug("the control socket stays", "error", err)
	}
}
