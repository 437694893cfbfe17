package controlplane

import (
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"sluice/controlplane/health"
	"sluice/registry"
)

// fakeChecker says of its targets what a test wants.
type fakeChecker struct {
	mu       sync.Mutex
	targets  []health.Target
	verdicts map[string]health.Verdict // by id
	changed  chan struct{}
}

func (c *fakeChecker) Set(list []health.Target) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.targets = list
}

func (c *fakeChecker) Verdicts() map[health.Key]health.Verdict {
	c.mu.Lock()
	defer c.mu.Unlock()
	all := map[health.Key]health.Verdict{}
	for _, t := range c.targets {
		if v, ok := c.verdicts[t.Node.ID]; ok {
			all[t.Key()] = v
		}
	}
	return all
}

func (c *fakeChecker) Changed() <-chan struct{} { return c.changed }

// find makes v the verdict of nodes.
func (c *fakeChecker) find(v health.Verdict, ids ...string) {
	c.mu.Lock()
	for _, id := range ids {
		c.verdicts[id] = v
	}
	c.mu.Unlock()
	select {
	case c.changed <- struct{}{}:
	default:
	}
}

// urgent are the ids that are checked in a hurry, all those that are checked at all.
func (c *fakeChecker) aimed() (urgent, all []string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, t := range c.targets {
		all = append(all, t.Node.ID)
		if t.Urgent {
			urgent = append(urgent, t.Node.ID)
		}
	}
	return urgent, all
}

func nodeIDs(n int) []string {
	var out []string
	for i := range n {
		out = append(out, fmt.Sprintf("n%03d", i))
	}
	return out
}

// settle lets d pass.
func settle(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

// A verdict goes through the ordinary loop, and one that changes nothing makes no reload.
func TestChecksTakeNodesOut(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, "")
		defer r.stop()
		r.send(newWorld().nodes(10).snapshot)
		settle(time.Second)
		r.checker.find(hangs, "n003")
		settle(gather + time.Second)
		s := r.phase(InStep)
		if s.Nodes != 9 || len(s.Exceptions) != 1 || s.Exceptions[0].State != NodeUnhealthy || s.Upstreams[0].Up != 9 {
			t.Errorf("status: %+v", s)
		}
		before := len(r.attempts())
		r.checker.find(health.Verdict{State: health.Unhealthy, Reason: "something else"}, "n003")
		settle(time.Second)
		if n := len(r.attempts()); n != before {
			t.Errorf("%d applies for nothing", n-before)
		}
		r.checker.find(answers, "n003")
		settle(time.Second)
		if s := r.phase(InStep); s.Nodes != 10 || len(s.Exceptions) != 0 {
			t.Errorf("after it recovered: %+v", s)
		}
	})
}

// Those that are held are checked in a hurry, and stand when sluice is killed and started again.
func TestHoldOutlivesARestart(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "last-good.json")
		first := newRig(t, path)
		w := newWorld().nodes(10)
		first.checker.find(proves, nodeIDs(10)...)
		first.send(w.snapshot)
		settle(time.Minute)
		w.snapshot.Nodes = w.snapshot.Nodes[7:]
		first.send(w.snapshot)
		settle(2 * time.Second)
		s := first.phase(InStep)
		if s.Nodes != 10 || s.Upstreams[0].Held != 7 || len(s.Alarms) != 1 || len(s.Findings.Held) != 7 {
			t.Errorf("status: %+v", s)
		}
		if urgent, all := first.checker.aimed(); len(urgent) != 7 || len(all) != 10 {
			t.Errorf("checked in a hurry: %v, of %v", urgent, all)
		}
		since := s.Exceptions[0].Since
		first.stop()

		second := newRig(t, path)
		defer second.stop()
		second.checker.find(proves, nodeIDs(10)...)
		settle(100 * time.Millisecond)
		second.send(w.snapshot)
		settle(time.Hour)
		s = second.phase(InStep)
		if s.Nodes != 10 || s.Upstreams[0].Held != 7 || !s.Exceptions[0].Since.Equal(since) {
			t.Errorf("after a restart: %+v", s)
		}
		w.put(registry.KindApproval, "io", `{}`)
		second.send(w.snapshot)
		settle(time.Second)
		if s := second.phase(InStep); s.Nodes != 3 || len(s.Alarms) != 0 {
			t.Errorf("after the approval: %+v", s)
		}
	})
}

