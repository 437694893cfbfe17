package etcd

import (
	"context"
	"fmt"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"sluice/registry"
	"sluice/registry/keyspace"
)

// TidyHistory implements registry.Store.
func (r *Registry) TidyHistory(ctx context.Context, before time.Time) (more bool, err error) {
	var resp *clientv3.GetResponse
	err = r.call(ctx, r.timing.list, func(ctx context.Context, c *clientv3.Client) (err error) {
		resp, err = c.Get(ctx, r.keys.History, clientv3.WithPrefix(), clientv3.WithLimit(registry.MaxTidied))
		return err
	})
	if err != nil {
		return false, fmt.Errorf("etcd: tidy the history: %w", err)
	}
	entries := make([]keyspace.Entry, len(resp.Kvs))
	for i, kv := range resp.Kvs {
		entries[i] = entry(kv)
	}
	entries = entries[:keyspace.OldHistory(entries, before)]
	if len(entries) == 0 {
		return false, nil
	}
	var cmps []clientv3.Cmp
	var ops []clientv3.Op
	for _, e := range entries {
		cmps = append(cmps, clientv3.Compare(clientv3.ModRevision(e.Key), "=", int64(e.Version)))
		ops = append(ops, clientv3.OpDelete(e.Key))
	}
	done, err := r.txn(ctx, cmps, ops, nil)
	if err != nil {
		return false, fmt.Errorf("etcd: tidy the history: %w", err)
	}
	return len(entries) == registry.MaxTidied || !done.Succeeded, nil
}
