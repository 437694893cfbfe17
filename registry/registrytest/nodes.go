package registrytest

import (
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"sluice/registry"
)

func nodeTests() []test {
	return []test{
		{"put registers all that a node says", nodePut},
		{"put is idempotent and causes no Snapshot", nodeRefresh},
		{"put by any handle keeps a node alive", nodeAnyHandle},
		{"put with another incarnation replaces", nodeIncarnation},
		{"put refuses what is wrong", nodeRefused},
		{"expiry removes without a tombstone", nodeExpires},
		{"put with another ttl takes it over", nodeNewTTL},
		{"remove leaves a tombstone", nodeRemove},
		{"remove that is late spares the successor", nodeLateRemove},
		{"a node that comes back loses its tombstone", nodeComesBack},
		{"list is by service and sorted", nodeList},
		{"list goes page by page", nodePages},
		{"get returns one", nodeGet},
		{"many handles put the same node at once", nodeRace},
	}
}

func nodePut(t *testing.T, e *env) {
	e.commit(t, write(upstream("io"), `{}`))
	full := registry.Node{
		Service: "io", ID: "n 1/ü", Address: "fd00::1", Port: 6001, Weight: 3, MaxConns: 100, Zone: "a",
		Tags: []string{"blue", "a,b"}, Meta: map[string]string{"k": "<v>\n", "l": ""}, Incarnation: "i1",
	}
	unix := registry.Node{Service: "io", ID: "u", Address: "unix:/run/n.sock"}
	e.put(t, full, long)
	e.put(t, unix, long)
	want := []registry.Node{full, unix}
	if got := e.nodes(t); !reflect.DeepEqual(got, want) {
		t.Errorf("listed: %+v, want %+v", got, want)
	}
	if got := e.watch(t, e.Two).next(e.Settle).Nodes; !reflect.DeepEqual(got, want) {
		t.Errorf("in the Snapshot: %+v, want %+v", got, want)
	}
}

func nodeRefresh(t *testing.T, e *env) {
	e.commit(t, write(upstream("io"), `{}`))
	n := node("io", "n1")
	n.Meta = map[string]string{"a": "1", "b": "2", "c": "3"}
	e.put(t, n, long)
	w := e.watch(t, e.Two)
	w.next(e.Settle)
	for range 5 {
		e.put(t, n, long)
	}
	w.silent(calm, "nothing changed")
}

func nodeAnyHandle(t *testing.T, e *env) {
	e.commit(t, write(upstream("io"), `{}`))
	n, ttl := node("io", "n1"), e.One.MinTTL()
	e.put(t, n, ttl)
	w := e.watch(t, e.One)
	w.next(e.Settle)
	// Past the time by which it would have expired, it is still there: not gone and back, which would show.
	until := time.Now().Add(ttl + e.ExpirySlack)
	for i := 0; time.Now().Before(until); i++ {
		if err := []registry.Registry{e.Two, e.One}[i%2].Put(e.ctx, n, ttl); err != nil {
			t.Fatal(err)
		}
		w.silent(ttl/4, "the node beats")
	}
}

func nodeIncarnation(t *testing.T, e *env) {
	e.commit(t, write(upstream("io"), `{}`))
	first, second := node("io", "n1"), node("io", "n1")
	first.Incarnation, second.Incarnation = "one", "two"
	second.Port = 6002
	e.put(t, first, long)
	w := e.watch(t, e.Two)
	w.until(e.Settle, "the first", hasNode(first.Ref()))
	e.put(t, second, long)
	s := w.until(e.Settle, "the second", hasNode(second.Ref()))
	if len(s.Nodes) != 1 || s.Nodes[0].Port != 6002 || len(s.Tombstones) != 0 {
		t.Errorf("after the replacement: %+v", s)
	}
}

func nodeRefused(t *testing.T, e *env) {
	for _, n := range []registry.Node{
		{},
		{Service: "io", ID: "n", Address: "example.com", Port: 80},
		{Service: "io", ID: "n", Address: "127.0.0.1"},
		{Service: "I O", ID: "n", Address: "127.0.0.1", Port: 80},
		{Service: "io", ID: "n", Address: "127.0.0.1", Port: 80, Tags: []string{""}},
		{Service: registry.EndpointsService("svc"), ID: "n", Address: "127.0.0.1", Port: 80},
	} {
		if err := e.One.Put(e.ctx, n, long); err == nil {
			t.Errorf("%+v was taken", n)
		}
	}
	if nodes := e.nodes(t); len(nodes) != 0 {
		t.Errorf("%+v are listed", nodes)
	}
}

