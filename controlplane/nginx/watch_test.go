package nginx

import (
	"context"
	"syscall"
	"testing"
	"time"

	"sluice/internal/testport"
)

func TestChanged(t *testing.T) {
	t.Parallel()
	o, port, backend := options(t), testport.Free(t), echo(t)
	d := open(t, o)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- d.Run(ctx) }()
	defer func() {
		cancel()
		if err := <-ended; err != context.Canceled {
			t.Errorf("Run: %v", err)
		}
	}()
	fires := func(want bool, after string) {
		t.Helper()
		limit := time.Second
		if !want {
			limit = 3 * glance
		}
		select {
		case <-d.Changed():
			if !want {
				t.Errorf("a change after %s", after)
			}
		case <-time.After(limit):
			if want {
				t.Errorf("no change within %s after %s", limit, after)
			}
		}
	}
	b := bundle(site(port, "one", backend))
	apply(t, d, b, Started)
	fires(false, "our start")
	dial(t, port, 2)
	apply(t, d, bundle(site(port, "two", backend)), Reloaded)
	fires(false, "our reload")

	dial(t, port, 2)
	if err := master(t, d).signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	fires(true, "somebody's reload")
	apply(t, d, bundle(site(port, "two", backend)), Nothing)
	if live := d.Live(t.Context()); len(live.Generations) != 3 {
		t.Errorf("generations: %+v, want 3: two of ours, one of somebody", live.Generations)
	}
	kill(t, master(t, d))
	fires(true, "the death of the master")
	apply(t, d, b, Started)
	fires(false, "our start")
	sweep(t, d)
	fires(true, "the death of all")
	apply(t, d, b, Started)
	serves(t, port, "one")
}
