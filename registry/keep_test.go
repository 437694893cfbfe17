package registry_test

import (
	"context"
	"errors"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"sluice/registry"
)

// putter fails as it is told, and remembers when it was asked.
type putter struct {
	fail func(call int) error
	hang bool
	at   []time.Time
}

func (p *putter) Put(ctx context.Context, _ registry.Node, _ time.Duration) error {
	p.at = append(p.at, time.Now())
	if p.hang {
		<-ctx.Done()
		return ctx.Err()
	}
	if p.fail != nil {
		return p.fail(len(p.at))
	}
	return nil
}

var keptNode = registry.Node{Service: "io", ID: "n1", Address: "127.0.0.1", Port: 80}

func keep(ctx context.Context, p *putter, ttl time.Duration) error {
	return registry.Keep(ctx, p, keptNode, ttl, slog.New(slog.DiscardHandler))
}

func TestKeepBeats(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := &putter{}
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
		defer cancel()
		began := time.Now()
		if err := keep(ctx, p, 15*time.Second); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Keep returned %v", err)
		}
		if !p.at[0].Equal(began) {
			t.Errorf("the first beat came after %s", p.at[0].Sub(began))
		}
		distinct := map[time.Duration]bool{}
		for i := 1; i < len(p.at); i++ {
			gap := p.at[i].Sub(p.at[i-1])
			distinct[gap] = true
			if gap < 4*time.Second || gap > 6*time.Second {
				t.Errorf("beat %d came after %s, want 5 s ± 20 %%", i, gap)
			}
		}
		if n := len(p.at); n < 100 || n > 150 || len(distinct) < n/2 {
			t.Errorf("%d beats with %d different gaps in 10 minutes", n, len(distinct))
		}
	})
}

func TestKeepRetriesSoon(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		// It fails from the third beat to the eighth.
		p := &putter{fail: func(call int) error {
			if call >= 3 && call < 9 {
				return errors.New("away")
			}
			return nil
		}}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if err := keep(ctx, p, 15*time.Second); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Keep returned %v", err)
		}
		limit := 100 * time.Millisecond
		for i := 3; i <= 8; i++ {
			if gap := p.at[i].Sub(p.at[i-1]); gap > limit*6/5 || gap < limit*4/5 {
				t.Errorf("retry %d came after %s, want about %s", i-2, gap, limit)
			}
			limit *= 2
		}
		if gap := p.at[9].Sub(p.at[8]); gap < 4*time.Second {
			t.Errorf("after the recovery, the next beat came after %s", gap)
		}
	})
}

// TestKeepSurvivesTwoLostBeats: with the ordinary ttl, two beats may be lost and the node is still there.
func TestKeepSurvivesTwoLostBeats(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := &putter{hang: true}
		ctx, cancel := context.WithTimeout(t.Context(), 15*time.Second)
		defer cancel()
		if err := keep(ctx, p, 0); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Keep returned %v", err)
		}
		if len(p.at) < 3 {
			t.Errorf("when Put hangs, there are %d attempts within one ttl, want 3", len(p.at))
		}
	})
}

func TestKeepRefusesABadNode(t *testing.T) {
	t.Parallel()
	p := &putter{}
	err := registry.Keep(t.Context(), p, registry.Node{Service: "io"}, time.Second, slog.New(slog.DiscardHandler))
	if err == nil || len(p.at) != 0 {
		t.Errorf("got %v after %d puts", err, len(p.at))
	}
}

func TestKeepEndsAtOnce(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		p := &putter{fail: func(int) error { cancel(); return nil }}
		began := time.Now()
		if err := keep(ctx, p, time.Hour); !errors.Is(err, context.Canceled) || time.Since(began) != 0 {
			t.Errorf("Keep returned %v after %s", err, time.Since(began))
		}
	})
}
