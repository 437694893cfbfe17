package controlplane

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"sluice/registry"
)

func TestFirstSnapshotIsAppliedAtOnce(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, "")
		defer r.stop()
		start := time.Now()
		r.send(newWorld().nodes(3).snapshot)
		r.phase(Applying)
		time.Sleep(r.applier.took)
		synctest.Wait()
		s := r.phase(InStep)
		if s.SeqLive != 2 || s.Nodes != 3 || s.RevisionLive == "" || s.RevisionLive != s.RevisionWanted {
			t.Errorf("status: %+v", s)
		}
		if got := r.attempts()[0].at.Sub(start); got != r.applier.took {
			t.Errorf("applied after %s, want at once (%s)", got, r.applier.took)
		}
	})
}

func TestNothingIsAppliedWithoutASnapshot(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, "")
		defer r.stop()
		time.Sleep(time.Hour)
		synctest.Wait()
		r.phase(Starting)
		if n := len(r.attempts()); n != 0 {
			t.Errorf("%d applies without a snapshot", n)
		}
	})
}

// A change after a calm is applied at once; a burst ends as one more apply.
func TestBurstIsGathered(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, "")
		defer r.stop()
		r.send(newWorld().nodes(1).snapshot)
		time.Sleep(time.Minute)
		for n := range 100 {
			r.send(newWorld().nodes(n + 2).snapshot)
			time.Sleep(5 * time.Millisecond)
		}
		time.Sleep(time.Second)
		synctest.Wait()
		s := r.phase(InStep)
		if s.Nodes != 101 {
			t.Errorf("%d nodes are live, want 101", s.Nodes)
		}
		if n := len(r.attempts()); n > 6 {
			t.Errorf("100 changes within half a second made %d applies", n)
		}
	})
}

// Under changes that never pause, the newest state is still applied about once a second.
func TestStormDoesNotStarve(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, "")
		defer r.stop()
		for i := range 1000 {
			r.send(newWorld().nodes(1 + i).snapshot)
			time.Sleep(10 * time.Millisecond)
		}
		if n := len(r.attempts()); n < 6 || n > 30 {
			t.Errorf("10 s of changes made %d applies", n)
		}
	})
}

// Of a large fleet that changes all the time, not each state is compiled: that would take all of a core.
func TestStormOfALargeFleetIsGathered(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, "")
		defer r.stop()
		r.renderer.took = 50 * time.Millisecond
		for i := range 500 {
			r.send(newWorld().nodes(1 + i).snapshot)
			time.Sleep(20 * time.Millisecond)
		}
		if n := len(r.attempts()); n < 6 {
			t.Errorf("10 s of changes made %d applies", n)
		}
		time.Sleep(2 * time.Second)
		synctest.Wait()
		if s := r.phase(InStep); s.Nodes != 500 {
			t.Errorf("%d nodes are live, want 500", s.Nodes)
		}
		if made := r.renderer.made; made > 30 {
			t.Errorf("%d times it was compiled", made)
		}
	})
}

func TestSameConfigurationIsNotAppliedAgain(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, "")
		defer r.stop()
		w := newWorld().nodes(2)
		r.send(w.snapshot)
		time.Sleep(time.Second)
		w.put(registry.KindUpstream, "unused", `{}`)
		r.send(w.snapshot)
		time.Sleep(time.Second)
		synctest.Wait()
		if s := r.phase(InStep); s.SeqLive != 3 {
			t.Errorf("seq %d is live, want 3", s.SeqLive)
		}
		if n := len(r.attempts()); n != 1 {
			t.Errorf("%d applies, want 1", n)
		}
	})
}

func TestJoiningWaitsWhileLeavingDoesNot(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, "")
		defer r.stop()
		r.send(newWorld().nodes(2).snapshot)
		time.Sleep(time.Minute)
		due := time.Now().Add(30 * time.Second)
		r.applier.set(func(a *fakeApplier) { a.due = due })
		r.send(newWorld().nodes(3).snapshot)
		s := r.phase(Waiting)
		if s.Wait.What != "1 node joins" || s.Wait.Why == "" || !s.Wait.Until.Equal(due) {
			t.Errorf("wait: %+v", s.Wait)
		}
		time.Sleep(10 * time.Second)
		synctest.Wait()
		r.phase(Waiting)
		r.send(newWorld().nodes(3).leave("n000").snapshot)
		time.Sleep(time.Second)
		synctest.Wait()
		r.phase(InStep)
		if n := len(r.attempts()); n != 2 {
			t.Errorf("%d applies, want 2: a leaving node takes the joining one along", n)
		}
	})
}

