package consul

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/hashicorp/consul/api"
)

// query is one blocking query that is asked again and again.
//
// It asks in Consul's default mode: the answer is the leader's, or of a view that streams from a server, and none while
// there is no leader. A stale answer would be cheaper, but a server that is cut off would go on telling an old state.
type query struct {
	r     *Registry
	what  string
	turns *turns // nil for the one that always has a turn
	ask   func(context.Context, *api.Client, *api.QueryOptions) (*api.QueryMeta, error)
	// answered is called with each answer that ask took. whole says that the answers since the last one are without a gap,
	// so that what is missing now was taken away.
	answered func(ctx context.Context, whole bool)
	// failed is called with each error.
	failed func(ctx context.Context, err error)

	index uint64 // to wait beyond; 0 asks for an answer at once
	seen  uint64 // the highest that was answered
	whole bool
}

// run asks until ctx ends.
func (q *query) run(ctx context.Context) {
	retry := q.r.timing.retryMin
	for ctx.Err() == nil {
		began, wait := time.Now(), time.Duration(0)
		err := q.once(ctx)
		switch {
		case ctx.Err() != nil:
			return
		case err != nil:
			q.index, q.whole = 0, false
			q.failed(ctx, err)
			wait = retry/2 + rand.N(retry)
			retry = min(2*retry, q.r.timing.retryMax)
		default:
			retry = q.r.timing.retryMin
			// The first change after a calm is asked on at once; those that follow are gathered.
			wait = q.r.timing.pace - time.Since(began)
		}
		if wait <= 0 {
			continue
		}
		select {
		case <-ctx.Done():
		case <-time.After(wait):
		}
	}
}

// once asks once.
func (q *query) once(ctx context.Context) error {
	t := q.r.timing
	wait := t.pulse
	asking, cancel := context.WithCancel(ctx)
	defer cancel()
	interrupted := context.Background()
	if q.turns != nil {
		if err := q.turns.take(ctx); err != nil {
			return err
		}
		defer q.turns.give()
		wait, interrupted = q.turns.wait(t.wait, t.rotation)
		if q.index > 0 {
			// One after the other: to stop waiting breaks the connection, and of many new ones at once the agent refuses some.
			defer context.AfterFunc(interrupted, func() { time.AfterFunc(rand.N(t.rotation), cancel) })()
		}
	}
	limit := t.slack
	if q.index > 0 {
		limit += wait + wait/16 // Consul adds as much, at random
	}
	var meta *api.QueryMeta
	err := q.r.call(asking, limit, func(ctx context.Context, c *api.Client) (err error) {
		opts := (&api.QueryOptions{WaitIndex: q.index, WaitTime: wait}).WithContext(ctx)
		meta, err = q.ask(ctx, c, opts)
		// What streams does not tell of the leader; but it begins with an answer that does, and breaks off with the server.
		if err == nil && !meta.KnownLeader && meta.QueryBackend != api.QueryBackendStreaming {
			err = errors.New("consul has no leader")
		}
		return err
	})
	switch {
	case err != nil && q.index > 0 && interrupted.Err() != nil && ctx.Err() == nil:
		return nil // it is asked again, from the same index
	case err != nil:
		return fmt.Errorf("%s: %w", q.what, err)
	}
	q.note(max(meta.LastIndex, 1))
	q.answered(ctx, q.whole)
	q.whole = true
	return nil
}

// note takes the index of an answer. One that goes back is of another Consul, or of one that was restored: to wait for
// the old index would be to wait for long, so the next answer is asked for at once.
func (q *query) note(index uint64) {
	if index < q.seen {
		q.r.log.Info("consul's index went back: everything is asked for again", "query", q.what, "from", q.seen, "to", index)
		q.whole = false
		q.index, q.seen = 0, index
		return
	}
	q.index, q.seen = index, index
}
