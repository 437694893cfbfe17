package etcd

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"sluice/registry"
	"sluice/registry/keyspace"
)

const settle = 15 * time.Second

// tail is a running Watch: the Snapshots it sent, in order.
type tail struct {
	t    *testing.T
	out  chan registry.Snapshot
	last registry.Snapshot
	each func(registry.Snapshot) // looks at every one
}

func watch(t *testing.T, r registry.Watcher, uses func(registry.Object) []string) *tail {
	t.Helper()
	w := &tail{t: t, out: make(chan registry.Snapshot), each: func(registry.Snapshot) {}}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := r.Watch(ctx, uses, w.out); !errors.Is(err, context.Canceled) {
			t.Errorf("Watch ended: %v", err)
		}
	}()
	t.Cleanup(func() {
		cancel()
		<-done
	})
	return w
}

func (w *tail) until(what string, ok func(registry.Snapshot) bool) registry.Snapshot {
	w.t.Helper()
	limit := time.After(settle)
	for {
		select {
		case w.last = <-w.out:
			w.each(w.last)
		case <-limit:
			w.t.Fatalf("not in a Snapshot within %s: %s; the last one has seq %d, %d objects, %d nodes, problems %v",
				settle, what, w.last.Seq, len(w.last.Objects), len(w.last.Nodes), w.last.Problems)
		}
		if ok(w.last) {
			return w.last
		}
	}
}

func (w *tail) silent(d time.Duration) {
	w.t.Helper()
	select {
	case s := <-w.out:
		w.t.Fatalf("there is a Snapshot with seq %d, %d objects, %d nodes, problems %v", s.Seq, len(s.Objects), len(s.Nodes), s.Problems)
	case <-time.After(d):
	}
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	limit := time.After(settle)
	for !ok() {
		select {
		case <-limit:
			t.Fatalf("not within %s: %s", settle, what)
		case <-time.After(10 * time.Millisecond):
		}
	}
}

func commit(t *testing.T, r *Registry, name, format string, args ...any) registry.Seq {
	t.Helper()
	done, err := r.Commit(t.Context(), registry.Tx{Ops: []registry.Op{{
		Ref: registry.Ref{Kind: registry.KindUpstream, Name: name}, Value: fmt.Appendf(nil, format, args...),
	}}})
	if err != nil {
		t.Fatal(err)
	}
	return done.Seq
}

func putNode(t *testing.T, r *Registry, id string) {
	t.Helper()
	if err := r.Put(t.Context(), registry.Node{Service: "io", ID: id, Address: "127.0.0.1", Port: 80}, time.Minute); err != nil {
		t.Fatal(err)
	}
}

func hasSeq(seq registry.Seq) func(registry.Snapshot) bool {
	return func(s registry.Snapshot) bool { return s.Seq >= seq }
}

func server(t *testing.T, cfg EmbeddedConfig) *Embedded {
	t.Helper()
	cfg.Logger = slog.New(slog.DiscardHandler)
	e, err := StartEmbedded(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(e.Close)
	return e
}

func TestWatchSurvivesRestartOfEtcd(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	e := server(t, EmbeddedConfig{Dir: dir})
	r := open(t, e.ClientURL(), "f", impatient)
	for i := range 20 {
		commit(t, r, fmt.Sprintf("u%02d", i), `{}`)
		putNode(t, r, fmt.Sprintf("n%02d", i))
	}
	w := watch(t, r, nil)
	w.each = func(s registry.Snapshot) {
		if len(s.Objects) < 20 || len(s.Nodes) < 20 {
			t.Errorf("a Snapshot is not complete: %d objects, %d nodes", len(s.Objects), len(s.Nodes))
		}
	}
	w.until("all", hasSeq(20))

	e.Close()
	eventually(t, "Health is down", func() bool { return !r.Health().Connected })
	w.silent(300 * time.Millisecond)
	server(t, EmbeddedConfig{Dir: dir})
	eventually(t, "Health is up", func() bool { return r.Health().Connected })
	seq := commit(t, r, "u00", `{"after":true}`)
	w.until("the change after the restart", hasSeq(seq))
	putNode(t, r, "n20")
	w.until("the node after the restart", func(s registry.Snapshot) bool { return len(s.Nodes) == 21 })
}

func TestStartsWithoutEtcd(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	began := time.Now()
	r := open(t, "unix://"+dir+"/client.sock", "f", impatient)
	if took := time.Since(began); took > time.Second {
		t.Errorf("New took %s", took)
	}
	if h := r.Health(); h.Connected || h.Error == "" {
		t.Errorf("Health is %+v, want not connected, and why", h)
	}
	w := watch(t, r, nil)
	w.silent(200 * time.Millisecond)
	limited, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	if _, err := r.List(limited, registry.KindSite, "", 0); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("List without etcd: %v", err)
	}
	server(t, EmbeddedConfig{Dir: dir})
	w.until("the first", func(registry.Snapshot) bool { return true })
	if h := r.Health(); !h.Connected || h.Error != "" {
		t.Errorf("Health is %+v, want connected", h)
	}
}