func report(t *testing.T, s Status) registry.Object {
	t.Helper()
	value, err := registry.MarshalJSON(s)
	if err != nil {
		t.Fatal(err)
	}
	return registry.Object{Kind: registry.KindGateway, Name: s.Gateway, Value: value}
}

// A gateway that starts holds whom the others hold.
func TestHoldIsTakenOver(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld().nodes(10)
		nodes := w.snapshot.Nodes
		var held []HeldNode
		for _, n := range nodes[3:] {
			held = append(held, HeldNode{"io", time.Now().Add(-time.Minute), n})
		}
		other := report(t, Status{Gateway: "edge-2", Group: "default", Findings: &Findings{Held: held}})
		r := newRig(t, "", func(r *rig) {
			r.registry.lists = map[registry.Kind][]registry.Object{registry.KindGateway: {other}}
		})
		defer r.stop()
		r.checker.find(proves, nodeIDs(10)...)
		w.snapshot.Nodes = nodes[:4]
		r.send(w.snapshot)
		settle(time.Minute)
		if s := r.phase(InStep); s.Nodes != 10 || s.Upstreams[0].Held != 6 {
			t.Errorf("status: %+v", s)
		}
	})
}

// A node is out when most of those that check it say so.
func TestVotes(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, "")
		defer r.stop()
		tell := func(failing ...string) {
			var reports []registry.Object
			for i, name := range []string{"edge-2", "edge-3"} {
				f := &Findings{}
				if i < len(failing) {
					f.Failing = []FailingNode{{Upstream: "io", ID: failing[i]}}
				}
				reports = append(reports, report(t, Status{Gateway: name, Group: "default", Findings: f}))
			}
			reports = append(reports, report(t, Status{Gateway: "far", Group: "other", Findings: &Findings{Failing: []FailingNode{{Upstream: "io", ID: "n005"}}}}))
			r.registry.set(func(f *fakeRegistry) { f.lists = map[registry.Kind][]registry.Object{registry.KindGateway: reports} })
		}
		tell()
		r.send(newWorld().nodes(10).snapshot)
		settle(time.Minute)
		r.checker.find(hangs, "n001")
		settle(time.Minute)
		if s := r.phase(InStep); s.Nodes != 10 {
			t.Errorf("one of three took a node out: %+v", s)
		}
		tell("n001")
		settle(time.Minute)
		if s := r.phase(InStep); s.Nodes != 9 {
			t.Errorf("two of three did not take a node out: %+v", s)
		}
		r.checker.find(answers, "n001")
		settle(time.Second)
		if s := r.phase(InStep); s.Nodes != 10 {
			t.Errorf("with one of three it is not back: %+v", s)
		}
		tell("n001", "n001")
		settle(time.Minute)
		if s := r.phase(InStep); s.Nodes != 9 {
			t.Errorf("the others did not take a node out: %+v", s)
		}
		// The registry is away: what others said does not count for long.
		r.registry.set(func(f *fakeRegistry) { f.listErr = errors.New("away") })
		settle(peersForget + 2*peersEvery)
		if s := r.phase(InStep); s.Nodes != 10 {
			t.Errorf("the votes of those that are silent count: %+v", s)
		}
	})
}

// Three of five check a node, all agree on which, and the work is spread.
func TestElectorate(t *testing.T) {
	t.Parallel()
	names := []string{"a", "b", "c", "d", "e"}
	count := map[string]int{}
	for i := range 1000 {
		k := health.Key{Upstream: "io", ID: fmt.Sprintf("n%d", i)}
		var first []string
		for _, own := range names {
			var others []peer
			for _, name := range names {
				if name != own {
					others = append(others, peer{name: name})
				}
			}
			e := newElectorate(own, others)
			got := slices.Sorted(slices.Values(e.of(k)))
			if first == nil {
				first = got
			}
			if !slices.Equal(got, first) || len(got) != voters {
				t.Fatalf("%s says %v, a says %v", own, got, first)
			}
			if e.mine(k) {
				count[own]++
			}
		}
	}
	for _, n := range slices.Collect(maps.Values(count)) {
		if n < 500 || n > 700 {
			t.Errorf("uneven: %v", count)
		}
	}
}

