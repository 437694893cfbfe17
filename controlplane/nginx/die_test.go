package nginx

import (
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"sluice/internal/testport"
)

func TestMasterKilled(t *testing.T) {
	t.Parallel()
	for name, restart := range map[string]bool{"the Driver stays": false, "the Driver dies too": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			o, port, backend := options(t), testport.Free(t), echo(t)
			d := open(t, o)
			b := bundle(site(port, "one", backend))
			apply(t, d, bundle(site(port, "zero", backend)), Started)
			elder := dial(t, port, 2) // in an older generation
			apply(t, d, b, Reloaded)
			sockets := dial(t, port, 5)
			kill(t, d.master)
			if restart {
				abandon(d)
				d = open(t, o)
			}
			serves(t, port, "one") // by the orphans

			apply(t, d, b, Started)
			serves(t, port, "one")
			alive(t, sockets)
			alive(t, elder)
			live := d.Live(t.Context())
			if !live.Running || len(live.Generations) != 3 || live.Generations[0].Old || !live.Generations[1].Old {
				t.Errorf("live: %+v, want the new generation and two of the dead master", live)
			}
			apply(t, d, b, Nothing)
			apply(t, d, bundle(site(port, "two", backend)), Reloaded)
			serves(t, port, "two")
			alive(t, sockets)
		})
	}
}

func kill(t *testing.T, p process) {
	t.Helper()
	if err := p.signal(syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	within(t, 5*time.Second, "the process is gone", func() bool { return !p.alive() })
}

func TestAllKilled(t *testing.T) {
	t.Parallel()
	d, port := open(t, options(t)), testport.Free(t)
	b := bundle(site(port, "one", ""))
	apply(t, d, b, Started)
	sweep(t, d)
	if live := d.Live(t.Context()); live.Running || live.Revision != b.Revision {
		t.Errorf("live: %+v, want it not running", live)
	}
	apply(t, d, b, Started)
	serves(t, port, "one")
}

// A bad configuration comes while nginx is dead: the last good one is started.
func TestKilledAndRefused(t *testing.T) {
	t.Parallel()
	d, port := open(t, options(t)), testport.Free(t)
	apply(t, d, bundle(site(port, "one", "")), Started)
	kill(t, d.master)
	refused(t, d, bundle("nonsense;"), StageTest, "nonsense")
	serves(t, port, "one")
	apply(t, d, bundle(site(port, "one", "")), Nothing)
}

func TestPortTakenAtReload(t *testing.T) {
	t.Parallel()
	d, port := open(t, options(t)), testport.Free(t)
	one := bundle(site(port, "one", ""))
	apply(t, d, one, Started)
	workers := acceptingPIDs(t, d)
	taken, release := hold(t)
	two := bundle(site(port, "two", "") + site(taken, "three", ""))
	refused(t, d, two, StageReload, "still could not bind()", "Address already in use")
	serves(t, port, "one")
	if now := acceptingPIDs(t, d); now[0] != workers[0] {
		t.Errorf("nginx was reloaded, though it had not taken the new configuration")
	}
	if d.linked(current) != d.linked(good) {
		t.Errorf("current is %s, good is %s", d.linked(current), d.linked(good))
	}
	release()
	apply(t, d, two, Reloaded)
	serves(t, port, "two")
	serves(t, taken, "three")
}

func TestPortTakenAtStart(t *testing.T) {
	t.Parallel()
	d, port := open(t, options(t)), testport.Free(t)
	taken, release := hold(t)
	two := bundle(site(port, "two", "") + site(taken, "three", ""))
	refused(t, d, two, StageStart, "still could not bind()", "Address already in use")
	if live := d.Live(t.Context()); live.Running {
		t.Errorf("live: %+v, want it not running", live)
	}
	apply(t, d, bundle(site(port, "one", "")), Started)
	sweep(t, d)
	refused(t, d, two, StageStart, "still could not bind()")
	serves(t, port, "one") // the last good one was started
	release()
	apply(t, d, two, Reloaded)
	serves(t, taken, "three")
}

// A zone whose key changes passes nginx -t and fails at the reload.
func TestZoneChanged(t *testing.T) {
	t.Parallel()
	d, port := open(t, options(t)), testport.Free(t)
	apply(t, d, bundle("limit_req_zone $uri zone=z:64k rate=1r/s;"+site(port, "one", "")), Started)
	begin := time.Now()
	refused(t, d, bundle("limit_req_zone $host zone=z:64k rate=1r/s;"+site(port, "two", "")), StageReload,
		`[emerg] limit_req "z" uses the "$host" key while previously it used the "$uri" key`)
	if took := time.Since(begin); took > 2*time.Second {
		t.Errorf("it took %s to see it in the log", took)
	}
	serves(t, port, "one")
}

// nginx takes the configuration, and then its control server does not answer as it should.
func TestNotProven(t *testing.T) {
	t.Parallel()
	o, port := options(t), testport.Free(t)
	o.ProveTimeout = time.Second
	d := open(t, o)
	apply(t, d, bundle(site(port, "one", "")), Started)
	wrong := bundle(site(port, "two", ""))
	for i, f := range wrong.Files {
		if f.Path == "nginx.conf" {
			wrong.Files[i].Data = []byte(strings.ReplaceAll(string(f.Data), "include control/http.conf;", ""))
		}
	}
	refused(t, d, wrong, StageProve, "did not come to an end in 1s")
	serves(t, port, "one")
	apply(t, d, bundle(site(port, "one", "")), Nothing)
	apply(t, d, bundle(site(port, "two", "")), Reloaded)
}

// What is no socket of ours is named and left alone.
func TestControlSocketTaken(t *testing.T) {
	t.Parallel()
	d, port := open(t, options(t)), testport.Free(t)
	if err := os.WriteFile(d.control.path, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	refused(t, d, bundle(site(port, "one", "")), StageStart, "is no socket")
	if _, err := os.Stat(d.control.path); err != nil {
		t.Errorf("the file is gone: %v", err)
	}
}

func TestQuit(t *testing.T) {
	t.Parallel()
	o, port := options(t), testport.Free(t)
	o.OnExit, o.QuitGrace = Quit, 300*time.Millisecond
	d := open(t, o)
	apply(t, d, bundle(site(port, "one", echo(t))), Started)
	dial(t, port, 1) // would hold its worker for ever
	if err := d.Close(t.Context()); err != nil {
		t.Fatalf("Close: %v", err)
	}
	if left := everyProcess(t, d); len(left) > 0 {
		t.Errorf("nginx is still there: %v", left)
	}
}