func nodeExpires(t *testing.T, e *env) {
	e.commit(t, write(upstream("io"), `{}`))
	dies, lives := node("io", "dies"), node("io", "lives")
	ttl := e.One.MinTTL()
	e.put(t, dies, 0) // raised to MinTTL
	e.put(t, lives, long)
	put := time.Now()
	w := e.watch(t, e.Two)
	w.until(e.Settle, "both", hasNode(dies.Ref()))
	s := w.until(ttl+e.ExpirySlack, "the node gone", lacksNode(dies.Ref()))
	if lived := time.Since(put); lived < ttl-100*time.Millisecond {
		t.Errorf("it lived only %s of %s", lived, ttl)
	}
	if hasTombstone(s, dies.Ref()) || len(s.Nodes) != 1 {
		t.Errorf("an expiry is not a removal: %+v", s)
	}
	if err := e.One.Remove(e.ctx, dies.Ref()); !errors.Is(err, registry.ErrNotFound) {
		t.Errorf("remove of an expired node: %v, want ErrNotFound", err)
	}
	// The next beat of a node whose lease was lost registers it again.
	e.put(t, dies, long)
	w.until(e.Settle, "it is back", hasNode(dies.Ref()))
}

func nodeNewTTL(t *testing.T, e *env) {
	e.commit(t, write(upstream("io"), `{}`))
	n := node("io", "n1")
	e.put(t, n, long)
	e.put(t, n, e.One.MinTTL())
	w := e.watch(t, e.Two)
	w.until(e.Settle, "the node", hasNode(n.Ref()))
	w.until(e.One.MinTTL()+e.ExpirySlack, "the node gone after the shorter ttl", lacksNode(n.Ref()))
}

func nodeRemove(t *testing.T, e *env) {
	e.commit(t, write(upstream("io"), `{}`))
	n := node("io", "n1")
	n.Incarnation = "one"
	e.put(t, n, long)
	w := e.watch(t, e.Two)
	w.until(e.Settle, "the node", hasNode(n.Ref()))
	if err := e.Two.Remove(e.ctx, registry.NodeRef{Service: "io", ID: "n1"}); err != nil {
		t.Fatal(err)
	}
	s := w.until(e.Settle, "the node gone", lacksNode(n.Ref()))
	if len(s.Tombstones) != 1 || s.Tombstones[0].NodeRef != n.Ref() || time.Since(s.Tombstones[0].At) > time.Minute {
		t.Errorf("when the node is gone, its tombstone is there: %+v", s.Tombstones)
	}
	for _, ref := range []registry.NodeRef{n.Ref(), {Service: "io", ID: "n1"}, {Service: "io", ID: "never"}} {
		if err := e.One.Remove(e.ctx, ref); !errors.Is(err, registry.ErrNotFound) {
			t.Errorf("remove of %+v, which is not there: %v, want ErrNotFound", ref, err)
		}
	}
}

func nodeLateRemove(t *testing.T, e *env) {
	first, second := node("io", "n1"), node("io", "n1")
	first.Incarnation, second.Incarnation = "one", "two"
	e.put(t, first, long)
	e.put(t, second, long)
	if err := e.Two.Remove(e.ctx, first.Ref()); !errors.Is(err, registry.ErrNotFound) {
		t.Errorf("late removal: %v, want ErrNotFound", err)
	}
	if nodes := e.nodes(t); len(nodes) != 1 || nodes[0].Incarnation != "two" {
		t.Errorf("the successor is gone: %+v", nodes)
	}
	if err := e.Two.Remove(e.ctx, second.Ref()); err != nil {
		t.Errorf("removal of the successor: %v", err)
	}
}

func nodeComesBack(t *testing.T, e *env) {
	e.commit(t, write(upstream("io"), `{}`))
	n := node("io", "n1")
	e.put(t, n, long)
	if err := e.One.Remove(e.ctx, n.Ref()); err != nil {
		t.Fatal(err)
	}
	w := e.watch(t, e.Two)
	if s := w.next(e.Settle); !hasTombstone(s, n.Ref()) || len(s.Nodes) != 0 {
		t.Fatalf("after the removal: %+v", s)
	}
	e.put(t, n, long)
	w.until(e.Settle, "the node, and no tombstone", func(s registry.Snapshot) bool {
		return hasNode(n.Ref())(s) && !hasTombstone(s, n.Ref())
	})
}

