package etcd

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"sluice/registry"
	"sluice/registry/keyspace"
)

// List implements registry.Store. What does not decode is left out; a Snapshot's Problems name it.
func (r *Registry) List(ctx context.Context, kind registry.Kind, from string, limit int) (registry.Page, error) {
	prefix := r.keys.Kind(kind)
	opts := []clientv3.OpOption{clientv3.WithRange(clientv3.GetPrefixRangeEnd(prefix))}
	if limit > 0 {
		opts = append(opts, clientv3.WithLimit(int64(limit)+1)) // one more: where the next page begins
	}
	ops := []clientv3.Op{clientv3.OpGet(r.keys.Head), clientv3.OpGet(prefix+from, opts...)}
	var resp *clientv3.TxnResponse
	err := r.call(ctx, r.timing.list, func(ctx context.Context, c *clientv3.Client) (err error) {
		resp, err = c.Txn(ctx).Then(ops...).Commit()
		return err
	})
	if err != nil {
		return registry.Page{}, fmt.Errorf("etcd: list %s: %w", kind, err)
	}
	var page registry.Page
	if page.Seq, err = r.headSeq(resp.Responses[0].GetResponseRange().Kvs); err != nil {
		return registry.Page{}, err
	}
	kvs := resp.Responses[1].GetResponseRange().Kvs
	if limit > 0 && len(kvs) > limit {
		page.Next = strings.TrimPrefix(string(kvs[limit].Key), prefix)
		kvs = kvs[:limit]
	}
	page.Objects = decodeObjects(kind, prefix, kvs)
	return page, nil
}

// Get implements registry.Store.
func (r *Registry) Get(ctx context.Context, ref registry.Ref) (registry.Object, error) {
	return r.get(ctx, ref)
}

func (r *Registry) get(ctx context.Context, ref registry.Ref, opts ...clientv3.OpOption) (registry.Object, error) {
	kv, err := r.getKey(ctx, r.keys.Object(ref), opts...)
	if err != nil {
		return registry.Object{}, fmt.Errorf("etcd: get %s: %w", ref, err)
	}
	if kv == nil {
		return registry.Object{}, fmt.Errorf("%s: %w", ref, registry.ErrNotFound)
	}
	o, err := keyspace.DecodeObject(ref.Kind, ref.Name, kv.Value)
	if err != nil {
		return registry.Object{}, fmt.Errorf("etcd: get %s: %w", ref, err)
	}
	return o, nil
}

// getKey returns nil when the key does not exist.
func (r *Registry) getKey(ctx context.Context, key string, opts ...clientv3.OpOption) (*mvccpb.KeyValue, error) {
	var resp *clientv3.GetResponse
	err := r.call(ctx, r.timing.call, func(ctx context.Context, c *clientv3.Client) (err error) {
		resp, err = c.Get(ctx, key, opts...)
		return err
	})
	if err != nil || len(resp.Kvs) == 0 {
		return nil, err
	}
	return resp.Kvs[0], nil
}

// headSeq decodes the head. Without its seq nothing can be numbered, so a damaged one is an error and not a Problem.
func (r *Registry) headSeq(kvs []*mvccpb.KeyValue) (registry.Seq, error) {
	if len(kvs) == 0 {
		return 0, nil
	}
	seq, err := keyspace.DecodeHead(kvs[0].Value)
	if err != nil {
		return 0, fmt.Errorf(`etcd: %s is damaged (%w). Mend it: etcdctl put %s '{"v":1,"seq":N}', with N of the newest entry of %s`,
			r.keys.Head, err, r.keys.Head, r.keys.History)
	}
	return seq, nil
}

func decodeObjects(kind registry.Kind, prefix string, kvs []*mvccpb.KeyValue) []registry.Object {
	out := make([]registry.Object, 0, len(kvs))
	for _, kv := range kvs {
		if o, err := keyspace.DecodeObject(kind, strings.TrimPrefix(string(kv.Key), prefix), kv.Value); err == nil {
			out = append(out, o)
		}
	}
	return out
}

// view reads the state of one revision.
type view struct {
	r   *Registry
	rev int64
	seq registry.Seq
}

var _ registry.View = view{}

func (v view) Seq() registry.Seq { return v.seq }

func (v view) Get(ctx context.Context, ref registry.Ref) (registry.Object, error) {
	return v.r.get(ctx, ref, clientv3.WithRev(v.rev))
}

func (v view) List(ctx context.Context, kind registry.Kind) ([]registry.Object, error) {
	prefix := v.r.keys.Kind(kind)
	var resp *clientv3.GetResponse
	err := v.r.call(ctx, v.r.timing.list, func(ctx context.Context, c *clientv3.Client) (err error) {
		resp, err = c.Get(ctx, prefix, clientv3.WithPrefix(), clientv3.WithRev(v.rev))
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("etcd: list %s: %w", kind, err)
	}
	return decodeObjects(kind, prefix, resp.Kvs), nil
}

// compacted reports whether err says that the revision that was asked for is no longer kept.
func compacted(err error) bool { return errors.Is(err, rpctypes.ErrCompacted) }
