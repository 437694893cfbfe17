package consul

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/hashicorp/consul/api"

	"sluice/registry"
	"sluice/registry/keyspace"
)

// List implements registry.Store. What does not decode is left out; a Snapshot's Problems name it. Consul has no ranges:
// the whole kind is read, and cut here.
func (r *Registry) List(ctx context.Context, kind registry.Kind, from string, limit int) (registry.Page, error) {
	prefix := r.keys.Kind(kind)
	m, err := r.read(ctx, r.timing.list, opTree(prefix))
	if err != nil {
		return registry.Page{}, fmt.Errorf("consul: list %s: %w", kind, err)
	}
	pairs := slices.DeleteFunc(m.pairs, func(p *api.KVPair) bool { return p.Key < prefix+from })
	slices.SortFunc(pairs, func(a, b *api.KVPair) int { return strings.Compare(a.Key, b.Key) })
	page := registry.Page{Seq: m.seq}
	if limit > 0 && len(pairs) > limit {
		page.Next = strings.TrimPrefix(pairs[limit].Key, prefix)
		pairs = pairs[:limit]
	}
	page.Objects = decodeObjects(kind, prefix, pairs)
	return page, nil
}

func decodeObjects(kind registry.Kind, prefix string, pairs []*api.KVPair) []registry.Object {
	out := make([]registry.Object, 0, len(pairs))
	for _, p := range pairs {
		if o, err := keyspace.DecodeObject(kind, strings.TrimPrefix(p.Key, prefix), p.Value); err == nil {
			out = append(out, o)
		}
	}
	return out
}

// Get implements registry.Store.
func (r *Registry) Get(ctx context.Context, ref registry.Ref) (registry.Object, error) {
	pair, err := r.getKey(ctx, r.keys.Object(ref))
	if err != nil {
		return registry.Object{}, fmt.Errorf("consul: get %s: %w", ref, err)
	}
	return decodePair(ref, pair)
}

func decodePair(ref registry.Ref, pair *api.KVPair) (registry.Object, error) {
	if pair == nil || !exists(pair) {
		return registry.Object{}, fmt.Errorf("%s: %w", ref, registry.ErrNotFound)
	}
	o, err := keyspace.DecodeObject(ref.Kind, ref.Name, pair.Value)
	if err != nil {
		return registry.Object{}, fmt.Errorf("consul: get %s: %w", ref, err)
	}
	return o, nil
}

// view reads the state of one moment: that at which the head had index. When it has another, moved is set for good.
type view struct {
	r     *Registry
	index uint64
	seq   registry.Seq
	moved bool
}

var _ registry.View = (*view)(nil)

func (v *view) Seq() registry.Seq { return v.seq }

func (v *view) read(ctx context.Context, op *api.KVTxnOp) ([]*api.KVPair, error) {
	m, err := v.r.read(ctx, v.r.timing.list, op)
	if err == nil && m.index != v.index {
		v.moved, err = true, errMoved
	}
	return m.pairs, err
}

func (v *view) Get(ctx context.Context, ref registry.Ref) (registry.Object, error) {
	pairs, err := v.read(ctx, opGet(v.r.keys.Object(ref)))
	if err != nil || len(pairs) != 1 {
		return registry.Object{}, fmt.Errorf("consul: get %s: %w", ref, err)
	}
	return decodePair(ref, pairs[0])
}

func (v *view) List(ctx context.Context, kind registry.Kind) ([]registry.Object, error) {
	prefix := v.r.keys.Kind(kind)
	pairs, err := v.read(ctx, opTree(prefix))
	if err != nil {
		return nil, fmt.Errorf("consul: list %s: %w", kind, err)
	}
	return decodeObjects(kind, prefix, pairs), nil
}

// PutSlots implements registry.Slotter. The version of a table is the ModifyIndex of its key.
func (r *Registry) PutSlots(ctx context.Context, t registry.SlotTable) error {
	ref := registry.Ref{Kind: keyspace.KindSlots, Name: t.Upstream}
	if !registry.ValidName(t.Upstream) {
		return fmt.Errorf("consul: put %s: %q is not a name", ref, t.Upstream)
	}
	value, err := keyspace.EncodeSlots(t.Slots)
	if err != nil {
		return fmt.Errorf("consul: put %s: %w", ref, err)
	}
	key := r.keys.SlotTable(t.Upstream)
	_, ok, err := r.txn(ctx, r.timing.call, opCAS(key, value, t.Version))
	if err != nil {
		return fmt.Errorf("consul: put %s: %w", ref, err)
	}
	if ok {
		return nil
	}
	conflict := &registry.ConflictError{Ref: ref, Want: registry.Seq(t.Version)}
	if is, err := r.getKey(ctx, key); err == nil && is != nil {
		conflict.Have = registry.Seq(is.ModifyIndex)
	}
	return conflict
}

// ListSlots implements registry.Slotter.
func (r *Registry) ListSlots(ctx context.Context) ([]registry.SlotTable, error) {
	m, err := r.read(ctx, r.timing.list, opTree(r.keys.Slots))
	if err != nil {
		return nil, fmt.Errorf("consul: list slots: %w", err)
	}
	var tables []registry.SlotTable
	for _, p := range m.pairs {
		entry := keyspace.Entry{Value: p.Value, Version: p.ModifyIndex}
		if t, err := keyspace.DecodeSlots(strings.TrimPrefix(p.Key, r.keys.Slots), entry); err == nil {
			tables = append(tables, t)
		}
	}
	slices.SortFunc(tables, func(a, b registry.SlotTable) int { return strings.Compare(a.Upstream, b.Upstream) })
	return tables, nil
}
