package nginx

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"sluice/internal/testport"
)

// A Driver that ends, however it does, and the next one: no reload, no socket lost.
func TestAdoption(t *testing.T) {
	t.Parallel()
	o, port := options(t), testport.Free(t)
	b := bundle(site(port, "one", echo(t)))
	first := open(t, o)
	apply(t, first, b, Started)
	sockets := dial(t, port, 2)
	workers := acceptingPIDs(t, first)

	if err := first.Close(t.Context()); err != nil {
		t.Fatalf("Close: %v", err)
	}
	second := open(t, o)
	if live := second.Live(t.Context()); live.Revision != b.Revision || live.Since.IsZero() || live.Generations[0].Number != 1 {
		t.Errorf("adopted %+v", live)
	}
	apply(t, second, b, Nothing)

	abandon(second)
	third := open(t, o)
	apply(t, third, b, Nothing)
	if now := acceptingPIDs(t, third); !slices.Equal(now, workers) {
		t.Errorf("workers %v became %v: it was a reload", workers, now)
	}
	alive(t, sockets)

	// Other settings are another configuration, of the same revision.
	abandon(third)
	o.WorkerProcesses = 3
	fourth := open(t, o)
	apply(t, fourth, b, Reloaded)
	if now := acceptingPIDs(t, fourth); len(now) != 3 {
		t.Errorf("workers %v, want 3", now)
	}
	alive(t, sockets)
}

