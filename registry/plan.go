package registry

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"time"
)

// Plan is what a Tx comes to in a given state: the part of Commit that is the same for every registry. It holds only
// what really changes.
type Plan struct {
	Seq     Seq      // of this change
	Writes  []Object // to be written; their Seq is set and their values are compact
	Deletes []Ref    // to be deleted
	History Object   // to be written with them
	Rollout *Object  // likewise, when the change is rolled out
	Changed []Ref    // Writes and Deletes, in the order of the Ops
}

// Unchanged reports whether there is nothing to commit.
func (p *Plan) Unchanged() bool { return len(p.Changed) == 0 }

// Expired returns the history entry that is to be deleted with this change; ok is false while there are fewer than
// MaxHistory.
func (p *Plan) Expired() (name string, ok bool) {
	if p.Seq <= MaxHistory {
		return "", false
	}
	return HistoryName(p.Seq - MaxHistory), true
}

// Validate returns what is wrong with tx by itself, whatever the state.
func (tx Tx) Validate() error {
	seen := make(map[Ref]bool, len(tx.Ops))
	for _, op := range tx.Ops {
		switch {
		case !slices.Contains(DesiredKinds(), op.Kind):
			return fmt.Errorf("%s: %q is not a kind of the desired state: use one of %q", op.Ref, op.Kind, DesiredKinds())
		case !ValidObjectName(op.Name):
			return fmt.Errorf("%s: %q is not a name: use 1 to %d bytes of printable text", op.Ref, op.Name, maxObjectName)
		case seen[op.Ref]:
			return fmt.Errorf("%s occurs twice in one transaction: put both changes into one operation", op.Ref)
		case op.Value != nil && !isJSONObject(op.Value):
			return fmt.Errorf("%s: the value is not a JSON object", op.Ref)
		}
		seen[op.Ref] = true
	}
	return nil
}

// NewPlan works out what tx changes. head is the current Seq; have holds those of the objects named in tx.Ops that
// exist. Errors: *ConflictError, *TooLargeError.
func NewPlan(tx Tx, head Seq, have map[Ref]Object, at time.Time) (*Plan, error) {
	if tx.Head != nil && *tx.Head != head {
		return nil, &ConflictError{Ref: HeadRef, Want: *tx.Head, Have: head}
	}
	p := &Plan{Seq: head + 1}
	entry := Change{Seq: p.Seq, At: at.UTC(), Author: tx.Author, Reason: tx.Reason}
	rollout := Rollout{Seq: p.Seq, At: entry.At, Author: tx.Author, Reason: tx.Reason, State: RolloutRunning}
	size := 0
	for _, op := range tx.Ops {
		cur, exists := have[op.Ref]
		if op.IfSeq != nil && *op.IfSeq != cur.Seq {
			return nil, &ConflictError{Ref: op.Ref, Want: *op.IfSeq, Have: cur.Seq}
		}
		changed := ObjectChanged{Kind: op.Kind, Name: op.Name}
		switch {
		case op.Value == nil && !exists, op.Value != nil && exists && SameJSON(cur.Value, op.Value):
			continue
		case op.Value == nil && op.Kind == KindSecret && tx.Rollout != nil:
			rollout.Keys = append(rollout.Keys, op.Name) // what stood before needs it until the end
			continue
		case op.Value == nil:
			p.Deletes = append(p.Deletes, op.Ref)
		default:
			o := Object{Kind: op.Kind, Name: op.Name, Seq: p.Seq, Value: compact(op.Value)}
			p.Writes = append(p.Writes, o)
			size += len(o.Value)
			changed.After = o.Value
		}
		changed.Before = cur.Value
		if op.Kind.Confidential() {
			changed.Before, changed.After = withheld(changed.Before), withheld(changed.After)
		}
		if op.Kind.RolledOut() {
			rollout.Changes = append(rollout.Changes, RolledOut{
				Kind: op.Kind, Name: op.Name, Seq: p.Seq, BeforeSeq: cur.Seq, Before: changed.Before, Deleted: op.Value == nil,
			})
		}
		p.Changed = append(p.Changed, op.Ref)
		entry.Changes = append(entry.Changes, changed)
	}
	if n := len(p.Changed); n > MaxTxObjects {
		return nil, &TooLargeError{What: "objects", Have: n, Limit: MaxTxObjects}
	}
	value, err := MarshalJSON(entry)
	if err != nil {
		return nil, fmt.Errorf("encode the history entry of seq %d: %w", p.Seq, err)
	}
	p.History = Object{Kind: KindHistory, Name: HistoryName(p.Seq), Seq: p.Seq, Value: value}
	if tx.Rollout != nil && len(rollout.Changes) > 0 {
		rollout.Settings = *tx.Rollout
		value, err := MarshalJSON(rollout)
		if err != nil {
			return nil, fmt.Errorf("encode the rollout of seq %d: %w", p.Seq, err)
		}
		p.Rollout = &Object{Kind: KindRollout, Name: RolloutRef(p.Seq).Name, Seq: p.Seq, Value: value}
		size += len(value)
	}
	// The history entry, which holds each object before and after, goes into the same transaction: it counts.
	if size += len(value); size > MaxTxBytes {
		return nil, &TooLargeError{What: "bytes", Have: size, Limit: MaxTxBytes}
	}
	return p, nil
}