// A registry that is wiped loses nothing: what was known stands, and who saw it there puts it back.
func TestEmptiedRegistry(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "last-good.json")
		r := newRig(t, path)
		r.checker.find(answers, nodeIDs(10)...)
		w := newWorld().put(registry.KindUpstream, "io", `{}`).nodes(10)
		r.send(w.snapshot)
		settle(time.Second)
		w.snapshot.Slots = r.registry.stored()
		r.send(w.snapshot)
		settle(time.Second)
		before := r.phase(InStep)

		r.send(registry.Snapshot{})
		settle(putBackAfter / 2)
		s := r.phase(InStep)
		if s.RevisionLive != before.RevisionLive || len(s.Alarms) != 2 || !strings.Contains(s.Alarms[0].Message, "put back") {
			t.Errorf("status: %+v", s)
		}
		settle(putBackAfter)
		r.registry.mu.Lock()
		commits := r.registry.commits
		r.registry.mu.Unlock()
		if len(commits) != 1 || len(commits[0].Ops) != 2 || *commits[0].Ops[0].IfSeq != 0 {
			t.Fatalf("commits: %+v", commits)
		}
		stored := r.registry.stored()
		if last := stored[len(stored)-1]; last.Version != 1 || len(last.Slots) != 10 {
			t.Errorf("the slots were not put back: %+v", last)
		}
		// The objects come back, and the nodes at their next beats.
		after := registry.Snapshot{Seq: 1, Slots: stored[len(stored)-1:]}
		for _, op := range commits[0].Ops {
			after.Objects = append(after.Objects, registry.Object{Kind: op.Kind, Name: op.Name, Seq: 1, Value: op.Value})
		}
		r.send(after)
		settle(2 * tcpProof)
		if s := r.phase(InStep); s.RevisionLive != before.RevisionLive || s.Upstreams[0].Held != 10 || len(s.Alarms) != 1 {
			t.Errorf("while the nodes are missing: %+v", s)
		}
		after.Nodes = w.snapshot.Nodes
		r.send(after)
		settle(time.Second)
		if s := r.phase(InStep); s.RevisionLive != before.RevisionLive || len(s.Alarms) != 0 {
			t.Errorf("in the end: %+v", s)
		}
		if n := len(r.attempts()); n != 2 {
			t.Errorf("%d applies, want 2", n)
		}
		r.stop()

		// What only the disk knows stands too, and is not put back.
		second := newRig(t, path)
		defer second.stop()
		second.send(registry.Snapshot{})
		settle(time.Minute)
		s = second.phase(InStep)
		if s.RevisionLive != before.RevisionLive || !strings.Contains(s.Alarms[0].Message, "from its disk alone") {
			t.Errorf("after a restart: %+v", s)
		}
		if len(second.registry.commits) != 0 { // nothing else runs in the bubble
			t.Errorf("commits: %+v", second.registry.commits)
		}
		approval := fmt.Sprintf(`{"at": %q}`, time.Now().Add(time.Second).UTC().Format(time.RFC3339))
		second.send(registry.Snapshot{Seq: 1, Objects: []registry.Object{{Kind: registry.KindApproval, Name: approveRegistry, Seq: 1, Value: []byte(approval)}}})
		settle(time.Minute)
		if s := second.phase(InStep); len(s.Upstreams) != 0 || len(s.Alarms) != 0 {
			t.Errorf("after the approval: %+v", s)
		}
	})
}

// Objects that vanish while the Seq stays were deleted by hand; a deletion through sluice is a change.
func TestVanishedObjects(t *testing.T) {
	t.Parallel()
	w := newWorld()
	var d desire
	d.take(w.snapshot, time.Now())
	less := w.snapshot
	less.Objects = w.snapshot.Objects[:1]
	if got := d.take(less, time.Now()); len(got.Objects) != 2 || d.empty() || d.alarm(nil) == "" {
		t.Errorf("deleted by hand: %+v, alarm %q", got.Objects, d.alarm(nil))
	}
	less.Seq++
	if got := d.take(less, time.Now()); len(got.Objects) != 2 {
		t.Errorf("after another change: %+v", got.Objects)
	}
	whole := w.snapshot
	whole.Seq = less.Seq + 1
	if got := d.take(whole, time.Now()); len(got.Objects) != 2 || d.alarm(nil) != "" {
		t.Errorf("written again: %+v, alarm %q", got.Objects, d.alarm(nil))
	}
	less.Seq = whole.Seq + 1
	if got := d.take(less, time.Now()); len(got.Objects) != 1 || d.alarm(nil) != "" {
		t.Errorf("deleted: %+v, alarm %q", got.Objects, d.alarm(nil))
	}
}
