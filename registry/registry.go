// Package registry holds what is desired (upstreams, sites, certificates, overrides, approvals) and what is alive (nodes), and
// hands both out as one immutable Snapshot. The etcd and consul packages below it are its implementations; registrytest
// is the conformance suite that each of them passes.
package registry

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"
)

// Seq is the number of a committed change of the desired state: 1 for the first, one more for each that follows. It is
// the same on every instance. Zero means "never".
type Seq uint64

// Kind is a kind of object. The registry does not look into the objects; it only keeps them.
type Kind string

// The kinds of the desired state, which Commit writes and a Snapshot carries.
const (
	KindUpstream    Kind = "upstream"
	KindSite        Kind = "site"
	KindCertificate Kind = "certificate"
	KindOverride    Kind = "override"
	// KindApproval ends a hold of the guard; it is named by the upstream.
	KindApproval Kind = "approval"
	// KindToken is who may use the API, and for what; it is named by the token's name and holds only a hash of it.
	KindToken Kind = "token"
	// KindSecret holds private keys, named by the SHA-256 of their content.
	KindSecret Kind = "secret"
)

// The kinds that are not part of the desired state: they are listed on demand and, but for rollouts, never in a Snapshot.
const (
	// KindGateway is a gateway's report, held under a lease by the gateway itself.
	KindGateway Kind = "gateway"
	// KindRollout is a change on its way to the gateways (Rollout), named as its history entry is. Commit begins it, and
	// UpdateRollout carries it on. It is in Snapshots, though it is not desired state.
	KindRollout Kind = "rollout"
	// KindHistory is one entry (Change) per Seq, named by the decimal Seq with leading zeros (HistoryName).
	KindHistory Kind = "history"
)

// DesiredKinds are the kinds of the desired state, in the order in which they depend on each other.
func DesiredKinds() []Kind {
	return []Kind{KindSecret, KindCertificate, KindUpstream, KindSite, KindOverride, KindApproval, KindToken}
}

// Confidential says that neither the history nor any event carries what objects of the kind hold.
func (k Kind) Confidential() bool { return k == KindSecret || k == KindToken }

// InSnapshots reports whether a Snapshot carries objects of the kind.
func InSnapshots(kind Kind) bool { return kind == KindRollout || slices.Contains(DesiredKinds(), kind) }

// Ref names an object.
type Ref struct {
	Kind Kind
	Name string
}

func (r Ref) String() string { return string(r.Kind) + "/" + r.Name }

// Object is one object as it was submitted: fields that this version does not know are kept.
type Object struct {
	Kind  Kind
	Name  string
	Seq   Seq             // the commit that last changed it; an object's ETag. Zero for a leased object
	Value json.RawMessage // a JSON object
}

// Ref returns the name of o.
func (o Object) Ref() Ref { return Ref{o.Kind, o.Name} }

// Snapshot is everything that a gateway needs, complete at one moment. It is never changed after it was sent.
type Snapshot struct {
	Seq        Seq         // of the newest commit that it holds
	Objects    []Object    // of DesiredKinds, and rollouts; sorted by kind and name
	Nodes      []Node      // sorted by service and id; one per (service, id)
	Tombstones []Tombstone // nodes that left on purpose, for a while; sorted by service and id
	Slots      []SlotTable // sorted by upstream
	Problems   []Problem   // what could not be decoded; sorted
}

// Tombstone says that a node was removed on purpose, as opposed to a lease that ran out.
type Tombstone struct {
	NodeRef
	At time.Time
}

// SlotTable is the order in which an ip_hash upstream lists its servers, the same for all gateways.
type SlotTable struct {
	Upstream string
	Version  uint64 // for compare-and-set; zero when the table was never written
	Slots    []Slot
}

// Slot is one position of an ip_hash upstream.
type Slot struct {
	Node   string `json:"node"`             // Key of the node that holds it, or that held it last
	Weight int    `json:"weight"`           // its weight: a position is as wide as its weight
	Absent uint64 `json:"absent,omitempty"` // the table's own count of absences when the node left; zero while present
}

