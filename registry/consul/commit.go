package consul

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"slices"
	"time"

	"github.com/hashicorp/consul/api"

	"sluice/registry"
	"sluice/registry/keyspace"
)

// Commit implements registry.Store. It compares the head alone: whoever changes an object changes the head, so an
// unchanged head means that what was read still holds. When the head moved, it starts again.
func (r *Registry) Commit(ctx context.Context, tx registry.Tx) (registry.Committed, error) {
	if err := tx.Validate(); err != nil {
		return registry.Committed{}, fmt.Errorf("consul: commit: %w", err)
	}
	for attempt := 0; ; attempt++ {
		done, ok, err := r.tryCommit(ctx, tx)
		if err != nil || ok {
			return done, err
		}
		// Somebody was faster. With many writers, those that step aside for a moment let one through.
		if err := stepAside(ctx, attempt); err != nil {
			return registry.Committed{}, err
		}
	}
}

func stepAside(ctx context.Context, attempt int) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(rand.N(time.Duration(min(attempt, 20)+1) * 2 * time.Millisecond)):
		return nil
	}
}

// tryCommit reports ok when tx is committed, or needs not be.
func (r *Registry) tryCommit(ctx context.Context, tx registry.Tx) (done registry.Committed, ok bool, err error) {
	base, objects, err := r.readBase(ctx, tx)
	if errors.Is(err, errMoved) {
		return done, false, nil
	}
	if err != nil {
		return done, false, fmt.Errorf("consul: commit: %w", err)
	}
	plan, err := registry.NewPlan(tx, base.seq, objects, time.Now())
	if err != nil {
		return done, false, err
	}
	if plan.Unchanged() {
		return registry.Committed{Seq: base.seq, Unchanged: true}, true, nil
	}
	if tx.Check != nil {
		v := &view{r: r, index: base.index, seq: base.seq}
		err := tx.Check(ctx, plan.After(v))
		if v.moved {
			return done, false, nil // whatever it says: it did not see one moment
		}
		if err != nil {
			return done, false, err
		}
	}
	ops, err := r.planOps(plan, base.index)
	if err != nil {
		return done, false, fmt.Errorf("consul: commit: %w", err)
	}
	_, ok, err = r.txn(ctx, r.timing.call, ops...)
	var refused *refusal
	if errors.As(err, &refused) && refused.status == http.StatusRequestEntityTooLarge {
		// Many objects with very long names: their keys count as well.
		return done, false, &registry.TooLargeError{What: "bytes", Have: size(ops), Limit: registry.MaxTxBytes}
	}
	if err != nil {
		return done, false, fmt.Errorf("consul: commit: %w", err)
	}
	return registry.Committed{Seq: plan.Seq, Changed: plan.Changed}, ok, nil
}

func size(ops []*api.KVTxnOp) (n int) {
	for _, op := range ops {
		n += len(op.Key) + len(op.Value)
	}
	return n
}

// errMoved says that another commit came in between.
var errMoved = errors.New("the head moved")

// readBase reads the head and the objects that tx names, at one moment.
func (r *Registry) readBase(ctx context.Context, tx registry.Tx) (base moment, objects map[registry.Ref]registry.Object, err error) {
	objects = make(map[registry.Ref]registry.Object, len(tx.Ops))
	for first := 0; first == 0 || first < len(tx.Ops); first += maxTxnOps - 1 {
		part := tx.Ops[first:min(first+maxTxnOps-1, len(tx.Ops))]
		ops := make([]*api.KVTxnOp, len(part))
		for i, op := range part {
			ops[i] = opGet(r.keys.Object(op.Ref))
		}
		m, err := r.read(ctx, r.timing.call, ops...)
		if err != nil {
			return base, nil, err
		}
		if first > 0 && m.index != base.index {
			return base, nil, errMoved
		}
		base = m
		for i, pair := range m.pairs {
			if !exists(pair) {
				continue
			}
			ref := part[i].Ref
			o, err := keyspace.DecodeObject(ref.Kind, ref.Name, pair.Value)
			if err != nil {
				o = registry.Object{Kind: ref.Kind, Name: ref.Name} // garbage: there, and to be written over
			}
			objects[ref] = o
		}
	}
	return base, objects, nil
}

// planOps are the operations of a plan, its history entry, rollout and the head included. There are at most MaxTxObjects + 4.
func (r *Registry) planOps(plan *registry.Plan, index uint64) ([]*api.KVTxnOp, error) {
	head, err := keyspace.EncodeHead(plan.Seq)
	if err != nil {
		return nil, err
	}
	ops := []*api.KVTxnOp{opCAS(r.keys.Head, head, index)}
	for _, o := range slices.Concat(plan.Writes, plan.Extras()) {
		value, err := keyspace.EncodeObject(o)
		if err != nil {
			return nil, fmt.Errorf("encode %s: %w", o.Ref(), err)
		}
		ops = append(ops, opSet(r.keys.Object(o.Ref()), value))
	}
	for _, ref := range plan.Deletes {
		ops = append(ops, opDelete(r.keys.Object(ref)))
	}
	if name, ok := plan.Expired(); ok {
		ops = append(ops, opDelete(r.keys.History+name))
	}
	return ops, nil
}