// The pid file is how a master is found first, not the only way.
func TestAdoptionWithoutPIDFile(t *testing.T) {
	t.Parallel()
	o, port := options(t), testport.Free(t)
	first := open(t, o)
	b := bundle(site(port, "one", ""))
	apply(t, first, b, Started)
	abandon(first)
	if err := os.WriteFile(path(first, "run", "nginx.pid"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	apply(t, open(t, o), b, Nothing)
}

// The states in which a kill -9 can leave the links and nginx.
func TestKilledAtAnyMoment(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		until func(t *testing.T, d *Driver, s staged) // what the Driver did before it was killed
		serve string                                  // what nginx serves then
	}{
		"staged": {func(*testing.T, *Driver, staged) {}, "one"},
		"half staged": {func(t *testing.T, _ *Driver, s staged) {
			if err := os.Remove(filepath.Join(s.dir, manifestName)); err != nil {
				t.Fatal(err)
			}
		}, "one"},
		"switched": {switched, "one"},
		"signalled": {func(t *testing.T, d *Driver, s staged) {
			switched(t, d, s)
			if err := d.master.signal(syscall.SIGHUP); err != nil {
				t.Fatal(err)
			}
		}, "two"},
		"reloaded": {func(t *testing.T, d *Driver, s staged) {
			switched(t, d, s)
			before := accepting(d.master)
			if err := d.master.signal(syscall.SIGHUP); err != nil {
				t.Fatal(err)
			}
			if err := d.prove(t.Context(), s.ID, before, openTail(os.DevNull)); err != nil {
				t.Fatal(err)
			}
		}, "two"},
	} {
		for _, next := range []string{"one", "two", "three"} {
			t.Run(name+", then "+next, func(t *testing.T) {
				t.Parallel()
				o, port := options(t), testport.Free(t)
				d := open(t, o)
				apply(t, d, bundle(site(port, "one", "")), Started)
				b := bundle(site(port, "two", ""))
				want, err := d.wanted(b)
				if err != nil {
					t.Fatal(err)
				}
				s, err := d.stage(b, want)
				if err != nil {
					t.Fatal(err)
				}
				c.until(t, d, s)
				abandon(d)

				d = open(t, o)
				if now := d.Live(t.Context()).Revision; now != bundle(site(port, c.serve, "")).Revision {
					t.Errorf("the next Driver does not see that %q serves", c.serve)
				}
				if d.linked(current) != d.live.ID || d.linked(good) != d.live.ID {
					t.Errorf("current %s, good %s, live %s: want them the same", d.linked(current), d.linked(good), d.live.ID)
				}
				how := Reloaded
				if next == c.serve {
					how = Nothing
				}
				apply(t, d, bundle(site(port, next, "")), how)
				serves(t, port, next)
			})
		}
	}
}

func switched(t *testing.T, d *Driver, s staged) {
	t.Helper()
	if err := d.poise(s.ID); err != nil {
		t.Fatal(err)
	}
	if _, err := d.swap(); err != nil {
		t.Fatal(err)
	}
}

// After a power cut neither nginx nor its pid are there, and current may be something that nobody has proven.
func TestPowerCut(t *testing.T) {
	t.Parallel()
	o, port := options(t), testport.Free(t)
	d := open(t, o)
	apply(t, d, bundle(site(port, "one", "")), Started)
	s, err := d.stage(bundle("nonsense;"), manifest{Revision: "x"})
	if err != nil {
		t.Fatal(err)
	}
	switched(t, d, s)
	abandon(d)
	sweep(t, d)

	d = open(t, o)
	refused(t, d, bundle("nonsense;"), StageTest, "nonsense")
	serves(t, port, "one") // the last good one was started
	apply(t, d, bundle(site(port, "one", "")), Nothing)
}

// The state directory is lost, nginx runs on.
func TestLostState(t *testing.T) {
	t.Parallel()
	o, port := options(t), testport.Free(t)
	d := open(t, o)
	apply(t, d, bundle(site(port, "one", "")), Started)
	abandon(d)
	for _, lost := range []string{"conf", "current", "good", "run/state.json"} {
		if err := os.RemoveAll(path(d, lost)); err != nil {
			t.Fatal(err)
		}
	}
	d = open(t, o)
	apply(t, d, bundle(site(port, "one", "")), Reloaded)
	serves(t, port, "one")
}

// An upgrade of nginx's binary by the operator, with signals to the master.
func TestBinaryUpgrade(t *testing.T) {
	t.Parallel()
	o, port := options(t), testport.Free(t)
	o.Binary = copyNginx(t)
	d := open(t, o)
	b := bundle(site(port, "one", echo(t)))
	apply(t, d, b, Started)
	sockets := dial(t, port, 2)
	old := d.master

	if err := os.Rename(program(t, []byte("#!/bin/sh\nexit 1\n")), o.Binary); err != nil {
		t.Fatal(err)
	}
	if live := d.Live(t.Context()); len(live.Notes) != 1 || !strings.Contains(live.Notes[0], "replaced on the disk") {
		t.Errorf("notes %q, want one about the program that was replaced", live.Notes)
	}
	apply(t, d, bundle(site(port, "two", "")), Reloaded) // by the program that runs
	if err := os.Rename(copyNginx(t), o.Binary); err != nil {
		t.Fatal(err)
	}
	if err := old.signal(syscall.SIGUSR2); err != nil {
		t.Fatal(err)
	}
	within(t, 5*time.Second, "the new master is there", func() bool {
		m, err := d.findMaster()
		return err == nil && m != (process{}) && m != old && d.upgrading() == old && len(accepting(m)) > 0
	})
	apply(t, d, bundle(site(port, "two", "")), Nothing)
	refused(t, d, b, StageReload, "upgrade", strconv.Itoa(old.pid))
	if err := old.signal(syscall.SIGQUIT); err != nil {
		t.Fatal(err)
	}
	within(t, 5*time.Second, "the old workers accept no more", func() bool { return len(accepting(old)) == 0 })
	// The old master lives on for its sockets, under its other name.
	alive(t, sockets)
	for _, ws := range sockets {
		_ = ws.CloseNow()
	}
	within(t, 5*time.Second, "the old master is gone", func() bool { return !old.alive() })
	workers := acceptingPIDs(t, d)
	apply(t, d, bundle(site(port, "two", "")), Nothing)
	if now := acceptingPIDs(t, d); !slices.Equal(now, workers) {
		t.Errorf("workers %v became %v: it was a reload", workers, now)
	}
	if live := d.Live(t.Context()); len(live.Notes) != 0 || live.PID == old.pid {
		t.Errorf("live: %+v, want the new master and no notes", live)
	}
	apply(t, d, b, Reloaded)
	serves(t, port, "one")
}

// copyNginx returns a copy of the binary, which can be replaced.
func copyNginx(t *testing.T) string {
	t.Helper()
	from, err := exec.LookPath("nginx")
	if err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(from)
	if err != nil {
		t.Fatal(err)
	}
	return program(t, data)
}
