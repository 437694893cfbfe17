// Package controlplane turns what is desired and what is alive into a configuration, has it applied, and says how that
// went: Snapshot -> Config -> Bundle -> live.
package controlplane

import (
	"context"
	"time"

	"sluice/templates"
)

// Applier makes a bundle live, or returns why not and leaves the last good one live.
type Applier interface {
	// Apply returns when the bundle is proven live, or the last good one is live again. It does nothing, and says so,
	// when the bundle is live already. One call at a time.
	Apply(ctx context.Context, b templates.Bundle) (Applied, error)
	// Try tests a bundle as Apply would, and changes nothing.
	Try(ctx context.Context, b templates.Bundle) error
	// Due returns the earliest time at which the next reload should start, and why it has to wait. leaves says that a node
	// must leave the rotation, which is more urgent than a new one. A time that is past means now.
	Due(leaves bool) (at time.Time, why string)
	// Live returns the state of nginx as it is now.
	Live(ctx context.Context) Live
}

// How a bundle became live, the cheapest first.
type How string

// The ways.
const (
	Nothing How = "nothing" // it was live already
	Reload  How = "reload"  // a new generation of workers
	Start   How = "start"   // nginx was not running
)

// Applied is the result of an Apply.
type Applied struct {
	Revision string        `json:"revision"`
	How      How           `json:"how"`
	Took     time.Duration `json:"-"`
}

// Live is the state of the nginx that a gateway keeps.
type Live struct {
	Running     bool         `json:"running"`
	PID         int          `json:"pid,omitempty"`      // of the master
	Revision    string       `json:"revision,omitempty"` // last proven live
	Since       time.Time    `json:"since,omitzero"`     // since when Revision is live
	Binary      string       `json:"binary"`
	Version     string       `json:"version"`
	Generations []Generation `json:"generations"` // the current one first, then older ones, youngest first
	Connections Connections  `json:"-"`           // they become the Sockets of the Status
	Notes       []string     `json:"-"`           // what somebody should know, and do; they become Problems of the Status
}

// Generation is the workers that one reload started.
type Generation struct {
	Number  int       `json:"number"` // counts up; the current one has the highest
	Since   time.Time `json:"since"`
	Old     bool      `json:"old"` // it accepts no more and lives for its open connections
	Workers []Worker  `json:"workers"`
}

// Worker is one nginx worker process.
type Worker struct {
	PID     int   `json:"pid"`
	Memory  int64 `json:"memory"`  // resident bytes
	Sockets int   `json:"sockets"` // open TCP connections and unix sockets, of both sides
}
