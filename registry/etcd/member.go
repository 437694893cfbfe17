package etcd

import (
	"context"
	"errors"
	"fmt"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/status"

	"sluice/registry"
)

// Of several members, one is used at a time: the first, until it does not answer; then the next. The etcd client would
// spread the requests over all of them, and each that meets a member that hangs, or that is cut off from the others, would
// wait in vain.

// several reports whether there is another member to go to.
func (r *Registry) several() bool { return len(r.cfg.Endpoints) > 1 }

// endpoint is that of the member in use. The mutex is held.
func (r *Registry) endpoint() string { return r.cfg.Endpoints[r.at%len(r.cfg.Endpoints)] }

// next goes on to the next endpoint. The mutex is held.
func (r *Registry) next() {
	r.at++
	r.left++
}

// answered notes that a member answers.
func (r *Registry) answered(client *clientv3.Client) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.client == client && r.left > 0 {
		r.left = 0
		r.log.Info("another member of etcd is used", "endpoint", r.endpoint())
	}
}

// allLeft reports whether no member has answered since each was left.
func (r *Registry) allLeft() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return !r.several() || r.left >= len(r.cfg.Endpoints)
}

// leave goes on to the next member, unless that was done already. What still waits for the one that is left ends.
func (r *Registry) leave(client *clientv3.Client) {
	if !r.several() {
		return
	}
	r.mu.Lock()
	if r.client != client || client == nil {
		r.mu.Unlock()
		return
	}
	drop := r.drop
	r.client, r.drop = nil, nil
	r.next()
	r.mu.Unlock()
	r.log.Debug("this member of etcd is left", "endpoint", client.Endpoints()[0])
	drop()
	_ = client.Close() // there is nothing to be done about a member that is left
}

// call runs one request, or a few that belong together, with a limit of time, and notes in Health how it went. What gets no
// answer is tried with each of the other members, so it must do no harm when it is done twice.
func (r *Registry) call(ctx context.Context, limit time.Duration, f func(context.Context, *clientv3.Client) error) error {
	for tried := 1; ; tried++ {
		err := r.once(ctx, limit, f)
		if err == nil || tried >= len(r.cfg.Endpoints) || ctx.Err() != nil || r.lifetime.Err() != nil || !away(err) {
			return err
		}
	}
}

// once is call for what must not be done twice.
func (r *Registry) once(ctx context.Context, limit time.Duration, f func(context.Context, *clientv3.Client) error) error {
	client, err := r.connect(ctx)
	if err != nil {
		r.note(err)
		return err
	}
	if r.several() && limit <= r.timing.call {
		limit = r.timing.patience
	}
	began := time.Now()
	limited, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	err = f(limited, client)
	if err != nil && ctx.Err() != nil {
		// The caller's limit says nothing of etcd, but one that ends again and again before ours is a member that hangs.
		if errors.Is(ctx.Err(), context.DeadlineExceeded) && time.Since(began) >= r.timing.patience/2 {
			r.leave(client)
		}
		return ctx.Err()
	}
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		err = fmt.Errorf("%w from %s within %s", errNoAnswer, client.Endpoints()[0], limit)
	case errors.Is(err, context.Canceled), status.Code(err) == codes.Canceled:
		err = fmt.Errorf("%w from %s, which was left", errNoAnswer, client.Endpoints()[0])
	}
	switch {
	case err == nil:
		r.answered(client)
	case away(err):
		r.leave(client)
		err = registry.Away(err)
	}
	return r.noted(err)
}

// probe asks the member in use for a sign of life, since one that hangs or is cut off from the others must not be found out
// by the beats of nodes alone.
func (r *Registry) probe(ctx context.Context) {
	tick := time.NewTicker(r.timing.patience)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			_, _ = r.getKey(ctx, r.keys.Head, clientv3.WithCountOnly()) // what it tells is in Health
		}
	}
}

// watchConnection keeps Health up to date between requests.
func (r *Registry) watchConnection(ctx context.Context) {
	for ctx.Err() == nil {
		if client, err := r.connect(ctx); err == nil {
			r.watchMember(ctx, client)
		}
		select {
		case <-ctx.Done():
		case <-time.After(r.timing.retryMax):
		}
	}
}

// watchMember returns when the member was left.
func (r *Registry) watchMember(ctx context.Context, client *clientv3.Client) {
	conn := client.ActiveConnection()
	for {
		state := conn.GetState()
		switch state {
		case connectivity.TransientFailure:
			r.leave(client)
			r.note(fmt.Errorf("%w: no connection to %s", errNoAnswer, client.Endpoints()[0]))
		case connectivity.Ready:
			if !r.several() { // else another member may be the one that does not answer
				r.note(nil)
			}
		case connectivity.Shutdown:
			return
		}
		if !conn.WaitForStateChange(ctx, state) {
			return
		}
	}
}
