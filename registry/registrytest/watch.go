package registrytest

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"sluice/registry"
)

func watchTests() []test {
	return []test{
		{"of an empty registry sends an empty Snapshot", watchEmpty},
		{"sends all that is there first", watchFirst},
		{"sends a Snapshot after every change", watchChanges},
		{"sends sorted Snapshots", watchSorted},
		{"never changes what it sent", watchImmutable},
		{"gives a slow receiver the newest", watchSlow},
		{"ends with its context", watchEnds},
		{"reports what does not decode and sends the rest", watchGarbage},
		{"does not send leased objects and history", watchNoLeased},
		{"comes right after a storm", watchStorm},
	}
}

func (s *suite) watchLeavesNothing(t *testing.T) {
	e := s.start(t)
	e.commit(t, write(upstream("io"), `{}`))
	before := goleak.IgnoreCurrent()
	r, closeIt := e.Open(t)
	w := e.watch(t, r)
	w.next(e.Settle)
	w.stop()
	closeIt()
	goleak.VerifyNone(t, before)
	w.done <- nil // for the clean-up
}

func watchEmpty(t *testing.T, e *env) {
	s := e.watch(t, e.One).next(e.Settle)
	if s.Seq != 0 || len(s.Objects)+len(s.Nodes)+len(s.Tombstones)+len(s.Slots)+len(s.Problems) != 0 {
		t.Fatalf("got %+v, want nothing", s)
	}
}

func watchFirst(t *testing.T, e *env) {
	want := e.commit(t, write(upstream("io"), `{}`), write(site("chat"), `{"hosts":["a"]}`), write(secret("k"), `{"pem":"x"}`))
	for i := range 50 {
		e.put(t, node("io", fmt.Sprintf("n%02d", i)), long)
	}
	if err := e.One.PutSlots(e.ctx, registry.SlotTable{Upstream: "io", Slots: []registry.Slot{{Node: "0123456789", Weight: 1}}}); err != nil {
		t.Fatal(err)
	}
	s := e.watch(t, e.Two).next(e.Settle)
	if s.Seq != want.Seq || len(s.Objects) != 3 || len(s.Nodes) != 50 || len(s.Slots) != 1 {
		t.Fatalf("the first Snapshot is not complete: seq %d, %d objects, %d nodes, %d slot tables",
			s.Seq, len(s.Objects), len(s.Nodes), len(s.Slots))
	}
}

func watchChanges(t *testing.T, e *env) {
	e.commit(t, write(upstream("io"), `{}`))
	w := e.watch(t, e.Two)
	w.next(e.Settle)

	done := e.commit(t, write(site("chat"), `{"a":1}`))
	w.until(e.Settle, "a new object", hasSeq(done.Seq))
	done = e.commit(t, write(site("chat"), `{"a":2}`))
	w.until(e.Settle, "a changed object", func(s registry.Snapshot) bool {
		i := slices.IndexFunc(s.Objects, func(o registry.Object) bool { return o.Ref() == site("chat") })
		return i >= 0 && s.Objects[i].Seq == done.Seq && registry.SameJSON(s.Objects[i].Value, json.RawMessage(`{"a":2}`))
	})
	done = e.commit(t, erase(site("chat")))
	w.until(e.Settle, "an object less", hasSeq(done.Seq))
	if len(w.last.Objects) != 1 {
		t.Errorf("the deleted object is still there: %+v", w.last.Objects)
	}

	n := node("io", "n1")
	e.put(t, n, long)
	w.until(e.Settle, "a new node", hasNode(n.Ref()))
	n.Weight = 5
	e.put(t, n, long)
	w.until(e.Settle, "a changed node", func(s registry.Snapshot) bool { return len(s.Nodes) == 1 && s.Nodes[0].Weight == 5 })
	if err := e.One.Remove(e.ctx, n.Ref()); err != nil {
		t.Fatal(err)
	}
	w.until(e.Settle, "a node less", lacksNode(n.Ref()))
	if err := e.One.PutSlots(e.ctx, registry.SlotTable{Upstream: "io", Slots: []registry.Slot{{Node: n.Key(), Weight: 1}}}); err != nil {
		t.Fatal(err)
	}
	w.until(e.Settle, "a slot table", func(s registry.Snapshot) bool { return len(s.Slots) == 1 })
}