// withheld stands for a value that the history does not hold: it shows only that there was one.
func withheld(value json.RawMessage) json.RawMessage {
	if value == nil {
		return nil
	}
	return json.RawMessage("{}")
}

// Extras returns what is written with Writes: the history entry, and the rollout if there is one.
func (p *Plan) Extras() []Object {
	if p.Rollout == nil {
		return []Object{p.History}
	}
	return []Object{p.History, *p.Rollout}
}

// After returns the state as it would be with the plan carried out in the state that base reads.
func (p *Plan) After(base View) View {
	v := afterView{base: base, changed: make(map[Ref]*Object, len(p.Changed))}
	for _, ref := range p.Deletes {
		v.changed[ref] = nil
	}
	for i := range p.Writes {
		v.changed[p.Writes[i].Ref()] = &p.Writes[i]
	}
	return v
}

// afterView lays the changes of a plan over a state. A nil entry is a deleted object.
type afterView struct {
	base    View
	changed map[Ref]*Object
}

func (v afterView) Get(ctx context.Context, ref Ref) (Object, error) {
	switch o, ok := v.changed[ref]; {
	case !ok:
		return v.base.Get(ctx, ref)
	case o == nil:
		return Object{}, fmt.Errorf("%s: %w", ref, ErrNotFound)
	default:
		return *o, nil
	}
}

func (v afterView) Seq() Seq { return v.base.Seq() }

func (v afterView) List(ctx context.Context, kind Kind) ([]Object, error) {
	base, err := v.base.List(ctx, kind)
	if err != nil {
		return nil, err
	}
	out := slices.DeleteFunc(slices.Clone(base), func(o Object) bool {
		_, ok := v.changed[o.Ref()]
		return ok
	})
	for _, o := range v.changed {
		if o != nil && o.Kind == kind {
			out = append(out, *o)
		}
	}
	slices.SortFunc(out, func(a, b Object) int { return strings.Compare(a.Name, b.Name) })
	return out, nil
}

// SameJSON reports whether a and b are the same JSON value; spaces and the order of keys do not matter.
func SameJSON(a, b json.RawMessage) bool {
	if bytes.Equal(a, b) {
		return true
	}
	x, err := decodeNumbers(a)
	if err != nil {
		return false
	}
	y, err := decodeNumbers(b)
	return err == nil && reflect.DeepEqual(x, y)
}

// decodeNumbers keeps numbers as they are written, so that large integers are not rounded to the same float.
func decodeNumbers(raw json.RawMessage) (any, error) {
	d := json.NewDecoder(bytes.NewReader(raw))
	d.UseNumber()
	var v any
	err := d.Decode(&v)
	return v, err
}

// MarshalJSON is json.Marshal without the escaping of <, > and &: people read the values of a registry.
func MarshalJSON(v any) (json.RawMessage, error) {
	var buf bytes.Buffer
	e := json.NewEncoder(&buf)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		return nil, err
	}
	return bytes.TrimSuffix(buf.Bytes(), []byte("\n")), nil
}

func compact(raw json.RawMessage) json.RawMessage {
	var buf bytes.Buffer
	if err := json.Compact(&buf, raw); err != nil {
		return raw
	}
	return buf.Bytes()
}

func isJSONObject(raw json.RawMessage) bool {
	return json.Valid(raw) && bytes.HasPrefix(bytes.TrimLeft(raw, " \t\r\n"), []byte("{"))
}

// maxObjectName leaves room for "service/id", the name of an override.
const maxObjectName = 63 + 1 + maxIDBytes

// ValidObjectName reports whether s can name an object, of whatever kind: 1 to 317 bytes of printable text.
func ValidObjectName(s string) bool { return s != "" && len(s) <= maxObjectName && printable(s) }

// CheckLeased returns what is wrong with o as an object to Hold, or nil.
func CheckLeased(o Object) error {
	switch {
	case o.Kind == KindHistory || InSnapshots(o.Kind):
		return fmt.Errorf("%s: objects of this kind are written by Commit, not held under a lease", o.Ref())
	case !ValidName(string(o.Kind)):
		return fmt.Errorf("%s: %q is not a kind", o.Ref(), o.Kind)
	case !ValidObjectName(o.Name):
		return fmt.Errorf("%s: %q is not a name: use 1 to %d bytes of printable text", o.Ref(), o.Name, maxObjectName)
	case !isJSONObject(o.Value):
		return errors.New(o.Ref().String() + ": the value is not a JSON object")
	}
	return nil
}
