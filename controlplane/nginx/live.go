package nginx

import (
	"context"
	"time"

	"sluice/templates"
)

// How a bundle became live, the cheapest first.
type How string

// The ways.
const (
	Nothing  How = "nothing" // it was live already
	Reloaded How = "reload"  // a new generation of workers
	Started  How = "start"   // nginx was not running
)

// Applied is the result of an Apply.
type Applied struct {
	Revision string
	How      How
	Took     time.Duration
}

// Live is the state of nginx as it is now.
type Live struct {
	Running     bool
	PID         int       // of the master
	Revision    string    // last proven live
	Since       time.Time // since when Revision is live
	Binary      string
	Version     string
	Generations []Generation // the current one first, then older ones, youngest first
	Connections Connections
	Notes       []string // what somebody should know, and do: an alarm about old generations, a binary that was replaced
}

// Generation is the workers that one reload started.
type Generation struct {
	Number  int // counts up; the current one has the highest
	Since   time.Time
	Old     bool // it accepts no more and lives for its open connections
	Workers []Worker
}

// Worker is one nginx worker process.
type Worker struct {
	PID     int
	Memory  int64 // resident bytes
	Sockets int   // open TCP connections and unix sockets, of both sides
}

// Live returns the state of nginx as it is now; what is open, as of at most a second ago. It reads /proc, asks the kernel for
// sockets, and nobody else.
func (d *Driver) Live(ctx context.Context) Live {
	live, master := d.describe(ctx)
	d.measure(master, &live) // not under the lock: it takes a while when there are many sockets
	if note := alarm(live.Generations); note != "" {
		live.Notes = append(live.Notes, note)
	}
	return live
}

func (d *Driver) describe(ctx context.Context) (Live, process) {
	d.mu.Lock()
	defer d.mu.Unlock()
	master, err := d.findMaster()
	live := Live{
		Running:  master != (process{}),
		PID:      master.pid,
		Revision: d.live.Revision,
		Since:    d.since,
	}
	if err != nil {
		live.Notes = append(live.Notes, err.Error())
	}
	if live.Running {
		if err := d.describeRunning(ctx, master); err != nil {
			live.Notes = append(live.Notes, err.Error())
		}
		if note := d.replaced(master); note != "" {
			live.Notes = append(live.Notes, note)
		}
	}
	live.Binary, live.Version = d.binary.Path, d.binary.Version
	live.Generations = d.generations(d.workers(master))
	return live, master
}

// Capabilities returns what the program that runs can do; when none runs, what Options.Binary can.
func (d *Driver) Capabilities() templates.Capabilities {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.binary.Caps
}