func nodeList(t *testing.T, e *env) {
	for _, n := range []registry.Node{node("io-2", "a"), node("io", "z"), node("io", "b"), node("i", "x")} {
		e.put(t, n, long)
	}
	e.PutRawNode(t, "io", "garbage", "?")
	for service, want := range map[string][]string{
		"":     {"i/x", "io-2/a", "io/b", "io/z"},
		"io":   {"io/b", "io/z"},
		"i":    {"i/x"},
		"none": nil,
	} {
		page, err := e.Two.ListNodes(e.ctx, service, "", 0)
		if got := nodeNames(page); err != nil || !slices.Equal(got, want) {
			t.Errorf("service %q: %q, %v; want %q", service, got, err, want)
		}
	}
}

func nodeNames(page registry.NodePage) []string {
	var names []string
	for _, n := range page.Nodes {
		names = append(names, n.Ref().String())
	}
	return names
}

func nodePages(t *testing.T, e *env) {
	all := []string{"i/x", "io-2/a", "io-2/b", "io.3/a", "io/a b", "io/b", "io/b/c", "io0/a"}
	for _, name := range all {
		service, id, _ := strings.Cut(name, "/")
		e.put(t, node(service, id), long)
	}
	for service, want := range map[string][]string{"": all, "io": all[4:7], "io-2": all[1:3], "none": nil} {
		for limit := 1; limit <= len(want)+1; limit++ {
			var got []string
			pages := 0
			for from := ""; ; {
				page, err := e.Two.ListNodes(e.ctx, service, from, limit)
				if err != nil || len(page.Nodes) > limit {
					t.Fatalf("service %q, limit %d, from %q: %+v, %v", service, limit, from, page, err)
				}
				got = append(got, nodeNames(page)...)
				pages++
				if from = page.Next; from == "" {
					break
				}
			}
			if !slices.Equal(got, want) || pages > 1 && pages != (len(want)+limit-1)/limit {
				t.Errorf("service %q, limit %d: %q in %d pages, want %q", service, limit, got, pages, want)
			}
		}
	}
	for from, want := range map[string]string{"io": "io-2/a", "io/": "io/a b", "io/az": "io/b", "j": ""} {
		page, err := e.Two.ListNodes(e.ctx, "", from, 1)
		if err != nil || strings.Join(nodeNames(page), " ") != want {
			t.Errorf("from %q: %+v, %v; want %q", from, page, err, want)
		}
	}
	if page, err := e.Two.ListNodes(e.ctx, "io", "io0/a", 1); err != nil || len(page.Nodes) != 0 {
		t.Errorf("from behind the service: %+v, %v", page, err)
	}
}

func nodeGet(t *testing.T, e *env) {
	n := node("io", "a/b")
	n.Incarnation = "one"
	e.put(t, n, long)
	e.put(t, node("io", "a"), long)
	e.PutRawNode(t, "io", "garbage", "?")
	for _, ref := range []registry.NodeRef{n.Ref(), {Service: "io", ID: "a/b"}, {Service: "io", ID: "a/b", Incarnation: "other"}} {
		if got, err := e.Two.GetNode(e.ctx, ref); err != nil || !reflect.DeepEqual(got, n) {
			t.Errorf("%+v: %+v, %v", ref, got, err)
		}
	}
	for _, ref := range []registry.NodeRef{{Service: "io", ID: "b"}, {Service: "i", ID: "a"}, {Service: "io", ID: "garbage"}} {
		if got, err := e.Two.GetNode(e.ctx, ref); !errors.Is(err, registry.ErrNotFound) {
			t.Errorf("%+v: %+v, %v; want ErrNotFound", ref, got, err)
		}
	}
	if err := e.One.Remove(e.ctx, n.Ref()); err != nil {
		t.Fatal(err)
	}
	if got, err := e.Two.GetNode(e.ctx, n.Ref()); !errors.Is(err, registry.ErrNotFound) {
		t.Errorf("after its removal: %+v, %v", got, err)
	}
}

func nodeRace(t *testing.T, e *env) {
	const writers = 8
	errs := make(chan error, writers)
	for i := range writers {
		r := []registry.Registry{e.One, e.Two}[i%2]
		go func() {
			for j := range 10 {
				n := node("io", "n1")
				n.Meta = map[string]string{"by": fmt.Sprintf("%d.%d", i%2, j/5)}
				if err := r.Put(e.ctx, n, long); err != nil {
					errs <- err
					return
				}
			}
			errs <- nil
		}()
	}
	for range writers {
		if err := <-errs; err != nil {
			t.Error(err)
		}
	}
	if nodes := e.nodes(t); len(nodes) != 1 {
		t.Errorf("%+v are listed, want one", nodes)
	}
}