// Problem is something that somebody has to mend. It never stops what is not concerned.
type Problem struct {
	Object  string `json:"object"`          // what it is about: "site/chat", "node/io/n1", "gateway/edge-1"
	Field   string `json:"field,omitempty"` // a JSON pointer into it
	Message string `json:"message"`         // what is wrong, and how to mend it
}

func (p Problem) String() string {
	if p.Field == "" {
		return p.Object + ": " + p.Message
	}
	return p.Object + " " + p.Field + ": " + p.Message
}

// Watcher sends Snapshots.
type Watcher interface {
	// Watch sends a complete Snapshot first and one after every change, until ctx ends, and then returns ctx's error. It
	// reconnects by itself, never sends a Snapshot that may be incomplete, and never closes out. When the receiver is
	// slow, Snapshots in between are left out: the newest is always sent. uses names the services that an object needs,
	// for registries that watch by service.
	Watch(ctx context.Context, uses func(Object) []string, out chan<- Snapshot) error
	// Health tells whether the registry answers now. It does not block.
	Health() Health
}

// Health is the state of the connection to the registry.
type Health struct {
	Connected bool
	Since     time.Time // since when Connected holds its value
	Error     string    // the last error while not connected
}

// Page is a part of a list.
type Page struct {
	Objects []Object // sorted by name
	Next    string   // the from of the next page; empty at the end
	Seq     Seq      // of the state that was read
}

// Store reads and changes the desired state.
type Store interface {
	// List returns up to limit objects of the kind whose name is at least from, sorted by name. It is linearizable: what a
	// Commit that has returned wrote is there. limit 0 means all.
	List(ctx context.Context, kind Kind, from string, limit int) (Page, error)
	// Get returns one object, or ErrNotFound.
	Get(ctx context.Context, ref Ref) (Object, error)
	// Commit makes a change as a whole or not at all, with its history entry, and returns its Seq. A Tx that changes
	// nothing commits nothing and returns the current Seq with Unchanged set. Errors: *ConflictError when an expectation
	// does not hold, *TooLargeError when tx is beyond the limits, ErrAway, and what tx.Check returned.
	Commit(ctx context.Context, tx Tx) (Committed, error)
	// TidyHistory deletes history entries that were written before a time, the oldest first and at most MaxTidied of them, and
	// reports whether there may be more. Several may do so at once: an entry that was written anew since it was looked at stays.
	TidyHistory(ctx context.Context, before time.Time) (more bool, err error)
}

// Limits of one transaction, the same for all registries. Both etcd and Consul take 128 operations; Consul's limit of
// 512 KiB is on the whole request after base64.
const (
	MaxTxObjects = 120
	MaxTxBytes   = 350_000
	MaxHistory   = 1000 // entries that are kept
)

// MaxTidied is how many history entries one TidyHistory deletes: Consul takes 128 operations.
const MaxTidied = 100

// HistoryAge is how long a history entry is kept, if MaxHistory newer ones do not take its place before. Each gateway looks for
// those that are older.
const HistoryAge = 90 * 24 * time.Hour

// Tx is a change of the desired state.
type Tx struct {
	Ops    []Op
	Author string // who, for the history
	Reason string // why, for the history; may be empty
	// Head, when set, is the Seq that the newest commit must have: nobody has changed anything since.
	Head *Seq
	// Rollout, when set, has the change begin a Rollout with these settings: every gateway waits for its turn.
	Rollout *RolloutSettings
	// Check, when set, is called with the state as it would be after the change, at one consistent moment. When it returns
	// an error, nothing is committed. It may be called again when another commit came in between.
	Check func(ctx context.Context, after View) error
}

// Op writes or deletes one object. A Ref occurs at most once in a Tx.
type Op struct {
	Ref
	Value json.RawMessage // nil deletes; deleting what does not exist is no change
	// IfSeq, when set, is the Seq that the object must have: zero means that it must not exist.
	IfSeq *Seq
}

// Committed is the result of a Commit.
type Committed struct {
	Seq       Seq
	Unchanged bool
	Changed   []Ref // what was really changed, in the order of the Ops
}

// View reads a consistent state.
type View interface {
	Get(ctx context.Context, ref Ref) (Object, error) // or ErrNotFound
	List(ctx context.Context, kind Kind) ([]Object, error)
	Seq() Seq // of the state, without the change that is being checked
}

