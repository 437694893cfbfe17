package nginx

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"sluice/internal/testport"
)

func TestApply(t *testing.T) {
	t.Parallel()
	d, port, backend := open(t, options(t)), testport.Free(t), echo(t)

	apply(t, d, bundle(site(port, "one", backend)), Started)
	serves(t, port, "one")
	sockets := dial(t, port, 3)

	before := acceptingPIDs(t, d)
	apply(t, d, bundle(site(port, "one", backend)), Nothing)
	if after := acceptingPIDs(t, d); len(after) != 2 || after[0] != before[0] || after[1] != before[1] {
		t.Errorf("workers %v became %v, though nothing changed", before, after)
	}

	for _, answer := range []string{"two", "three"} {
		apply(t, d, bundle(site(port, answer, backend)), Reloaded)
		serves(t, port, answer)
	}
	alive(t, sockets)

	// A worker that has ended leaves its siblings a channel for a moment.
	within(t, time.Second, "idle workers have no sockets", func() bool { return d.Live(t.Context()).Generations[0].sockets() == 0 })
	live := d.Live(t.Context())
	if !live.Running || live.Revision != bundle(site(port, "three", backend)).Revision || live.Version == "" {
		t.Errorf("live: %+v", live)
	}
	if len(live.Generations) != 2 || live.Generations[0].Old || !live.Generations[1].Old {
		t.Fatalf("generations: %+v, want the current one and the first, which has the sockets", live.Generations)
	}
	if old := live.Generations[1]; old.Number != 1 || old.sockets() != 6 {
		t.Errorf("old generation: %+v, want number 1 with 3 sockets to clients and 3 to the backend", old)
	}
	if now := live.Generations[0]; now.Number != 3 || now.sockets() != 0 || len(now.Workers) != 2 || now.Workers[0].Memory < 1<<20 {
		t.Errorf("current generation: %+v, want number 3 with 2 workers, some memory and no socket", now)
	}
}

func (g Generation) sockets() int {
	n := 0
	for _, w := range g.Workers {
		n += w.Sockets
	}
	return n
}

func TestModes(t *testing.T) {
	t.Parallel()
	d := open(t, options(t))
	apply(t, d, bundle(site(testport.Free(t), "one", "")), Started)
	for file, want := range map[string]os.FileMode{
		"conf":                      0o700,
		"run":                       0o700,
		"current/.":                 0o700,
		"current/http/.":            0o700,
		"current/keys/a.key":        0o600,
		"current/control/http.conf": 0o644,
	} {
		info, err := os.Stat(path(d, file))
		if err != nil {
			t.Fatal(err)
		}
		if info.Mode().Perm() != want {
			t.Errorf("%s has mode %o, want %o", file, info.Mode().Perm(), want)
		}
	}
}

func TestRefusedByTest(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		text  string
		words []string
	}{
		"unknown directive": {"nonsense on;", []string{`[emerg] unknown directive "nonsense" in http/site-a.conf:1`}},
		"a warning": {
			"upstream u { keepalive 1; least_conn; server 127.0.0.1:1; }",
			[]string{"load balancing method redefined in http/site-a.conf", "a warning counts as an error"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d, port := open(t, options(t)), testport.Free(t)
			good := bundle(site(port, "one", ""))
			apply(t, d, good, Started)
			workers := acceptingPIDs(t, d)
			refused(t, d, bundle(c.text), StageTest, c.words...)
			serves(t, port, "one")
			if now := acceptingPIDs(t, d); now[0] != workers[0] {
				t.Errorf("nginx was reloaded")
			}
			apply(t, d, good, Nothing)
			apply(t, d, bundle(site(port, "two", "")), Reloaded)
			serves(t, port, "two")
		})
	}
}

func TestPrune(t *testing.T) {
	t.Parallel()
	d, port := open(t, options(t)), testport.Free(t)
	apply(t, d, bundle(site(port, "one", "")), Started)
	for range 2 * keep {
		refused(t, d, bundle("nonsense;"), StageTest)
	}
	entries, err := os.ReadDir(path(d, "conf"))
	if err != nil {
		t.Fatal(err)
	}
	if len(entries) != keep+1 {
		t.Errorf("%d configurations are kept, want the good one and %d", len(entries), keep)
	}
	if live := d.linked(good); !strings.HasPrefix(live, "000001-") || d.linked(current) != live {
		t.Errorf("good is %s, current is %s", live, d.linked(current))
	}
}

func TestOneAtATime(t *testing.T) {
	t.Parallel()
	d, port := open(t, options(t)), testport.Free(t)
	apply(t, d, bundle(site(port, "zero", "")), Started)
	done := make(chan error, 4)
	for i := range cap(done) {
		go func() {
			_, err := d.Apply(t.Context(), bundle(site(port, "answer "+strconv.Itoa(i), "")))
			d.Live(t.Context())
			d.Due(true)
			done <- err
		}()
	}
	for range cap(done) {
		if err := <-done; err != nil {
			t.Errorf("Apply: %v", err)
		}
	}
	if n := d.Live(t.Context()).Generations[0].Number; n != 1+cap(done) {
		t.Errorf("generation %d, want %d: each Apply is a reload", n, 1+cap(done))
	}
}

// Lines in the log that mean that no new workers will come, or none that live.
func TestProveReadsTheLog(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		text  string
		limit time.Duration
	}{
		"a module's error":     {"[error] %d#0: init_by_lua error: x", 2 * quiet},
		"workers cannot live":  {"[alert] %d#0: worker process 1 exited with fatal code 2 and cannot be respawned", quiet / 2},
		"the master's refusal": {"[emerg] %d#0: x", quiet / 2},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d, port := open(t, options(t)), testport.Free(t)
			apply(t, d, bundle(site(port, "one", "")), Started)
			acceptingPIDs(t, d)
			file := path(d, "logs", "error.log")
			tail := openTail(file)
			defer tail.close()
			log, err := os.OpenFile(file, os.O_APPEND|os.O_WRONLY, 0)
			if err != nil {
				t.Fatal(err)
			}
			defer log.Close()
			if _, err := fmt.Fprintf(log, "2026/11/23 18:03:07 [error] 1#1: *1 a client's\n2026/11/23 18:03:07 "+c.text+"\n", d.master.pid); err != nil {
				t.Fatal(err)
			}
			begin := time.Now()
			err = d.prove(t.Context(), "x", workersOf(d.master), tail)
			if err == nil || time.Since(begin) > c.limit || strings.Contains(err.Error(), "client's") ||
				!strings.Contains(err.Error(), strings.SplitN(c.text, "#0: ", 2)[1]) {
				t.Errorf("after %s: %v", time.Since(begin), err)
			}
		})
	}
}
