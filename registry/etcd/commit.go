package etcd

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"sluice/registry"
	"sluice/registry/keyspace"
)

// maxTxnOps is etcd's default limit on the operations of one transaction.
const maxTxnOps = 128

// Commit implements registry.Store. It compares the head alone: whoever changes an object changes the head, so an
// unchanged head means that what was read still holds. When the head moved, it starts again.
func (r *Registry) Commit(ctx context.Context, tx registry.Tx) (registry.Committed, error) {
	if err := tx.Validate(); err != nil {
		return registry.Committed{}, fmt.Errorf("etcd: commit: %w", err)
	}
	for attempt := 0; ; attempt++ {
		done, ok, err := r.tryCommit(ctx, tx)
		if err != nil || ok {
			return done, err
		}
		// Somebody was faster. With many writers, those that step aside for a moment let one through.
		select {
		case <-ctx.Done():
			return registry.Committed{}, ctx.Err()
		case <-time.After(rand.N(time.Duration(min(attempt, 20)+1) * 2 * time.Millisecond)):
		}
	}
}

// tryCommit reports ok when tx is committed, or needs not be.
func (r *Registry) tryCommit(ctx context.Context, tx registry.Tx) (done registry.Committed, ok bool, err error) {
	base, err := r.readBase(ctx, tx)
	if compacted(err) {
		return done, false, nil
	}
	if err != nil {
		return done, false, fmt.Errorf("etcd: commit: %w", err)
	}
	plan, err := registry.NewPlan(tx, base.seq, base.objects, time.Now())
	if err != nil {
		return done, false, err
	}
	if plan.Unchanged() {
		return registry.Committed{Seq: base.seq, Unchanged: true}, true, nil
	}
	if tx.Check != nil {
		err := tx.Check(ctx, plan.After(view{r, base.rev, base.seq}))
		if compacted(err) {
			return done, false, nil
		}
		if err != nil {
			return done, false, err
		}
	}
	ops, err := r.planOps(plan)
	if err != nil {
		return done, false, fmt.Errorf("etcd: commit: %w", err)
	}
	resp, err := r.txn(ctx, []clientv3.Cmp{clientv3.Compare(clientv3.ModRevision(r.keys.Head), "=", base.headRev)}, ops, nil)
	if err != nil {
		return done, false, fmt.Errorf("etcd: commit: %w", err)
	}
	return registry.Committed{Seq: plan.Seq, Changed: plan.Changed}, resp.Succeeded, nil
}

// base is the state that a commit starts from.
type base struct {
	seq     registry.Seq
	headRev int64 // mod_revision of the head key; zero when there is none
	rev     int64 // that all of it was read at
	objects map[registry.Ref]registry.Object
}

// readBase reads the head and the objects that tx names, at one revision.
func (r *Registry) readBase(ctx context.Context, tx registry.Tx) (base, error) {
	b := base{objects: make(map[registry.Ref]registry.Object, len(tx.Ops))}
	ops := []clientv3.Op{clientv3.OpGet(r.keys.Head)}
	for first := 0; ; {
		n := min(maxTxnOps-len(ops), len(tx.Ops)-first)
		for _, op := range tx.Ops[first : first+n] {
			ops = append(ops, clientv3.OpGet(r.keys.Object(op.Ref), clientv3.WithRev(b.rev)))
		}
		resp, err := r.txn(ctx, nil, ops, nil)
		if err != nil {
			return b, err
		}
		answers := resp.Responses
		if b.rev == 0 {
			b.rev = resp.Header.Revision
			head := answers[0].GetResponseRange().Kvs
			if b.seq, err = r.headSeq(head); err != nil {
				return b, err
			}
			if len(head) > 0 {
				b.headRev = head[0].ModRevision
			}
			answers = answers[1:]
		}
		for i, a := range answers {
			ref := tx.Ops[first+i].Ref
			for _, kv := range a.GetResponseRange().Kvs {
				o, err := keyspace.DecodeObject(ref.Kind, ref.Name, kv.Value)
				if err != nil {
					o = registry.Object{Kind: ref.Kind, Name: ref.Name} // garbage: there, and to be written over
				}
				b.objects[ref] = o
			}
		}
		if first += n; first == len(tx.Ops) {
			return b, nil
		}
		ops = nil
	}
}

// planOps are the operations of a plan, its history entry, rollout and the head included. There are at most MaxTxObjects + 4.
func (r *Registry) planOps(plan *registry.Plan) ([]clientv3.Op, error) {
	head, err := keyspace.EncodeHead(plan.Seq)
	if err != nil {
		return nil, err
	}
	ops := []clientv3.Op{clientv3.OpPut(r.keys.Head, head)}
	for _, o := range slices.Concat(plan.Writes, plan.Extras()) {
		value, err := keyspace.EncodeObject(o)
		if err != nil {
			return nil, fmt.Errorf("encode %s: %w", o.Ref(), err)
		}
		ops = append(ops, clientv3.OpPut(r.keys.Object(o.Ref()), value))
	}
	for _, ref := range plan.Deletes {
		ops = append(ops, clientv3.OpDelete(r.keys.Object(ref)))
	}
	if name, ok := plan.Expired(); ok {
		ops = append(ops, clientv3.OpDelete(r.keys.History+name))
	}
	return ops, nil
}
