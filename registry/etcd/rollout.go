package etcd

import (
	"context"
	"fmt"

	clientv3 "go.etcd.io/etcd/client/v3"

	"sluice/registry"
	"sluice/registry/keyspace"
)

// UpdateRollout implements registry.Roller.
func (r *Registry) UpdateRollout(ctx context.Context, seq registry.Seq, change func(*registry.Rollout) error) error {
	ref := registry.RolloutRef(seq)
	key := r.keys.Object(ref)
	for {
		kv, err := r.getKey(ctx, key)
		if err != nil {
			return fmt.Errorf("etcd: update rollout %d: %w", seq, err)
		}
		if kv == nil {
			return fmt.Errorf("rollout %d: %w", seq, registry.ErrNotFound)
		}
		value, err := keyspace.ChangeRollout(kv.Value, change)
		if err != nil || value == "" {
			return err
		}
		resp, err := r.txn(ctx, []clientv3.Cmp{clientv3.Compare(clientv3.ModRevision(key), "=", kv.ModRevision)},
			[]clientv3.Op{clientv3.OpPut(key, value)}, nil)
		if err != nil {
			return fmt.Errorf("etcd: update rollout %d: %w", seq, err)
		}
		if resp.Succeeded {
			return nil
		}
	}
}

// DropRollout implements registry.Roller.
func (r *Registry) DropRollout(ctx context.Context, seq registry.Seq) error {
	_, err := r.txn(ctx, nil, []clientv3.Op{clientv3.OpDelete(r.keys.Object(registry.RolloutRef(seq)))}, nil)
	if err != nil {
		return fmt.Errorf("etcd: drop rollout %d: %w", seq, err)
	}
	return nil
}