func watchSorted(t *testing.T, e *env) {
	// Of "io" and "io-2", etcd's keys sort the other way round than the names.
	e.commit(t, write(upstream("io-2"), `{}`), write(site("b"), `{}`), write(upstream("io"), `{}`), write(site("a"), `{}`))
	for _, n := range []registry.Node{node("io-2", "a"), node("io", "b/2"), node("io", "b.1"), node("io", "b")} {
		e.put(t, n, long)
	}
	w := e.watch(t, e.Two)
	s := w.next(e.Settle)
	var refs []string
	for _, o := range s.Objects {
		refs = append(refs, o.Ref().String())
	}
	if want := []string{"site/a", "site/b", "upstream/io", "upstream/io-2"}; !slices.Equal(refs, want) {
		t.Errorf("objects are %q, want %q", refs, want)
	}
	var nodes []string
	for _, n := range s.Nodes {
		nodes = append(nodes, n.Service+" "+n.ID)
	}
	if want := []string{"io b", "io b.1", "io b/2", "io-2 a"}; !slices.Equal(nodes, want) {
		t.Errorf("nodes are %q, want %q", nodes, want)
	}
	for _, n := range s.Nodes {
		if err := e.One.Remove(e.ctx, n.Ref()); err != nil {
			t.Fatal(err)
		}
	}
	w.until(e.Settle, "four tombstones", func(s registry.Snapshot) bool { return len(s.Tombstones) == 4 })
	nodes = nil
	for _, n := range w.last.Tombstones {
		nodes = append(nodes, n.Service+" "+n.ID)
	}
	if want := []string{"io b", "io b.1", "io b/2", "io-2 a"}; !slices.Equal(nodes, want) {
		t.Errorf("tombstones are %q, want %q", nodes, want)
	}
}

func watchImmutable(t *testing.T, e *env) {
	e.commit(t, write(upstream("io"), `{"a":1}`), write(site("s"), `{"a":1}`))
	for i := range 10 {
		e.put(t, node("io", fmt.Sprintf("n%d", i)), long)
	}
	w := e.watch(t, e.Two)
	first := w.next(e.Settle)
	kept, err := json.Marshal(first)
	if err != nil {
		t.Fatal(err)
	}
	for i := range 10 {
		n := node("io", fmt.Sprintf("n%d", i))
		n.Weight = 7
		e.put(t, n, long)
	}
	done := e.commit(t, write(upstream("io"), `{"a":2}`), erase(site("s")))
	w.until(e.Settle, "the changes", func(s registry.Snapshot) bool {
		return s.Seq == done.Seq && !slices.ContainsFunc(s.Nodes, func(n registry.Node) bool { return n.Weight != 7 })
	})
	if now, err := json.Marshal(first); err != nil || !bytes.Equal(now, kept) {
		t.Errorf("the first Snapshot was changed (%v):\nwas %s\nis  %s", err, kept, now)
	}
}

func watchSlow(t *testing.T, e *env) {
	w := e.watch(t, e.Two)
	w.next(e.Settle)
	var last registry.Committed
	for i := range 20 {
		last = e.commit(t, write(site("s"), `{"i":%d}`, i))
	}
	// Nobody received meanwhile. The second at the latest is the newest: the first may have been on offer before.
	count := 0
	w.until(e.Settle, "the newest", func(s registry.Snapshot) bool { count++; return s.Seq == last.Seq })
	if count > 12 {
		t.Errorf("a receiver that slept got %d Snapshots; those in between are to be left out", count)
	}
}

func watchEnds(t *testing.T, e *env) {
	w := e.watch(t, e.One)
	w.next(e.Settle)
	e.commit(t, write(site("s"), `{}`)) // a Snapshot that nobody takes must not hold it up
	w.cancel()
	select {
	case err := <-w.done:
		if !errors.Is(err, context.Canceled) {
			t.Errorf("Watch returned %v, want the context's error", err)
		}
		w.done <- err
	case <-time.After(e.Settle):
		t.Fatalf("Watch did not end within %s", e.Settle)
	}
	select {
	case s, open := <-w.out:
		t.Errorf("after its end, Watch sent %+v (open: %v)", s, open)
	default:
	}
}

