package consul

import (
	"context"
	"fmt"
	"time"

	"github.com/hashicorp/consul/api"

	"sluice/registry"
	"sluice/registry/keyspace"
)

// minSessionTTL is the shortest time to live that Consul gives a session. It ends between one and two of these after its
// last renewal.
const minSessionTTL = 10 * time.Second

// Hold implements registry.Leaser. The key is locked by a session that deletes it at its end. It keeps no state: the
// session is that of the key, so any instance may refresh it. The session stands on its time to live alone and not on the
// agent's health, so that a holder may move to another agent.
func (r *Registry) Hold(ctx context.Context, o registry.Object, ttl time.Duration) error {
	if err := registry.CheckLeased(o); err != nil {
		return fmt.Errorf("consul: hold: %w", err)
	}
	o.Seq = 0
	value, err := keyspace.EncodeObject(o)
	if err != nil {
		return fmt.Errorf("consul: hold %s: %w", o.Ref(), err)
	}
	for attempt := 0; ; attempt++ {
		ok, err := r.tryHold(ctx, o.Ref(), value, max(ttl, minSessionTTL))
		if err != nil {
			return fmt.Errorf("consul: hold %s: %w", o.Ref(), err)
		}
		if ok {
			return nil
		}
		if err := stepAside(ctx, attempt); err != nil {
			return err
		}
	}
}

// tryHold reports false when the key, or its session, changed in between.
func (r *Registry) tryHold(ctx context.Context, ref registry.Ref, value string, ttl time.Duration) (bool, error) {
	key := r.keys.Object(ref)
	is, err := r.getKey(ctx, key)
	if err != nil {
		return false, err
	}
	if is != nil && is.Session != "" {
		session, err := r.renew(ctx, is.Session)
		switch {
		case err != nil:
			return false, err
		case session == nil: // it ended: its key is gone, or about to go
		case session.TTL == ttl.String() && string(is.Value) == value:
			return true, nil
		case session.TTL == ttl.String():
			_, ok, err := r.txn(ctx, r.timing.call, opCAS(key, value, is.ModifyIndex)) // leaves the lock as it is
			return ok, err
		}
	}
	session, err := r.newSession(ctx, ref, ttl)
	if err != nil {
		return false, err
	}
	lock := &api.KVTxnOp{Verb: api.KVLock, Key: key, Value: []byte(value), Session: session}
	first := &api.KVTxnOp{Verb: api.KVCheckNotExists, Key: key}
	if is != nil {
		first = &api.KVTxnOp{Verb: api.KVDeleteCAS, Key: key, Index: is.ModifyIndex}
	}
	_, ok, err := r.txn(ctx, r.timing.call, first, lock)
	switch {
	case err != nil:
		return false, err // the outcome is unknown: the session may hold the key, and ends by itself if not
	case !ok:
		r.endSession(ctx, session)
	case is != nil && is.Session != "":
		r.endSession(ctx, is.Session)
	}
	return ok, nil
}

// renew returns nil when the session has ended.
func (r *Registry) renew(ctx context.Context, id string) (session *api.SessionEntry, err error) {
	err = r.call(ctx, r.timing.call, func(ctx context.Context, c *api.Client) (err error) {
		session, _, err = c.Session().Renew(id, writing(ctx))
		return err
	})
	return session, err
}

func (r *Registry) newSession(ctx context.Context, ref registry.Ref, ttl time.Duration) (id string, err error) {
	err = r.call(ctx, r.timing.call, func(ctx context.Context, c *api.Client) (err error) {
		id, _, err = c.Session().CreateNoChecks(&api.SessionEntry{
			Name: "sluice " + ref.String(), TTL: ttl.String(), Behavior: api.SessionBehaviorDelete,
			LockDelay: time.Millisecond, // zero would mean the default of 15 s, in which nobody could hold the key
		}, writing(ctx))
		return err
	})
	return id, err
}

// endSession ends a session that nothing hangs on. If that fails, it ends by itself.
func (r *Registry) endSession(ctx context.Context, id string) {
	_ = r.call(ctx, r.timing.call, func(ctx context.Context, c *api.Client) error {
		_, err := c.Session().Destroy(id, writing(ctx))
		return err
	})
}
