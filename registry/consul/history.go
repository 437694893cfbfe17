package consul

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/hashicorp/consul/api"

	"sluice/registry"
	"sluice/registry/keyspace"
)

// TidyHistory implements registry.Store. The keys are listed without their values, which may be large.
func (r *Registry) TidyHistory(ctx context.Context, before time.Time) (more bool, err error) {
	var keys []string
	err = r.call(ctx, r.timing.list, func(ctx context.Context, c *api.Client) (err error) {
		keys, _, err = c.KV().Keys(r.keys.History, "", linearizable(ctx))
		return err
	})
	if err != nil {
		return false, fmt.Errorf("consul: tidy the history: %w", err)
	}
	slices.Sort(keys)
	entries, err := r.readKeys(ctx, keys[:min(len(keys), registry.MaxTidied)])
	if err != nil {
		return false, fmt.Errorf("consul: tidy the history: %w", err)
	}
	entries = entries[:keyspace.OldHistory(entries, before)]
	if len(entries) == 0 {
		return false, nil
	}
	var ops []*api.KVTxnOp
	for _, e := range entries {
		ops = append(ops, &api.KVTxnOp{Verb: api.KVDeleteCAS, Key: e.Key, Index: e.Version})
	}
	_, ok, err := r.txn(ctx, r.timing.call, ops...)
	if err != nil {
		return false, fmt.Errorf("consul: tidy the history: %w", err)
	}
	return len(entries) == registry.MaxTidied || !ok, nil
}

// readKeys returns what is at these keys; those that are gone are left out.
func (r *Registry) readKeys(ctx context.Context, keys []string) ([]keyspace.Entry, error) {
	var ops []*api.KVTxnOp
	for _, key := range keys {
		ops = append(ops, opGet(key))
	}
	m, err := r.read(ctx, r.timing.list, ops...)
	if err != nil {
		return nil, err
	}
	var entries []keyspace.Entry
	for _, p := range m.pairs {
		if exists(p) {
			entries = append(entries, keyspace.Entry{Key: p.Key, Value: p.Value, Version: p.ModifyIndex})
		}
	}
	return entries, nil
}
