package etcd

import (
	"context"
	"fmt"
	"strings"

	clientv3 "go.etcd.io/etcd/client/v3"

	"sluice/registry"
	"sluice/registry/keyspace"
)

// PutSlots implements registry.Slotter. The version of a table is the mod_revision of its key.
func (r *Registry) PutSlots(ctx context.Context, t registry.SlotTable) error {
	ref := registry.Ref{Kind: keyspace.KindSlots, Name: t.Upstream}
	if !registry.ValidName(t.Upstream) {
		return fmt.Errorf("etcd: put %s: %q is not a name", ref, t.Upstream)
	}
	value, err := keyspace.EncodeSlots(t.Slots)
	if err != nil {
		return fmt.Errorf("etcd: put %s: %w", ref, err)
	}
	key := r.keys.SlotTable(t.Upstream)
	resp, err := r.txn(ctx,
		[]clientv3.Cmp{clientv3.Compare(clientv3.ModRevision(key), "=", int64(t.Version))},
		[]clientv3.Op{clientv3.OpPut(key, value)},
		[]clientv3.Op{clientv3.OpGet(key, clientv3.WithKeysOnly())})
	if err != nil {
		return fmt.Errorf("etcd: put %s: %w", ref, err)
	}
	if resp.Succeeded {
		return nil
	}
	conflict := &registry.ConflictError{Ref: ref, Want: registry.Seq(t.Version)}
	for _, kv := range resp.Responses[0].GetResponseRange().Kvs {
		conflict.Have = registry.Seq(kv.ModRevision)
	}
	return conflict
}

// ListSlots implements registry.Slotter.
func (r *Registry) ListSlots(ctx context.Context) ([]registry.SlotTable, error) {
	var resp *clientv3.GetResponse
	err := r.call(ctx, r.timing.list, func(ctx context.Context, c *clientv3.Client) (err error) {
		resp, err = c.Get(ctx, r.keys.Slots, clientv3.WithPrefix())
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("etcd: list slots: %w", err)
	}
	var tables []registry.SlotTable
	for _, kv := range resp.Kvs {
		entry := keyspace.Entry{Value: kv.Value, Version: uint64(kv.ModRevision)}
		if t, err := keyspace.DecodeSlots(strings.TrimPrefix(string(kv.Key), r.keys.Slots), entry); err == nil {
			tables = append(tables, t)
		}
	}
	return tables, nil
}
