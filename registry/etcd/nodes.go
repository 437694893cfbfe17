package etcd

import (
	"context"
	"fmt"
	"strings"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"sluice/registry"
	"sluice/registry/keyspace"
)

// Put implements registry.Nodes.
func (r *Registry) Put(ctx context.Context, n registry.Node, ttl time.Duration) error {
	if err := ours(n.Service); err != nil {
		return fmt.Errorf("etcd: put node %s: %w", n.Ref(), err)
	}
	if err := n.Validate(); err != nil {
		return fmt.Errorf("etcd: put node %s: %w", n.Ref(), err)
	}
	seconds := r.seconds(ttl)
	value, err := keyspace.EncodeNode(n, seconds)
	if err != nil {
		return fmt.Errorf("etcd: put node %s: %w", n.Ref(), err)
	}
	// A node that comes back is no longer one that left: without this, a later expiry would pass for a removal.
	forget := clientv3.OpDelete(r.keys.Tombstone(n.Service, n.ID))
	if err := r.beat(ctx, r.keys.Node(n.Service, n.ID), value, seconds, forget); err != nil {
		return fmt.Errorf("etcd: put node %s: %w", n.Ref(), err)
	}
	return nil
}

// Remove implements registry.Nodes.
func (r *Registry) Remove(ctx context.Context, ref registry.NodeRef) error {
	if err := ours(ref.Service); err != nil {
		return fmt.Errorf("etcd: remove node %s: %w", ref, err)
	}
	key := r.keys.Node(ref.Service, ref.ID)
	for {
		kv, err := r.getKey(ctx, key)
		if err != nil {
			return fmt.Errorf("etcd: remove node %s: %w", ref, err)
		}
		if kv == nil {
			return fmt.Errorf("node %s: %w", ref, registry.ErrNotFound)
		}
		is := keyspace.Incarnation(kv.Value)
		if ref.Incarnation != "" && is != ref.Incarnation {
			return fmt.Errorf("node %s with incarnation %q: %w", ref, ref.Incarnation, registry.ErrNotFound)
		}
		tombstone, err := keyspace.EncodeTombstone(is, time.Now())
		if err != nil {
			return fmt.Errorf("etcd: remove node %s: %w", ref, err)
		}
		ok, err := r.putLeased(ctx, key, kv, int64(registry.TombstoneTTL/time.Second),
			clientv3.OpDelete(key), clientv3.OpPut(r.keys.Tombstone(ref.Service, ref.ID), tombstone))
		if err != nil {
			return fmt.Errorf("etcd: remove node %s: %w", ref, err)
		}
		if ok {
			return nil
		}
	}
}

// ListNodes implements registry.Nodes. A service of etcd's naming/endpoints is listed when it is named; "all" are those
// that are registered with sluice.
func (r *Registry) ListNodes(ctx context.Context, service string) ([]registry.Node, error) {
	decode := func(e keyspace.Entry) (registry.Node, error) { return keyspace.NodeOf(r.keys, e) }
	prefix := r.keys.Nodes
	if target, ok := registry.EndpointsTarget(service); ok {
		src, err := endpointsOf(target)
		if err != nil {
			return nil, fmt.Errorf("etcd: list nodes of %s: %w", service, err)
		}
		decode, prefix = src.decode, src.prefix
	} else if service != "" {
		prefix += service + "/"
	}
	var resp *clientv3.GetResponse
	err := r.call(ctx, r.timing.list, func(ctx context.Context, c *clientv3.Client) (err error) {
		resp, err = c.Get(ctx, prefix, clientv3.WithPrefix())
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("etcd: list nodes of %s: %w", service, err)
	}
	var nodes keyspace.Section[registry.Node]
	for _, kv := range resp.Kvs {
		if n, err := decode(entry(kv)); err == nil {
			nodes.Set(n.Service+"\x00"+n.ID, n) // as keyspace.SortKey does
		}
	}
	nodes.Flush()
	return nodes.Items(), nil
}

// ours refuses services whose nodes are not sluice's to write.
func ours(service string) error {
	if target, ok := registry.EndpointsTarget(service); ok {
		return fmt.Errorf("the nodes below %s are kept by those who write them with etcd's naming/endpoints: "+
			"register under a service of its own", strings.TrimSuffix(target, "/"))
	}
	return nil
}
