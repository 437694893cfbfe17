package consul

import (
	"context"
	"fmt"

	"sluice/registry"
	"sluice/registry/keyspace"
)

// UpdateRollout implements registry.Roller.
func (r *Registry) UpdateRollout(ctx context.Context, seq registry.Seq, change func(*registry.Rollout) error) error {
	key := r.keys.Object(registry.RolloutRef(seq))
	for {
		pair, err := r.getKey(ctx, key)
		if err != nil {
			return fmt.Errorf("consul: update rollout %d: %w", seq, err)
		}
		if pair == nil {
			return fmt.Errorf("rollout %d: %w", seq, registry.ErrNotFound)
		}
		value, err := keyspace.ChangeRollout(pair.Value, change)
		if err != nil || value == "" {
			return err
		}
		_, ok, err := r.txn(ctx, r.timing.call, opCAS(key, value, pair.ModifyIndex))
		if err != nil {
			return fmt.Errorf("consul: update rollout %d: %w", seq, err)
		}
		if ok {
			return nil
		}
	}
}

// DropRollout implements registry.Roller.
func (r *Registry) DropRollout(ctx context.Context, seq registry.Seq) error {
	if _, _, err := r.txn(ctx, r.timing.call, opDelete(r.keys.Object(registry.RolloutRef(seq)))); err != nil {
		return fmt.Errorf("consul: drop rollout %d: %w", seq, err)
	}
	return nil
}
