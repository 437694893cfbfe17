package consul

import (
	"context"
	"sync"
	"time"
)

// turns lets so many queries wait at once that the agent does not refuse them. While there are no more services than
// that, each waits long. With more, each waits shortly and then lets the next one: who waits longest is next.
type turns struct {
	free chan struct{}

	mu        sync.Mutex
	followers int
	calm      context.Context // ended when there are too many followers for long waits
	crowded   context.CancelFunc
}

func (t *turns) init(limit int) {
	t.free = make(chan struct{}, limit)
	t.calm, t.crowded = context.WithCancel(context.Background())
}

// join and leave count who follows a service.
func (t *turns) join() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.followers++; t.followers > cap(t.free) {
		t.crowded() // those who wait long make place
	}
}

func (t *turns) leave() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.followers--; t.followers == cap(t.free) {
		t.calm, t.crowded = context.WithCancel(context.Background())
	}
}

// wait returns how long a query may wait, and a context that ends when that is too long.
func (t *turns) wait(long, rotation time.Duration) (time.Duration, context.Context) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.followers <= cap(t.free) {
		return long, t.calm
	}
	return max(100*time.Millisecond, rotation*time.Duration(cap(t.free))/time.Duration(t.followers)), context.Background()
}

// take waits for a turn; give ends it.
func (t *turns) take(ctx context.Context) error {
	select {
	case t.free <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (t *turns) give() { <-t.free }
