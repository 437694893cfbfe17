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
// that are registered with sluice. Keys sort as names do.
func (r *Registry) ListNodes(ctx context.Context, service, from string, limit int) (registry.NodePage, error) {
	places, err := r.places(service)
	if err != nil {
		return registry.NodePage{}, fmt.Errorf("etcd: list nodes of %s: %w", service, err)
	}
	prefix := places.keys
	if service != "" {
		prefix = places.key(service + "/")
	}
	opts := []clientv3.OpOption{clientv3.WithRange(clientv3.GetPrefixRangeEnd(prefix))}
	if limit > 0 {
		opts = append(opts, clientv3.WithLimit(int64(limit)+1)) // one more: where the next page begins
	}
	var resp *clientv3.GetResponse
	err = r.call(ctx, r.timing.list, func(ctx context.Context, c *clientv3.Client) (err error) {
		resp, err = c.Get(ctx, max(prefix, places.key(from)), opts...)
		return err
	})
	if err != nil {
		return registry.NodePage{}, fmt.Errorf("etcd: list nodes of %s: %w", service, err)
	}
	var page registry.NodePage
	for i, kv := range resp.Kvs {
		if limit > 0 && i == limit {
			page.Next = places.name(string(kv.Key))
			break
		}
		if n, err := places.decode(entry(kv)); err == nil {
			page.Nodes = append(page.Nodes, n)
		}
	}
	return page, nil
}

// GetNode implements registry.Nodes.
func (r *Registry) GetNode(ctx context.Context, ref registry.NodeRef) (registry.Node, error) {
	places, err := r.places(ref.Service)
	if err != nil {
		return registry.Node{}, fmt.Errorf("etcd: get node %s: %w", ref, err)
	}
	kv, err := r.getKey(ctx, places.key(ref.String()))
	if err != nil {
		return registry.Node{}, fmt.Errorf("etcd: get node %s: %w", ref, err)
	}
	if kv != nil {
		if n, err := places.decode(entry(kv)); err == nil {
			return n, nil
		}
	}
	return registry.Node{}, fmt.Errorf("node %s: %w", ref, registry.ErrNotFound)
}

// places are where nodes are: their keys and names differ only in how they begin.
type places struct {
	keys, names string
	decode      func(keyspace.Entry) (registry.Node, error)
}

// key returns the key of a name, or, for one of elsewhere, where it would be: before all of them or behind.
func (p places) key(name string) string {
	rest, ok := strings.CutPrefix(name, p.names)
	if !ok && name > p.names {
		return clientv3.GetPrefixRangeEnd(p.keys)
	}
	if !ok {
		return p.keys
	}
	return p.keys + rest
}

func (p places) name(key string) string { return p.names + strings.TrimPrefix(key, p.keys) }

// places returns where the nodes of a service are.
func (r *Registry) places(service string) (places, error) {
	if target, ok := registry.EndpointsTarget(service); ok {
		src, err := endpointsOf(target)
		return places{src.prefix, src.service + "/", src.decode}, err
	}
	return places{keys: r.keys.Nodes, decode: func(e keyspace.Entry) (registry.Node, error) { return keyspace.NodeOf(r.keys, e) }}, nil
}

// ours refuses services whose nodes are not sluice's to write.
func ours(service string) error {
	if target, ok := registry.EndpointsTarget(service); ok {
		return fmt.Errorf("the nodes below %s are kept by those who write them with etcd's naming/endpoints: "+
			"register under a service of its own", strings.TrimSuffix(target, "/"))
	}
	return nil
}
