package etcd

import (
	"context"
	"errors"
	"fmt"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"sluice/registry"
	"sluice/registry/keyspace"
)

// seconds is ttl as etcd takes it: whole seconds, and no fewer than MinTTL.
func (r *Registry) seconds(ttl time.Duration) int64 {
	return int64((max(ttl, r.MinTTL()) + time.Second - 1) / time.Second)
}

// beat makes key hold value for another ttl. It keeps no state: the lease is that of the key, so any instance may take
// any beat. In the ordinary case, the value that is there already, it costs a read and a keep-alive. also is done
// together with a write.
func (r *Registry) beat(ctx context.Context, key, value string, ttl int64, also ...clientv3.Op) error {
	for {
		kv, err := r.getKey(ctx, key)
		if err != nil {
			return err
		}
		if kv != nil && kv.Lease != 0 && string(kv.Value) == value {
			alive, err := r.keepAlive(ctx, clientv3.LeaseID(kv.Lease))
			if err != nil || alive {
				return err
			}
		}
		ok, err := r.putLeased(ctx, key, kv, ttl, append(also, clientv3.OpPut(key, value))...)
		if err != nil || ok {
			return err
		}
	}
}

// keepAlive reports false when the lease has run out: its keys are gone, or about to go.
func (r *Registry) keepAlive(ctx context.Context, id clientv3.LeaseID) (bool, error) {
	err := r.call(ctx, r.timing.call, func(ctx context.Context, c *clientv3.Client) error {
		_, err := c.KeepAliveOnce(ctx, id)
		return err
	})
	if errors.Is(err, rpctypes.ErrLeaseNotFound) {
		return false, nil
	}
	return err == nil, err
}

// putLeased grants a lease and carries out ops, provided that key is still as it was read (nil: absent). Its puts are
// put under the lease. It reports false when the key was changed in between.
func (r *Registry) putLeased(ctx context.Context, key string, was *mvccpb.KeyValue, ttl int64, ops ...clientv3.Op) (bool, error) {
	var lease clientv3.LeaseID
	err := r.call(ctx, r.timing.call, func(ctx context.Context, c *clientv3.Client) error {
		granted, err := c.Grant(ctx, ttl)
		if err == nil {
			lease = granted.ID
		}
		return err
	})
	if err != nil {
		return false, fmt.Errorf("grant a lease of %d s: %w", ttl, err)
	}
	then := make([]clientv3.Op, len(ops))
	for i, op := range ops {
		if op.IsPut() {
			op = clientv3.OpPut(string(op.KeyBytes()), string(op.ValueBytes()), clientv3.WithLease(lease))
		}
		then[i] = op
	}
	resp, err := r.txn(ctx, []clientv3.Cmp{unchanged(key, was)}, then, nil)
	if err == nil && resp.Succeeded {
		return true, nil
	}
	// Nothing hangs on the lease, unless the outcome is unknown: then it must not be revoked, it may carry the node.
	if err == nil {
		_ = r.call(ctx, r.timing.call, func(ctx context.Context, c *clientv3.Client) error {
			_, err := c.Revoke(ctx, lease)
			return err
		})
	}
	if errors.Is(err, rpctypes.ErrLeaseNotFound) {
		return false, nil // it ran out before it was used: etcd was away for that long
	}
	return false, err
}

// unchanged compares key with what was read; nil means that it did not exist.
func unchanged(key string, was *mvccpb.KeyValue) clientv3.Cmp {
	if was == nil {
		return clientv3.Compare(clientv3.ModRevision(key), "=", 0)
	}
	return clientv3.Compare(clientv3.ModRevision(key), "=", was.ModRevision)
}

// Hold implements registry.Leaser.
func (r *Registry) Hold(ctx context.Context, o registry.Object, ttl time.Duration) error {
	if err := registry.CheckLeased(o); err != nil {
		return fmt.Errorf("etcd: hold: %w", err)
	}
	o.Seq = 0
	value, err := keyspace.EncodeObject(o)
	if err != nil {
		return fmt.Errorf("etcd: hold %s: %w", o.Ref(), err)
	}
	if err := r.beat(ctx, r.keys.Object(o.Ref()), value, r.seconds(ttl)); err != nil {
		return fmt.Errorf("etcd: hold %s: %w", o.Ref(), err)
	}
	return nil
}