func watchGarbage(t *testing.T, e *env) {
	e.commit(t, write(upstream("io"), `{}`), write(site("good"), `{}`))
	e.put(t, node("io", "good"), long)
	w := e.watch(t, e.Two)
	w.next(e.Settle)
	values := []string{`not json`, `[]`, `{}`, `{"v":1,"node":{"service":"io","id":"other","address":"127.0.0.1","port":1}}`,
		`{"v":99}`, `{"v":1,"node":{"service":"io","id":"bad5","address":"127.0.0.1; }","port":1}}`}
	for i, v := range values {
		e.PutRawNode(t, "io", fmt.Sprintf("bad%d", i), v)
	}
	e.PutRawObject(t, site("bad"), `nonsense`)
	check := func(s registry.Snapshot) {
		t.Helper()
		if len(s.Nodes) != 1 || s.Nodes[0].ID != "good" || len(s.Objects) != 2 {
			t.Errorf("what is good did not flow, or what is not did: nodes %+v, objects %+v", s.Nodes, s.Objects)
		}
		for i := range values {
			name := fmt.Sprintf("node/io/bad%d", i)
			if !slices.ContainsFunc(s.Problems, func(p registry.Problem) bool { return p.Object == name }) {
				t.Errorf("no Problem names %s (%s): %v", name, values[i], s.Problems)
			}
		}
		if !slices.ContainsFunc(s.Problems, func(p registry.Problem) bool { return p.Object == "site/bad" }) {
			t.Errorf("no Problem names site/bad: %v", s.Problems)
		}
		if !slices.IsSortedFunc(s.Problems, func(a, b registry.Problem) int { return strings.Compare(a.Object, b.Object) }) {
			t.Errorf("the Problems are not sorted: %v", s.Problems)
		}
	}
	check(w.until(e.Settle, "a Problem for each", func(s registry.Snapshot) bool { return len(s.Problems) == len(values)+1 }))
	check(e.watch(t, e.One).next(e.Settle))

	// Whoever mends it is rid of the Problem.
	e.put(t, node("io", "bad0"), long)
	e.commit(t, write(site("bad"), `{}`))
	w.until(e.Settle, "two Problems less", func(s registry.Snapshot) bool {
		return len(s.Problems) == len(values)-1 && len(s.Nodes) == 2 && len(s.Objects) == 3
	})
	if err := e.One.Remove(e.ctx, registry.NodeRef{Service: "io", ID: "bad1"}); err != nil {
		t.Errorf("garbage can't be removed: %v", err)
	}
}

func watchNoLeased(t *testing.T, e *env) {
	w := e.watch(t, e.Two)
	w.next(e.Settle)
	for i := range 3 {
		o := registry.Object{Kind: registry.KindGateway, Name: "edge-1", Value: json.RawMessage(fmt.Sprintf(`{"i":%d}`, i))}
		if err := e.One.Hold(e.ctx, o, long); err != nil {
			t.Fatal(err)
		}
	}
	w.silent(calm, "reports would feed back")
	e.commit(t, write(site("s"), `{}`))
	for _, o := range w.next(e.Settle).Objects {
		if o.Ref() != site("s") {
			t.Errorf("%s is in the Snapshot", o.Ref())
		}
	}
}

func watchStorm(t *testing.T, e *env) {
	e.commit(t, write(upstream("io"), `{}`))
	w := e.watch(t, e.Two)
	w.next(e.Settle)
	const writers, each = 10, 100
	errs := make(chan error, writers)
	for i := range writers {
		go func() {
			for j := range each {
				n := node("io", fmt.Sprintf("n%d-%d", i, j%20))
				n.Weight = j + 1
				if err := e.One.Put(e.ctx, n, long); err != nil {
					errs <- err
					return
				}
			}
			errs <- nil
		}()
	}
	for range writers {
		if err := <-errs; err != nil {
			t.Fatal(err)
		}
	}
	want := e.nodes(t)
	if len(want) != writers*20 {
		t.Fatalf("%d nodes are listed, want %d", len(want), writers*20)
	}
	w.until(e.Settle, "what is listed", func(s registry.Snapshot) bool { return reflect.DeepEqual(s.Nodes, want) })
	if slices.ContainsFunc(want, func(n registry.Node) bool { return n.Weight <= each-20 }) {
		t.Errorf("an old value stands: %+v", want)
	}
}
