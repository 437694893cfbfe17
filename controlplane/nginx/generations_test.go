package nginx

import (
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"sluice/internal/testport"
)

func TestDueTable(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		old    int
		leaves bool
		want   time.Duration
	}{
		{0, false, time.Second},
		{0, true, time.Second},
		{1, true, 2 * time.Second},
		{2, true, 4 * time.Second},
		{3, true, 5 * time.Second},
		{4, true, 30 * time.Second},
		{4, false, 30 * time.Second},
		{5, true, 30 * time.Second},
		{1000, true, 30 * time.Second},
		{3, false, 8 * time.Second},
		{5, false, 32 * time.Second},
		{6, false, time.Minute},
		{5000, false, time.Minute},
	} {
		if got := due(c.old, c.leaves); got != c.want {
			t.Errorf("due(%d, %v) = %s, want %s", c.old, c.leaves, got, c.want)
		}
	}
}

func TestAlarm(t *testing.T) {
	t.Parallel()
	var all []Generation
	for i := range 6 {
		all = append(all, Generation{Number: 6 - i, Old: i > 0, Workers: []Worker{{Memory: 8 << 20, Sockets: 10}}})
		if text := alarm(all); (text != "") != (i > manyOld) {
			t.Errorf("%d old generations: alarm %q", i, text)
		}
	}
	if text := alarm(all); !strings.Contains(text, "5 old generations") || !strings.Contains(text, "50 open sockets") || !strings.Contains(text, "40 MB") {
		t.Errorf("alarm %q", text)
	}
}

func TestDue(t *testing.T) {
	t.Parallel()
	o, port, backend := options(t), testport.Free(t), echo(t)
	d := open(t, o)
	if at, _ := d.Due(false); time.Until(at) > 0 {
		t.Errorf("due at %s, though nothing runs", at)
	}
	began := time.Now() // the last start of workers
	apply(t, d, bundle(site(port, "one", backend)), Started)
	wait := func(d *Driver, leaves bool, want time.Duration) {
		t.Helper()
		at, why := d.Due(leaves)
		if left, least := time.Until(at), want-time.Since(began)-2*tick; left > want || left < least {
			t.Errorf("due in %s, want %s to %s (%s)", left, least, want, why)
		}
	}
	wait(d, true, time.Second)
	// Generations that follow each other within moments, as never in earnest, cannot be told apart by their start alone.
	within(t, time.Second, "the first generation is of some age", func() bool { return accepting(d.master)[0].age() > 200*time.Millisecond })
	for _, answer := range []string{"two", "three", "four"} {
		dial(t, port, 1)
		began = time.Now()
		apply(t, d, bundle(site(port, answer, backend)), Reloaded)
	}
	wait(d, true, 5*time.Second)
	wait(d, false, 8*time.Second)
	if _, why := d.Due(false); !strings.Contains(why, "3 old generations") || !strings.Contains(why, "8s apart") {
		t.Errorf("why: %q", why)
	}
	// A new Driver sees the same, even without what was written down.
	before := d.Live(t.Context()).Generations
	abandon(d)
	d = open(t, o)
	wait(d, false, 8*time.Second)
	if now := d.Live(t.Context()).Generations; !slices.Equal(numbers(now), numbers(before)) || !slices.Equal(numbers(now), []int{4, 3, 2, 1}) {
		t.Errorf("generations %v became %v", numbers(before), numbers(now))
	}
	abandon(d)
	if err := os.Remove(statePath(o.Dir)); err != nil {
		t.Fatal(err)
	}
	d = open(t, o)
	wait(d, false, 8*time.Second)
}

func numbers(generations []Generation) []int {
	var n []int
	for _, g := range generations {
		n = append(n, g.Number)
	}
	return n
}

func TestNotice(t *testing.T) {
	t.Parallel()
	w := func(pid int, start uint64, leaving bool) worker { return worker{process{pid, start}, leaving} }
	for name, c := range map[string]struct {
		noted   []reload
		workers []worker
		want    []reload
	}{
		"all noted":          {[]reload{{7, 1000}}, []worker{w(1, 1001, false), w(2, 1002, false)}, []reload{{7, 1000}}},
		"in the same tick":   {[]reload{{7, 1000}}, []worker{w(1, 1000, false)}, []reload{{7, 1000}}},
		"respawned":          {[]reload{{7, 1000}}, []worker{w(1, 1001, false), w(2, 9000, false)}, []reload{{7, 1000}}},
		"nothing noted":      {nil, []worker{w(1, 1001, true), w(2, 1005, true), w(3, 2000, false)}, []reload{{1, 1001}, {2, 2000}}},
		"nothing noted, 3":   {nil, []worker{w(1, 1001, true), w(2, 2000, true), w(3, 3000, false)}, []reload{{1, 1001}, {2, 2000}, {3, 3000}}},
		"only a number":      {[]reload{{41, 0}}, []worker{w(1, 1001, false)}, []reload{{41, 0}, {42, 1001}}},
		"somebody reloaded":  {[]reload{{7, 1000}}, []worker{w(1, 1001, true), w(2, 5000, false)}, []reload{{7, 1000}, {8, 5000}}},
		"our reload, proven": {[]reload{{7, 1000}, {8, 5000}}, []worker{w(1, 1001, true), w(2, 5000, false)}, []reload{{7, 1000}, {8, 5000}}},
	} {
		s := state{Reloads: c.noted}
		s.notice(c.workers)
		if !slices.Equal(s.Reloads, c.want) {
			t.Errorf("%s: %v, want %v", name, s.Reloads, c.want)
		}
	}
}

func TestStateOfAnotherBoot(t *testing.T) {
	t.Parallel()
	o := options(t)
	d := open(t, o)
	if err := (state{Boot: "another", Reloads: []reload{{17, 12345}}, Orphans: []orphan{{1, 1}}}).save(o.Dir); err != nil {
		t.Fatal(err)
	}
	for _, garbage := range []bool{false, true} {
		if garbage {
			if err := os.WriteFile(statePath(o.Dir), []byte("{"), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		s, err := loadState(o.Dir)
		if err != nil {
			t.Fatal(err)
		}
		want := 17
		if garbage {
			want = lastStaged(o.Dir)
		}
		if s.last() != want || len(s.Orphans) > 0 || s.Reloads[0].Start != 0 {
			t.Errorf("loaded %+v, want only the number %d", s, want)
		}
	}
	_ = d
}
