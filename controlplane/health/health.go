// Package health finds out whether nodes answer. A Checker probes the nodes that it is given, each at its upstream's
// interval, and says of each what it found; what follows from that is decided elsewhere.
package health

import (
	"time"

	"sluice/controlplane/spec"
	"sluice/registry"
)

// Target is a node to check. A node that is in two upstreams is two targets, since each upstream has its own check.
type Target struct {
	Upstream string
	Node     registry.Node
	Check    spec.Check // with its defaults; a target of type none is not checked
	// Urgent asks for a check at once and then every second (± 20 %), instead of at the check's interval: somebody waits
	// for the verdict. It does not change what makes a node unhealthy.
	Urgent bool
}

// Key names a target: nodes of one upstream differ by their ids.
type Key struct {
	Upstream string
	ID       string
}

// Key returns the name of t.
func (t Target) Key() Key { return Key{t.Upstream, t.Node.ID} }

// State is what the checks of a node come to.
type State string

// The states of a node.
const (
	Unknown   State = "unknown"   // no check passed yet, and not enough failed
	Healthy   State = "healthy"   // the first check passed, or as many in a row as the check's rise
	Unhealthy State = "unhealthy" // as many checks in a row failed as the check's fall
)

// Verdict is what the checks of a target found. State changes slowly, by fall and rise; Refused, Stranger, Proven and
// Reason are what the last check found, so that who must decide now can.
type Verdict struct {
	State State
	// Refused: nobody listens there (connection refused, or no such unix socket). The process is dead.
	Refused bool
	// Stranger: what answers proved to be another node than the one that registered. Only possible with an identity.
	Stranger bool
	// Proven: it answered, and proved to be the one that registered. Never true without an identity.
	Proven bool
	// Flapping: it became unhealthy at least three times within ten minutes. Each further time it has to answer for longer
	// before it counts as healthy again: 30 s, 1 min, 2 min, and 5 min at most.
	Flapping bool
	Since    time.Time // when State began; for Unknown, when the target was set
	Last     time.Time // the end of the last check that told something; zero before the first
	Reason   string    // why the last check failed, or what a node that passed still waits for; empty when all is well
}

// sameMeaning says whether nobody has to look at w who has seen v.
func (v Verdict) sameMeaning(w Verdict) bool {
	return v.State == w.State && v.Refused == w.Refused && v.Stranger == w.Stranger && v.Proven == w.Proven && v.Flapping == w.Flapping
}