func TestWaitEndsWhenDue(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, "")
		defer r.stop()
		r.send(newWorld().nodes(2).snapshot)
		time.Sleep(time.Minute)
		due := time.Now().Add(30 * time.Second)
		r.applier.set(func(a *fakeApplier) { a.due = due })
		r.send(newWorld().nodes(3).snapshot)
		time.Sleep(31 * time.Second)
		synctest.Wait()
		if s := r.phase(InStep); s.Nodes != 3 || s.Wait != nil {
			t.Errorf("status: %+v", s)
		}
		if got := r.attempts()[1].at.Sub(due); got != r.applier.took {
			t.Errorf("applied %s after it was due", got)
		}
	})
}

func TestRefusedConfiguration(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, "")
		defer r.stop()
		r.send(newWorld().nodes(2).snapshot)
		time.Sleep(time.Minute)
		live := r.phase(InStep).RevisionLive
		r.applier.set(func(a *fakeApplier) { a.err = errRefused })
		r.send(newWorld().nodes(3).snapshot)
		time.Sleep(time.Second)
		synctest.Wait()
		s := r.phase(Failed)
		if s.RevisionLive != live || s.Failure.Attempts != 1 || s.Failure.Message != errRefused.Error() {
			t.Errorf("status: %+v, failure: %+v", s, s.Failure)
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		if n := r.phase(Failed).Failure.Attempts; n != 4 { // after 5, 10, 20 and 40 s
			t.Errorf("%d attempts within a minute, want 4", n)
		}
		r.applier.set(func(a *fakeApplier) { a.err = nil })
		r.Retry()
		time.Sleep(time.Second)
		synctest.Wait()
		if s := r.phase(InStep); s.Nodes != 3 || s.Failure != nil {
			t.Errorf("after the retry: %+v", s)
		}
	})
}

// What is fixed by another change does not wait for the refused one's next try.
func TestAnotherConfigurationAfterARefusedOne(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, "")
		defer r.stop()
		r.send(newWorld().nodes(2).snapshot)
		time.Sleep(time.Minute)
		r.applier.set(func(a *fakeApplier) { a.err = errRefused })
		r.send(newWorld().nodes(3).snapshot)
		time.Sleep(200 * time.Second) // many attempts: the next one is minutes away
		synctest.Wait()
		r.phase(Failed)
		r.applier.set(func(a *fakeApplier) { a.err = nil })
		r.send(newWorld().nodes(4).snapshot)
		time.Sleep(2 * time.Second)
		synctest.Wait()
		if s := r.phase(InStep); s.Nodes != 4 {
			t.Errorf("status: %+v", s)
		}
	})
}

func TestBrokenTemplateIsTriedAgainWhenItChanges(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, "")
		defer r.stop()
		r.send(newWorld().nodes(2).snapshot)
		time.Sleep(time.Minute)
		set := func(fingerprint string, err error) {
			r.renderer.mu.Lock()
			defer r.renderer.mu.Unlock()
			r.renderer.print, r.renderer.err = fingerprint, err
		}
		set("broken", errors.New("site.conf.tmpl:3: unexpected {{end}}"))
		time.Sleep(inputPeriod + time.Second)
		synctest.Wait()
		if s := r.phase(Failed); !strings.Contains(s.Failure.Message, "site.conf.tmpl:3") {
			t.Errorf("failure: %+v", s.Failure)
		}
		time.Sleep(10 * time.Minute)
		set("mended", nil)
		time.Sleep(inputPeriod + time.Second)
		synctest.Wait()
		if s := r.phase(InStep); s.Failure != nil || len(r.attempts()) != 2 {
			t.Errorf("status: %+v, %d applies", s, len(r.attempts()))
		}
	})
}

