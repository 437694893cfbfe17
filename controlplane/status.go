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
	SeqLive        registry.Seq `json:"seqLive"`   // of the newest change that is proven live, with all before it
	RevisionWanted string       `json:"revisionWanted,omitempty"`
	RevisionLive   string       `json:"revisionLive,omitempty"`

	Nodes    int                `json:"nodes"` // that are rendered, over all upstreams
	Applied  *LastApplied       `json:"applied,omitempty"`
	Wait     *Wait              `json:"wait,omitempty"`
	Failure  *Failure           `json:"failure,omitempty"`
	Rollout  *RolloutPart       `json:"rollout,omitempty"` // the oldest that concerns this gateway
	Problems []registry.Problem `json:"problems,omitempty"`
	Alarms   []registry.Problem `json:"alarms,omitempty"` // what ops should look at now: the guard holds, checks are ignored

	Certificates   []CertificateStatus `json:"certificates,omitempty"`   // that this gateway serves; sorted by name
	Upstreams      []UpstreamStatus    `json:"upstreams,omitempty"`      // that this gateway serves; sorted by name
	Exceptions     []NodeStatus        `json:"exceptions,omitempty"`     // nodes that are not plainly up; at most MaxExceptions
	MoreExceptions int                 `json:"moreExceptions,omitempty"` // that were left out

	// Sockets are counted when they are asked for; they never make a report of their own, but go along with the next: reportEvery
	// later at most.
	Sockets *Sockets `json:"sockets,omitempty"` // nil before something was compiled

	Rendering *Rendering `json:"rendering,omitempty"` // nil before something was compiled

	Findings *Findings      `json:"findings,omitempty"` // for the other gateways of the group; absent when it checks no nodes
	Registry RegistryHealth `json:"registry"`
	Nginx    Live           `json:"nginx"`
}

// MaxExceptions is how many nodes a Status names.
const MaxExceptions = 100

// CertificateStatus is a certificate as this gateway serves it.
type CertificateStatus struct {
	Name     string    `json:"name"`
	NotAfter time.Time `json:"notAfter"` // when it expires
}

// UpstreamStatus is an upstream as this gateway serves it.
type UpstreamStatus struct {
	Name    string `json:"name"`
	Service string `json:"service"`
	Nodes   int    `json:"nodes"`             // that are registered, or held
	Up      int    `json:"up"`                // that take new connections
	Held    int    `json:"held,omitempty"`    // that only the guard keeps
	Sockets int    `json:"sockets,omitempty"` // of its nodes; two upstreams of the same nodes have the same
	Alarm   string `json:"alarm,omitempty"`   // why somebody should look at it
}

// NodeState is how a node stands.
type NodeState string

// The states of a node. Up is never among the exceptions of a Status.
const (
	NodeUp        NodeState = "up"
	NodeSuspect   NodeState = "suspect"   // its registration or its answer is missing; what becomes of it is being decided
	NodeHeld      NodeState = "held"      // lost, but the guard keeps it in the rotation
	NodeUnhealthy NodeState = "unhealthy" // out of the rotation, by checks
	NodeIgnored   NodeState = "ignored"   // its checks fail, and are ignored since most nodes' do
	NodeFlapping  NodeState = "flapping"  // out of the rotation until it stays well
	NodeStranger  NodeState = "stranger"  // another process answers at its address
	NodeDraining  NodeState = "draining"  // by an override
	NodeDisabled  NodeState = "disabled"  // by an override
)

// NodeStatus is a node of an upstream as this gateway sees it.
type NodeStatus struct {
	Upstream string    `json:"upstream"`
	Service  string    `json:"service"`
	ID       string    `json:"id"`
	State    NodeState `json:"state"`
	Since    time.Time `json:"since,omitzero"`
	Reason   string    `json:"reason,omitempty"`
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
