package registry

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"
)

// Rollout is how a change reaches the gateways of a fleet one after the other, the value of a KindRollout object. Commit
// begins it with the change, so that no gateway can see one without the other; gateways carry it on. While it is under way
// it holds what stood before, which a gateway whose turn has not come lays over the state.
type Rollout struct {
	Seq      Seq             `json:"seq"` // of the change
	At       time.Time       `json:"at"`
	Author   string          `json:"author,omitempty"`
	Reason   string          `json:"reason,omitempty"`
	Settings RolloutSettings `json:"settings"`
	Changes  []RolledOut     `json:"changes"`
	// Keys are secrets that nobody but Changes names any more: they are deleted at the end.
	Keys []string `json:"keys,omitempty"`

	State   RolloutState `json:"state"`
	Message string       `json:"message,omitempty"` // why it is in this state
	Ended   time.Time    `json:"ended,omitzero"`
	// Released are the gateways whose turn has come, by name.
	Released map[string]Release `json:"released,omitempty"`
	Ready    time.Time          `json:"ready,omitzero"` // since when all that are released are in step
	Doubt    *Doubt             `json:"doubt,omitempty"`
	Covers   []Seq              `json:"covers,omitempty"` // changes that go on their way with it
	Into     Seq                `json:"into,omitempty"`   // the rollout that covers this one
}

// Doubt is that a gateway seems to be worse off with the change.
type Doubt struct {
	Gateway string    `json:"gateway"`
	Since   time.Time `json:"since"`
	Message string    `json:"message"`
}

// RolloutSettings are the pace of a Rollout.
type RolloutSettings struct {
	Canary int     `json:"canary"` // gateways of a group that are first
	Share  int     `json:"share"`  // of a group's gateways that each wave after them takes, in percent
	Soak   float64 `json:"soak"`   // seconds for which a wave must be well before the next one
}

// RolledOut is what a change did to an object.
type RolledOut struct {
	Kind      Kind            `json:"kind"`
	Name      string          `json:"name"`
	Seq       Seq             `json:"seq"`                 // of the change
	BeforeSeq Seq             `json:"beforeSeq,omitempty"` // zero: there was none
	Before    json.RawMessage `json:"before,omitempty"`    // never that of a secret; not kept after the end
	Deleted   bool            `json:"deleted,omitempty"`   // by the change
}

// Ref returns the name of the object.
func (c RolledOut) Ref() Ref { return Ref{c.Kind, c.Name} }

// Release is when the turn of a gateway came.
type Release struct {
	Group string    `json:"group"`
	Wave  int       `json:"wave"` // zero: the canary
	At    time.Time `json:"at"`
}

// RolloutState is how far a Rollout is.
type RolloutState string

// The states of a Rollout.
const (
	RolloutRunning   RolloutState = "running"
	RolloutPaused    RolloutState = "paused"    // by ops: no further gateway's turn comes
	RolloutReverting RolloutState = "reverting" // no gateway has the change any more; the desired state is being put back
	RolloutDone      RolloutState = "done"
	RolloutPromoted  RolloutState = "promoted" // by ops: all gateways' turn came at once
	RolloutReverted  RolloutState = "reverted"
	RolloutMerged    RolloutState = "merged" // another one carries its change too: Into
)

// HasEnded reports whether no gateway's turn is to come any more.
func (r *Rollout) HasEnded() bool {
	return slices.Contains([]RolloutState{RolloutDone, RolloutPromoted, RolloutReverted, RolloutMerged}, r.State)
}

// Roller carries rollouts on.
type Roller interface {
	// UpdateRollout writes what change makes of the rollout of seq, if nobody else wrote it in between; else it reads it
	// again, and calls change again. What change leaves alone is not written. It moves no Seq and makes no history.
	// Errors: ErrNotFound, and what change returns.
	UpdateRollout(ctx context.Context, seq Seq, change func(*Rollout) error) error
	// DropRollout deletes the rollout of seq; one that is not there is no error.
	DropRollout(ctx context.Context, seq Seq) error
}

// RolledOut reports whether changes of objects of the kind reach the gateways one after the other. Ops mean the others now.
func (k Kind) RolledOut() bool {
	return slices.Contains([]Kind{KindSecret, KindCertificate, KindUpstream, KindSite}, k)
}

// RolloutRef names the rollout of seq.
func RolloutRef(seq Seq) Ref { return Ref{KindRollout, HistoryName(seq)} }

// DecodeRollout reads the value of a KindRollout object.
func DecodeRollout(value json.RawMessage) (Rollout, error) {
	var r Rollout
	if err := json.Unmarshal(value, &r); err != nil {
		return r, fmt.Errorf("the rollout cannot be read: %w", err)
	}
	if r.Seq == 0 {
		return r, errors.New("the rollout names no seq")
	}
	return r, nil
}

// ChangeRollout returns what change makes of the value of a rollout; nil when it leaves it alone.
func ChangeRollout(value json.RawMessage, change func(*Rollout) error) (json.RawMessage, error) {
	r, err := DecodeRollout(value)
	if err != nil {
		return nil, err
	}
	before, err := MarshalJSON(r)
	if err != nil {
		return nil, err
	}
	if err := change(&r); err != nil {
		return nil, err
	}
	after, err := MarshalJSON(r)
	if err != nil || string(after) == string(before) {
		return nil, err
	}
	return after, nil
}
