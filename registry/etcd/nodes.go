package etcd

import (
	"context"
	"fmt"
	"strings"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"

	"sluice/registry"
)

// tombstoneTTL is how long it is known that a node left on purpose.
const tombstoneTTL = 10 * time.Minute

// Put implements registry.Nodes.
func (r *Registry) Put(ctx context.Context, n registry.Node, ttl time.Duration) error {
	if err := ours(n.Service); err != nil {
		return fmt.Errorf("etcd: put node %s: %w", n.Ref(), err)
	}
	if err := n.Validate(); err != nil {
		return fmt.Errorf("etcd: put node %s: %w", n.Ref(), err)
	}
	v := nodeValue{versioned{version}, r.seconds(ttl), n}
	value, err := encode(v)
	if err != nil {
		return fmt.Errorf("etcd: put node %s: %w", n.Ref(), err)
	}
	// A node that comes back is no longer one that left: without this, a later expiry would pass for a removal.
	forget := clientv3.OpDelete(r.keys.tombstone(n.Service, n.ID))
	if err := r.beat(ctx, r.keys.node(n.Service, n.ID), value, v.TTL, forget); err != nil {
		return fmt.Errorf("etcd: put node %s: %w", n.Ref(), err)
	}
	return nil
}

// Remove implements registry.Nodes.
func (r *Registry) Remove(ctx context.Context, ref registry.NodeRef) error {
	if err := ours(ref.Service); err != nil {
		return fmt.Errorf("etcd: remove node %s: %w", ref, err)
	}
	key := r.keys.node(ref.Service, ref.ID)
	for {
		kv, err := r.getKey(ctx, key)
		if err != nil {
			return fmt.Errorf("etcd: remove node %s: %w", ref, err)
		}
		if kv == nil {
			return fmt.Errorf("node %s: %w", ref, registry.ErrNotFound)
		}
		var is nodeValue
		_ = decode(kv.Value, &is) // garbage has no incarnation, and can be removed without one
		if ref.Incarnation != "" && is.Node.Incarnation != ref.Incarnation {
			return fmt.Errorf("node %s with incarnation %q: %w", ref, ref.Incarnation, registry.ErrNotFound)
		}
		tombstone, err := encode(tombstoneValue{versioned{version}, is.Node.Incarnation, time.Now().UTC()})
		if err != nil {
			return fmt.Errorf("etcd: remove node %s: %w", ref, err)
		}
		ok, err := r.putLeased(ctx, key, kv, int64(tombstoneTTL/time.Second),
			clientv3.OpDelete(key), clientv3.OpPut(r.keys.tombstone(ref.Service, ref.ID), tombstone))
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
	decode := func(kv *mvccpb.KeyValue) (registry.Node, error) { return decodeNodeKey(r.keys, kv) }
	prefix := r.keys.nodes
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
	var nodes section[registry.Node]
	for _, kv := range resp.Kvs {
		if n, err := decode(kv); err == nil {
			nodes.set(n.Service+"\x00"+n.ID, n) // as sortKey does
		}
	}
	nodes.flush()
	return nodes.items(), nil
}

// ours refuses services whose nodes are not sluice's to write.
func ours(service string) error {
	if target, ok := registry.EndpointsTarget(service); ok {
		return fmt.Errorf("the nodes below %s are kept by those who write them with etcd's naming/endpoints: "+
			"register under a service of its own", strings.TrimSuffix(target, "/"))
	}
	return nil
}