func TestWatchListsAgainAfterCompaction(t *testing.T) {
	t.Parallel()
	direct := open(t, shared.ClientURL(), newFleet(), impatient)
	p := newProxy(t, shared.ClientURL())
	r := open(t, p.url(), direct.cfg.Fleet, impatient)
	commit(t, direct, "stays", `{}`)
	commit(t, direct, "goes", `{}`)
	putNode(t, direct, "goes")
	w := watch(t, r, nil)
	w.until("the first", hasSeq(2))

	p.cut()
	eventually(t, "Health is down", func() bool { return !r.Health().Connected })
	if err := direct.Remove(t.Context(), registry.NodeRef{Service: "io", ID: "goes"}); err != nil {
		t.Fatal(err)
	}
	putNode(t, direct, "comes")
	if _, err := direct.Commit(t.Context(), registry.Tx{Ops: []registry.Op{{Ref: registry.Ref{Kind: registry.KindUpstream, Name: "goes"}}}}); err != nil {
		t.Fatal(err)
	}
	seq := commit(t, direct, "comes", `{}`)
	// The events of all this are compacted away before the watch can have them.
	direct.rawPut(t, "/elsewhere", "")
	resp, err := direct.client.Get(t.Context(), "/elsewhere")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := direct.client.Compact(t.Context(), resp.Header.Revision, clientv3.WithCompactPhysical()); err != nil {
		t.Fatal(err)
	}
	w.silent(100 * time.Millisecond)
	p.open()
	s := w.until("the state after", hasSeq(seq))
	names := func() (out []string) {
		for _, o := range s.Objects {
			out = append(out, o.Name)
		}
		return out
	}()
	if !slices.Equal(names, []string{"comes", "stays"}) || len(s.Nodes) != 1 || s.Nodes[0].ID != "comes" || len(s.Tombstones) != 1 {
		t.Errorf("after the compaction: objects %q, nodes %+v, tombstones %+v", names, s.Nodes, s.Tombstones)
	}
}

func TestWatchNoticesSilence(t *testing.T) {
	t.Parallel()
	direct := open(t, shared.ClientURL(), newFleet(), impatient)
	p := newProxy(t, shared.ClientURL())
	r := open(t, p.url(), direct.cfg.Fleet, impatient)
	w := watch(t, r, nil)
	w.until("the first", hasSeq(0))
	// Where nothing happens, the signs of life keep the watch.
	before := r.Health()
	w.silent(3 * impatient.silence)
	if h := r.Health(); h != before {
		t.Errorf("Health of a calm registry is %+v, was %+v", h, before)
	}
	p.freeze(true)
	seq := commit(t, direct, "a", `{}`)
	eventually(t, "Health is down though the connection stands", func() bool { return !r.Health().Connected })
	p.cut()
	p.freeze(false)
	p.open()
	w.until("what happened meanwhile", hasSeq(seq))
}

// TestCalmAfterReconnect: a watch that the client resumed in a calm etcd is silent, which is no outage. It has a server of
// its own, where nobody else makes revisions.
func TestCalmAfterReconnect(t *testing.T) {
	t.Parallel()
	p := newProxy(t, server(t, EmbeddedConfig{Dir: t.TempDir()}).ClientURL())
	r := open(t, p.url(), "f", impatient)
	w := watch(t, r, nil)
	w.until("the first", hasSeq(0))
	w.silent(3 * impatient.silence)
	p.cut()
	eventually(t, "Health is down", func() bool { return !r.Health().Connected })
	p.open()
	eventually(t, "Health is up", func() bool { return r.Health().Connected })
	up := r.Health()
	w.silent(4 * impatient.silence)
	if h := r.Health(); h != up {
		t.Errorf("Health is %+v, was %+v", h, up)
	}
}

