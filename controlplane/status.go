package controlplane

import (
	"time"

	"sluice/registry"
)

// Phase is what a gateway is doing.
type Phase string

// The phases.
const (
	Starting Phase = "starting" // nothing was applied yet
	InStep   Phase = "in_step"  // what is wanted is live
	Applying Phase = "applying"
	Waiting  Phase = "waiting" // a change waits for its turn: see Wait
	Failed   Phase = "failed"  // the last good configuration serves: see Failure
)

// Status is one gateway's state: what its API answers, and what it reports to the registry.
type Status struct {
	Gateway string `json:"gateway"`
	Group   string `json:"group"`
	Version string `json:"version"` // of sluice
	Phase   Phase  `json:"phase"`
	// Stale says that the registry has not answered since the start: what serves is what the disk held as last proven good.
	Stale bool `json:"stale,omitempty"`

	SeqWanted      registry.Seq `json:"seqWanted"` // of the newest Snapshot
	SeqLive        registry.Seq `json:"seqLive"`   // of the Snapshot that is proven live
	RevisionWanted string       `json:"revisionWanted,omitempty"`
	RevisionLive   string       `json:"revisionLive,omitempty"`

	Nodes    int                `json:"nodes"` // that are rendered, over all upstreams
	Applied  *LastApplied       `json:"applied,omitempty"`
	Wait     *Wait              `json:"wait,omitempty"`
	Failure  *Failure           `json:"failure,omitempty"`
	Problems []registry.Problem `json:"problems,omitempty"`
	Registry RegistryHealth     `json:"registry"`
	Nginx    Live               `json:"nginx"`
}

// LastApplied is the newest Apply that succeeded.
type LastApplied struct {
	At           time.Time `json:"at"`
	How          How       `json:"how"`
	Milliseconds float64   `json:"milliseconds"`
}

// Wait says what a pending change waits for.
type Wait struct {
	Since time.Time `json:"since"`
	Until time.Time `json:"until"`
	What  string    `json:"what"` // "2 nodes join, 1 node leaves"
	Why   string    `json:"why"`
}

// Failure is why the wanted configuration is not live.
type Failure struct {
	At       time.Time `json:"at"` // of the newest attempt
	Message  string    `json:"message"`
	Attempts int       `json:"attempts"`
	NextTry  time.Time `json:"nextTry"`
}

// RegistryHealth is the connection to the registry.
type RegistryHealth struct {
	Connected bool      `json:"connected"`
	Since     time.Time `json:"since"`
	Error     string    `json:"error,omitempty"`
}