// Change is a history entry, the value of a KindHistory object.
type Change struct {
	Seq     Seq             `json:"seq"`
	At      time.Time       `json:"at"`
	Author  string          `json:"author,omitempty"`
	Reason  string          `json:"reason,omitempty"`
	Changes []ObjectChanged `json:"changes"`
}

// ObjectChanged is one object of a Change. Of those of Confidential kinds, Before and After are {} where there was a value.
type ObjectChanged struct {
	Kind   Kind            `json:"kind"`
	Name   string          `json:"name"`
	Before json.RawMessage `json:"before,omitempty"` // absent when it was created
	After  json.RawMessage `json:"after,omitempty"`  // absent when it was deleted
}

// HeadRef names the newest Seq in a ConflictError.
var HeadRef = Ref{"registry", "head"}

// HistoryName returns the name of the history entry of seq.
func HistoryName(seq Seq) string { return fmt.Sprintf("%020d", uint64(seq)) }

// Nodes is how nodes come and go.
type Nodes interface {
	// Put registers n for ttl, or refreshes it: stateless and idempotent, so any instance may take any beat. A node with
	// the same service and id and another incarnation is replaced.
	Put(ctx context.Context, n Node, ttl time.Duration) error
	// Remove takes a node away on purpose and leaves a tombstone. With an incarnation, only that one is removed; a node that
	// is not there (any more) is ErrNotFound.
	Remove(ctx context.Context, ref NodeRef) error
	// ListNodes returns up to limit nodes of a service, or of all of them when service is empty, whose name (service/id) is at
	// least from, sorted by name. It is linearizable. limit 0 means all.
	ListNodes(ctx context.Context, service, from string, limit int) (NodePage, error)
	// GetNode returns a node, of whichever incarnation, or ErrNotFound. It is linearizable.
	GetNode(ctx context.Context, ref NodeRef) (Node, error)
}

// NodePage is a part of a list of nodes.
type NodePage struct {
	Nodes []Node // sorted by name
	Next  string // the from of the next page; empty at the end
}

// Slotter keeps the slot tables.
type Slotter interface {
	// PutSlots writes a table if its stored version is still t.Version, else it returns a *ConflictError.
	PutSlots(ctx context.Context, t SlotTable) error
	// ListSlots returns all tables that can be decoded, sorted by upstream. It is linearizable.
	ListSlots(ctx context.Context) ([]SlotTable, error)
}

// Leaser keeps what is gone when its holder is.
type Leaser interface {
	// Hold writes o, of a kind that is not desired state, and keeps it for ttl. It is called again to refresh or change it.
	Hold(ctx context.Context, o Object, ttl time.Duration) error
}

// Registry is all of it: what the etcd and consul packages implement.
type Registry interface {
	Watcher
	Store
	Nodes
	Slotter
	Leaser
	Roller
	// MinTTL is the shortest ttl that the registry keeps to; shorter ones are raised to it.
	MinTTL() time.Duration
}

// ErrNotFound says that an object or a node does not exist.
var ErrNotFound = errors.New("not found")

// ConflictError says that an object is not at the Seq that was expected.
type ConflictError struct {
	Ref  Ref
	Want Seq // zero: it should not exist
	Have Seq // zero: it does not exist
}

func (e *ConflictError) Error() string {
	switch {
	case e.Want == 0:
		return fmt.Sprintf("%s exists already, at seq %d", e.Ref, e.Have)
	case e.Have == 0:
		return fmt.Sprintf("%s does not exist (any more); seq %d was expected", e.Ref, e.Want)
	default:
		return fmt.Sprintf("%s is at seq %d, not %d: it was changed in between", e.Ref, e.Have, e.Want)
	}
}

// TooLargeError says that a transaction is beyond a limit.
type TooLargeError struct {
	What  string // "objects" or "bytes"
	Have  int
	Limit int
}

func (e *TooLargeError) Error() string {
	return fmt.Sprintf("the change has %d %s; one transaction takes at most %d: split it", e.Have, e.What, e.Limit)
}