func TestReconcileMendsWhatAWatchMissed(t *testing.T) {
	t.Parallel()
	quick := impatient
	quick.reconcile = 200 * time.Millisecond
	r := open(t, shared.ClientURL(), newFleet(), quick)
	commit(t, r, "a", `{}`)
	w := watch(t, r, nil)
	w.until("the first", hasSeq(1))
	w.silent(5 * quick.reconcile) // listing again is no change
	seq := commit(t, r, "b", `{}`)
	w.until("a change after that", hasSeq(seq))

	// An event that etcd lost is one that take never saw.
	s := keyspace.NewState(r.keys)
	f := mainFeed(s, r.keys.State)
	list := func() batch {
		resp, err := r.client.Get(t.Context(), r.keys.State, clientv3.WithPrefix())
		if err != nil {
			t.Fatal(err)
		}
		return batch{feed: f, list: resp.Kvs}
	}
	f.take(list())
	s.Flush()
	before := s.Snapshot()
	s.Dirty = false
	f.take(list())
	if s.Flush(); s.Dirty {
		t.Error("an equal list made a Snapshot")
	}
	commit(t, r, "c", `{}`)
	if _, err := r.Commit(t.Context(), registry.Tx{Ops: []registry.Op{{Ref: registry.Ref{Kind: registry.KindUpstream, Name: "a"}}}}); err != nil {
		t.Fatal(err)
	}
	f.take(list())
	s.Flush()
	after := s.Snapshot()
	if len(before.Objects) != 2 || len(after.Objects) != 2 || after.Objects[0].Name != "b" || after.Objects[1].Name != "c" {
		t.Errorf("before: %+v, after: %+v", before.Objects, after.Objects)
	}
}

func TestLeaseLostBetweenBeats(t *testing.T) {
	t.Parallel()
	r := open(t, shared.ClientURL(), newFleet(), impatient)
	putNode(t, r, "n")
	key := r.keys.Node("io", "n")
	lease := func() clientv3.LeaseID {
		t.Helper()
		resp, err := r.client.Get(t.Context(), key)
		if err != nil || len(resp.Kvs) != 1 {
			t.Fatalf("get %s: %v, %v", key, resp, err)
		}
		return clientv3.LeaseID(resp.Kvs[0].Lease)
	}
	first := lease()
	putNode(t, r, "n")
	if second := lease(); second != first {
		t.Errorf("a beat took a new lease: %x, was %x", second, first)
	}
	// Somebody stored the same value without a lease: it would stay for ever.
	resp, err := r.client.Get(t.Context(), key)
	if err != nil {
		t.Fatal(err)
	}
	r.rawPut(t, key, string(resp.Kvs[0].Value))
	putNode(t, r, "n")
	if lease() == 0 {
		t.Error("the beat left a node without a lease")
	}
	if alive, err := r.keepAlive(t.Context(), 12345); alive || err != nil {
		t.Errorf("keep-alive of a lease that is gone: %v, %v", alive, err)
	}
}

func TestDamagedHead(t *testing.T) {
	t.Parallel()
	r := open(t, shared.ClientURL(), newFleet(), impatient)
	commit(t, r, "a", `{}`)
	w := watch(t, r, nil)
	w.until("the first", hasSeq(1))
	r.rawPut(t, r.keys.Head, "garbage")
	s := w.until("a Problem", func(s registry.Snapshot) bool { return len(s.Problems) == 1 })
	if s.Seq != 1 || len(s.Objects) != 1 {
		t.Errorf("what is known did not stand: %+v", s)
	}
	if _, err := r.Commit(t.Context(), registry.Tx{Ops: []registry.Op{{
		Ref: registry.Ref{Kind: registry.KindSite, Name: "b"}, Value: []byte(`{}`),
	}}}); err == nil {
		t.Error("a commit was numbered without a head")
	}
	r.rawPut(t, r.keys.Head, `{"v":1,"seq":1}`)
	w.until("no Problem", func(s registry.Snapshot) bool { return len(s.Problems) == 0 })
	if seq := commit(t, r, "b", `{}`); seq != 2 {
		t.Errorf("the next commit is %d, want 2", seq)
	}
}
