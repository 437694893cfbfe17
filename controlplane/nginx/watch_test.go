package nginx

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

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
		if err := <-ended; !errors.Is(err, context.Canceled) {
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

// reaperEnv makes TestReaper the process that orphans go to.
const reaperEnv = "NGINX_TEST_REAPER"

// In a container we are the first process, and nginx's processes become our children when their parent ends.
func TestReaper(t *testing.T) {
	if os.Getenv(reaperEnv) == "" {
		t.Parallel()
		cmd := exec.Command(os.Args[0], "-test.run=^TestReaper$")
		cmd.Env = append(os.Environ(), reaperEnv+"=1")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		return
	}
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		t.Fatal(err)
	}
	d, port := open(t, options(t)), testport.Free(t)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- d.Run(ctx) }()
	defer func() {
		cancel()
		if err := <-ended; !errors.Is(err, context.Canceled) {
			t.Errorf("Run: %v", err)
		}
	}()
	for range 3 {
		apply(t, d, bundle(site(port, "one", "")), Started)
		within(t, 5*time.Second, "the watch has seen that we are the parent", func() bool {
			return d.acquire(ctx) == nil && func() bool { defer d.release(); return d.reaper }()
		})
		sweep(t, d)
		within(t, 5*time.Second, "no zombie is left", func() bool {
			for _, pid := range processes() {
				if s, err := readStat(pid); err == nil && s.parent == os.Getpid() && !s.lives() {
					return false
				}
			}
			return true
		})
	}
}
