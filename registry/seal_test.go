package registry_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"sluice/registry"
	"sluice/registry/etcd"
)

var server *etcd.Embedded

func TestMain(m *testing.M) {
	os.Exit(run(m))
}

func run(m *testing.M) int {
	dir, err := os.MkdirTemp("", "sluice-seal-test-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	server, err = etcd.StartEmbedded(etcd.EmbeddedConfig{Dir: dir, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer server.Close()
	return m.Run()
}

var fleets atomic.Int64

func plainRegistry(t *testing.T) registry.Registry {
	t.Helper()
	r, err := etcd.New(t.Context(), etcd.Config{
		Server: server, Fleet: fmt.Sprintf("fleet-%d", fleets.Add(1)), Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = r.Close() })
	return r
}

func seal(t *testing.T, r registry.Registry, b byte) registry.Registry {
	t.Helper()
	sealed, err := registry.Seal(r, bytes.Repeat([]byte{b}, registry.SealKeySize))
	if err != nil {
		t.Fatal(err)
	}
	return sealed
}

func key(name string) registry.Ref { return registry.Ref{Kind: registry.KindSecret, Name: name} }

func commit(t *testing.T, r registry.Store, ref registry.Ref, value string) registry.Committed {
	t.Helper()
	done, err := r.Commit(t.Context(), registry.Tx{Ops: []registry.Op{{Ref: ref, Value: json.RawMessage(value)}}})
	if err != nil {
		t.Fatal(err)
	}
	return done
}

// snapshot returns the first Snapshot with at least the seq.
func snapshot(t *testing.T, r registry.Watcher, seq registry.Seq) registry.Snapshot {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	out := make(chan registry.Snapshot)
	done := make(chan error, 1)
	go func() { done <- r.Watch(ctx, nil, out) }()
	for {
		select {
		case s := <-out:
			if s.Seq >= seq {
				cancel()
				<-done
				return s
			}
		case err := <-done:
			t.Fatal(err)
		}
	}
}

const pem = `{"pem":"PRIVATE KEY"}`

func TestSealAtRest(t *testing.T) {
	t.Parallel()
	plain := plainRegistry(t)
	sealed := seal(t, plain, 1)
	commit(t, sealed, key("k"), pem)
	site := registry.Ref{Kind: registry.KindSite, Name: "s"}
	commit(t, sealed, site, `{"a":1}`)

	stored, err := plain.Get(t.Context(), key("k"))
	if err != nil || strings.Contains(string(stored.Value), "PRIVATE") {
		t.Errorf("at rest: %s, %v", stored.Value, err)
	}
	if o, err := sealed.Get(t.Context(), key("k")); err != nil || string(o.Value) != pem || o.Seq != 1 {
		t.Errorf("Get: %+v, %v", o, err)
	}
	if p, err := sealed.List(t.Context(), registry.KindSecret, "", 0); err != nil || len(p.Objects) != 1 || string(p.Objects[0].Value) != pem {
		t.Errorf("List: %+v, %v", p, err)
	}
	s := snapshot(t, sealed, 2)
	if len(s.Objects) != 2 || string(s.Objects[0].Value) != pem || string(s.Objects[1].Value) != `{"a":1}` || len(s.Problems) != 0 {
		t.Errorf("Snapshot: %+v", s)
	}
	if o, err := plain.Get(t.Context(), site); err != nil || string(o.Value) != `{"a":1}` {
		t.Errorf("a site at rest: %s, %v", o.Value, err)
	}
	// What is sealed stays with its name: a copy under another one does not open.
	commit(t, plain, key("copy"), string(stored.Value))
	if _, err := sealed.Get(t.Context(), key("copy")); err == nil {
		t.Error("a secret opens under another name")
	}
}

func TestSealUnchanged(t *testing.T) {
	t.Parallel()
	sealed := seal(t, plainRegistry(t), 1)
	commit(t, sealed, key("k"), pem)
	if done := commit(t, sealed, key("k"), ` { "pem" : "PRIVATE KEY" } `); !done.Unchanged || done.Seq != 1 {
		t.Errorf("an equal secret: %+v", done)
	}
	if done := commit(t, sealed, key("k"), `{"pem":"OTHER"}`); done.Unchanged || done.Seq != 2 {
		t.Errorf("another secret: %+v", done)
	}
	zero := registry.Seq(0)
	_, err := sealed.Commit(t.Context(), registry.Tx{Ops: []registry.Op{{Ref: key("k"), Value: json.RawMessage(pem), IfSeq: &zero}}})
	var conflict *registry.ConflictError
	if !errors.As(err, &conflict) {
		t.Errorf("IfSeq is not heeded: %v", err)
	}
	done, err := sealed.Commit(t.Context(), registry.Tx{Ops: []registry.Op{{Ref: key("k")}}})
	if err != nil || done.Seq != 3 {
		t.Errorf("delete: %+v, %v", done, err)
	}
}

func TestSealOfWhatWasInTheClear(t *testing.T) {
	t.Parallel()
	plain := plainRegistry(t)
	sealed := seal(t, plain, 1)
	commit(t, plain, key("k"), pem)
	if o, err := sealed.Get(t.Context(), key("k")); err != nil || string(o.Value) != pem {
		t.Errorf("Get: %+v, %v", o, err)
	}
	if s := snapshot(t, sealed, 1); len(s.Objects) != 1 || string(s.Objects[0].Value) != pem || len(s.Problems) != 0 {
		t.Errorf("Snapshot: %+v", s)
	}
	// Storing it again seals it, once.
	for i, unchanged := range []bool{false, true} {
		if done := commit(t, sealed, key("k"), pem); done.Unchanged != unchanged {
			t.Errorf("write %d: %+v", i, done)
		}
	}
	if o, err := plain.Get(t.Context(), key("k")); err != nil || strings.Contains(string(o.Value), "PRIVATE") {
		t.Errorf("at rest: %s, %v", o.Value, err)
	}
}

func TestSealThatDoesNotOpen(t *testing.T) {
	t.Parallel()
	plain := plainRegistry(t)
	commit(t, seal(t, plain, 2), key("other"), pem)
	ours := seal(t, plain, 1)
	commit(t, ours, key("damaged"), pem)
	stored, err := plain.Get(t.Context(), key("damaged"))
	if err != nil {
		t.Fatal(err)
	}
	var fields map[string]any
	if err := json.Unmarshal(stored.Value, &fields); err != nil {
		t.Fatal(err)
	}
	fields["data"] = "AAAA"
	damaged, err := json.Marshal(fields)
	if err != nil {
		t.Fatal(err)
	}
	commit(t, plain, key("damaged"), string(damaged))
	commit(t, plain, key("later"), `{"sealed":"xyz"}`)
	seq := commit(t, ours, key("good"), pem).Seq

	s := snapshot(t, ours, seq)
	if len(s.Objects) != 1 || s.Objects[0].Name != "good" {
		t.Errorf("objects: %+v", s.Objects)
	}
	var about []string
	for _, p := range s.Problems {
		about = append(about, p.Object)
		if strings.Contains(p.Message, "PRIVATE") {
			t.Errorf("the Problem tells the secret: %s", p)
		}
	}
	if want := []string{"secret/damaged", "secret/later", "secret/other"}; !slices.Equal(about, want) {
		t.Errorf("Problems are about %q, want %q", about, want)
	}
	if p, err := ours.List(t.Context(), registry.KindSecret, "", 0); err != nil || len(p.Objects) != 1 {
		t.Errorf("List: %+v, %v", p, err)
	}
	if _, err := ours.Get(t.Context(), key("other")); err == nil || !strings.Contains(err.Error(), "key file") {
		t.Errorf("Get says %v", err)
	}
	// It can be written over.
	commit(t, ours, key("other"), pem)
	if o, err := ours.Get(t.Context(), key("other")); err != nil || string(o.Value) != pem {
		t.Errorf("after storing it again: %+v, %v", o, err)
	}
}

func TestSealChecksInTheClear(t *testing.T) {
	t.Parallel()
	sealed := seal(t, plainRegistry(t), 1)
	commit(t, sealed, key("stays"), pem)
	tx := registry.Tx{
		Ops: []registry.Op{{Ref: key("new"), Value: json.RawMessage(`{"pem":"NEW"}`)}},
		Check: func(ctx context.Context, after registry.View) error {
			if o, err := after.Get(ctx, key("new")); err != nil || string(o.Value) != `{"pem":"NEW"}` {
				t.Errorf("Check gets %s, %v", o.Value, err)
			}
			all, err := after.List(ctx, registry.KindSecret)
			if err != nil || len(all) != 2 || string(all[0].Value) != `{"pem":"NEW"}` || string(all[1].Value) != pem {
				t.Errorf("Check lists %+v, %v", all, err)
			}
			return nil
		},
	}
	if _, err := sealed.Commit(t.Context(), tx); err != nil {
		t.Fatal(err)
	}
	if string(tx.Ops[0].Value) != `{"pem":"NEW"}` {
		t.Error("the caller's Tx was changed")
	}
}

func TestSealRefusesAShortKey(t *testing.T) {
	t.Parallel()
	for _, size := range []int{0, 16, 31, 33} {
		if _, err := registry.Seal(nil, make([]byte, size)); err == nil {
			t.Errorf("a key of %d bytes was taken", size)
		}
	}
}
