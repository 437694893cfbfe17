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
// The first question, and that after anything that went wrong, is asked in Consul's consistent mode: in the default one, a
// leader that was just elected answers before it has read all of its own log, and servers and nodes seem to be missing. What
// waits for a change is asked in the default mode: the answer is the leader's, or of a view that streams from a server, and
// none while there is no leader. A stale answer would be cheaper, but a server that is cut off would tell an old state for ever.
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
		began := time.Now()
		err := q.once(ctx)
		// The first change after a calm is asked on at once; those that follow are gathered.
		wait := q.r.timing.pace - time.Since(began)
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
	// A view that streams waits to its end without a leader, too.
	tells := q.turns == nil || q.index == 0
	err := q.r.attempt(asking, limit, tells, func(ctx context.Context, c clients) (err error) {
		opts := linearizable(ctx)
		if q.index > 0 {
			opts = (&api.QueryOptions{WaitIndex: q.index, WaitTime: wait}).WithContext(ctx)
		}
		meta, err = q.ask(ctx, c.waiting, opts)
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
	if !q.note(max(meta.LastIndex, 1)) {
		return nil
	}
	q.answered(ctx, q.whole)
	q.whole = true
	return nil
}

// note takes the index of an answer and reports whether the answer is to be believed. One that goes back is of another
// Consul, of one that was restored, or of a leader that has not read its log: that is asked again, and for certain. To wait
// for the old index would be to wait for long.
func (q *query) note(index uint64) (believe bool) {
	certain := q.index == 0
	if index >= q.seen {
		q.index, q.seen = index, index
		return true
	}
	q.index, q.whole = 0, false
	if !certain {
		return false
	}
	q.r.log.Info("consul's index went back: it is another one, or was restored", "query", q.what, "from", q.seen, "to", index)
	q.index, q.seen = index, index
	return true
}