func TestNginxIsLookedAtWhenItChanged(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, "")
		defer r.stop()
		r.send(newWorld().nodes(2).snapshot)
		time.Sleep(time.Minute)
		r.applier.set(func(a *fakeApplier) { a.live = "" }) // it died
		r.wake <- struct{}{}
		time.Sleep(time.Second)
		synctest.Wait()
		r.phase(InStep)
		if n := len(r.attempts()); n != 2 {
			t.Errorf("%d applies, want 2", n)
		}
	})
}

// Without the registry, a start uses what was last proven good, and says that it is stale.
func TestStartWithoutRegistry(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "last-good.json")
		first := newRig(t, path)
		first.send(newWorld().nodes(3).snapshot)
		time.Sleep(time.Second)
		synctest.Wait()
		want := first.phase(InStep).RevisionLive
		first.stop()
		info, err := os.Stat(path)
		if err != nil || info.Mode().Perm() != 0o600 {
			t.Fatalf("last good state: %v, %v", info, err)
		}

		second := newRig(t, path)
		defer second.stop()
		time.Sleep(staleAfter + time.Second)
		synctest.Wait()
		s := second.phase(InStep)
		if !s.Stale || s.RevisionLive != want || s.Nodes != 3 || s.SeqLive != 2 {
			t.Errorf("status: %+v", s)
		}
		second.send(newWorld().nodes(3).leave("n002").snapshot)
		time.Sleep(time.Second)
		synctest.Wait()
		if s := second.phase(InStep); s.Stale || s.Nodes != 2 {
			t.Errorf("after the registry came: %+v", s)
		}
	})
}

func TestUnreadableLastGoodIsNoReasonNotToStart(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "last-good.json")
		if err := os.WriteFile(path, []byte(`{"version": 1, "snap`), 0o600); err != nil {
			t.Fatal(err)
		}
		r := newRig(t, path)
		defer r.stop()
		time.Sleep(staleAfter + time.Second)
		r.send(newWorld().nodes(2).snapshot)
		time.Sleep(time.Second)
		synctest.Wait()
		r.phase(InStep)
	})
}

// A node of an ip_hash upstream is rendered when its slot is stored, not before: all gateways must agree.
func TestSlotsAreStoredFirst(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, "")
		defer r.stop()
		w := newWorld().put(registry.KindUpstream, "io", `{"balance": {"method": "ip_hash"}}`).nodes(2)
		r.send(w.snapshot)
		time.Sleep(time.Second)
		synctest.Wait()
		if s := r.phase(InStep); s.Nodes != 0 {
			t.Errorf("%d nodes are rendered without a stored slot", s.Nodes)
		}
		stored := r.registry.stored()
		if len(stored) != 1 || len(stored[0].Slots) != 2 {
			t.Fatalf("slots: %+v", stored)
		}
		w.snapshot.Slots = stored
		r.send(w.snapshot)
		time.Sleep(time.Second)
		synctest.Wait()
		if s := r.phase(InStep); s.Nodes != 2 || len(r.registry.stored()) != 1 {
			t.Errorf("status: %+v, slots: %+v", s, r.registry.stored())
		}
	})
}

func TestSlotsAreTriedAgain(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, "")
		defer r.stop()
		r.registry.slotErr = errors.New("etcd is away") // nothing runs yet that could read it
		r.send(newWorld().put(registry.KindUpstream, "io", `{"balance": {"method": "ip_hash"}}`).nodes(2).snapshot)
		time.Sleep(3*inputPeriod + time.Second)
		synctest.Wait()
		if n := len(r.registry.stored()); n < 3 {
			t.Errorf("%d attempts to store the slots", n)
		}
	})
}

func TestReports(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, "")
		defer r.stop()
		for n := range 50 {
			r.send(newWorld().nodes(n).snapshot)
			time.Sleep(20 * time.Millisecond)
		}
		time.Sleep(5 * time.Second)
		synctest.Wait()
		reports := r.registry.reported()
		n := len(reports)
		if n < 2 || n > 4 {
			t.Errorf("%d reports of a second of changes; at most one a second is wanted", n)
		}
		if last := reports[n-1]; last.Phase != InStep || last.Nodes != 49 {
			t.Errorf("the last report is %+v", last)
		}
		time.Sleep(3 * reportEvery)
		synctest.Wait()
		if more := len(r.registry.reported()) - n; more < 2 || more > 4 {
			t.Errorf("%d reports in a calm of %s", more, 3*reportEvery)
		}
	})
}
