package etcd

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"sluice/registry"
)

func seal(t *testing.T, r registry.Registry, b byte) registry.Registry {
	t.Helper()
	sealed, err := registry.Seal(r, bytes.Repeat([]byte{b}, registry.SealKeySize))
	if err != nil {
		t.Fatal(err)
	}
	return sealed
}

func secret(name string) registry.Ref { return registry.Ref{Kind: registry.KindSecret, Name: name} }

func store(t *testing.T, r registry.Store, ref registry.Ref, value string) registry.Committed {
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
				if err := <-done; !errors.Is(err, context.Canceled) {
					t.Errorf("Watch ended with %v", err)
				}
				return s
			}
		case err := <-done:
			t.Fatal(err)
		}
	}
}

const privateKey = `{"pem":"PRIVATE KEY"}`

func TestSealAtRest(t *testing.T) {
	t.Parallel()
	plain := open(t, shared.ClientURL(), newFleet(), impatient)
	sealed := seal(t, plain, 1)
	store(t, sealed, secret("k"), privateKey)
	site := registry.Ref{Kind: registry.KindSite, Name: "s"}
	store(t, sealed, site, `{"a":1}`)

	stored, err := plain.Get(t.Context(), secret("k"))
	if err != nil || strings.Contains(string(stored.Value), "PRIVATE") {
		t.Errorf("at rest: %s, %v", stored.Value, err)
	}
	if o, err := sealed.Get(t.Context(), secret("k")); err != nil || string(o.Value) != privateKey || o.Seq != 1 {
		t.Errorf("Get: %+v, %v", o, err)
	}
	if p, err := sealed.List(t.Context(), registry.KindSecret, "", 0); err != nil || len(p.Objects) != 1 || string(p.Objects[0].Value) != privateKey {
		t.Errorf("List: %+v, %v", p, err)
	}
	s := snapshot(t, sealed, 2)
	if len(s.Objects) != 2 || string(s.Objects[0].Value) != privateKey || string(s.Objects[1].Value) != `{"a":1}` || len(s.Problems) != 0 {
		t.Errorf("Snapshot: %+v", s)
	}
	if o, err := plain.Get(t.Context(), site); err != nil || string(o.Value) != `{"a":1}` {
		t.Errorf("a site at rest: %s, %v", o.Value, err)
	}
	// What is sealed stays with its name: a copy under another one does not open.
	store(t, plain, secret("copy"), string(stored.Value))
	if _, err := sealed.Get(t.Context(), secret("copy")); err == nil {
		t.Error("a secret opens under another name")
	}
}

func TestSealUnchanged(t *testing.T) {
	t.Parallel()
	sealed := seal(t, open(t, shared.ClientURL(), newFleet(), impatient), 1)
	store(t, sealed, secret("k"), privateKey)
	if done := store(t, sealed, secret("k"), ` { "pem" : "PRIVATE KEY" } `); !done.Unchanged || done.Seq != 1 {
		t.Errorf("an equal secret: %+v", done)
	}
	if done := store(t, sealed, secret("k"), `{"pem":"OTHER"}`); done.Unchanged || done.Seq != 2 {
		t.Errorf("another secret: %+v", done)
	}
	zero := registry.Seq(0)
	_, err := sealed.Commit(t.Context(), registry.Tx{Ops: []registry.Op{{Ref: secret("k"), Value: json.RawMessage(privateKey), IfSeq: &zero}}})
	var conflict *registry.ConflictError
	if !errors.As(err, &conflict) {
		t.Errorf("IfSeq is not heeded: %v", err)
	}
	done, err := sealed.Commit(t.Context(), registry.Tx{Ops: []registry.Op{{Ref: secret("k")}}})
	if err != nil || done.Seq != 3 {
		t.Errorf("delete: %+v, %v", done, err)
	}
}

func TestSealOfWhatWasInTheClear(t *testing.T) {
	t.Parallel()
	plain := open(t, shared.ClientURL(), newFleet(), impatient)
	sealed := seal(t, plain, 1)
	store(t, plain, secret("k"), privateKey)
	if o, err := sealed.Get(t.Context(), secret("k")); err != nil || string(o.Value) != privateKey {
		t.Errorf("Get: %+v, %v", o, err)
	}
	if s := snapshot(t, sealed, 1); len(s.Objects) != 1 || string(s.Objects[0].Value) != privateKey || len(s.Problems) != 0 {
		t.Errorf("Snapshot: %+v", s)
	}
	// Storing it again seals it, once.
	for i, unchanged := range []bool{false, true} {
		if done := store(t, sealed, secret("k"), privateKey); done.Unchanged != unchanged {
			t.Errorf("write %d: %+v", i, done)
		}
	}
	if o, err := plain.Get(t.Context(), secret("k")); err != nil || strings.Contains(string(o.Value), "PRIVATE") {
		t.Errorf("at rest: %s, %v", o.Value, err)
	}
}

func TestSealThatDoesNotOpen(t *testing.T) {
	t.Parallel()
	plain := open(t, shared.ClientURL(), newFleet(), impatient)
	store(t, seal(t, plain, 2), secret("other"), privateKey)
	ours := seal(t, plain, 1)
	store(t, ours, secret("damaged"), privateKey)
	stored, err := plain.Get(t.Context(), secret("damaged"))
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
	store(t, plain, secret("damaged"), string(damaged))
	store(t, plain, secret("later"), `{"sealed":"xyz"}`)
	seq := store(t, ours, secret("good"), privateKey).Seq

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
	if _, err := ours.Get(t.Context(), secret("other")); err == nil || !strings.Contains(err.Error(), "key file") {
		t.Errorf("Get says %v", err)
	}
	// It can be written over.
	store(t, ours, secret("other"), privateKey)
	if o, err := ours.Get(t.Context(), secret("other")); err != nil || string(o.Value) != privateKey {
		t.Errorf("after storing it again: %+v, %v", o, err)
	}
}

func TestSealChecksInTheClear(t *testing.T) {
	t.Parallel()
	sealed := seal(t, open(t, shared.ClientURL(), newFleet(), impatient), 1)
	store(t, sealed, secret("stays"), privateKey)
	tx := registry.Tx{
		Ops: []registry.Op{{Ref: secret("new"), Value: json.RawMessage(`{"pem":"NEW"}`)}},
		Check: func(ctx context.Context, after registry.View) error {
			if o, err := after.Get(ctx, secret("new")); err != nil || string(o.Value) != `{"pem":"NEW"}` {
				t.Errorf("Check gets %s, %v", o.Value, err)
			}
			all, err := after.List(ctx, registry.KindSecret)
			if err != nil || len(all) != 2 || string(all[0].Value) != `{"pem":"NEW"}` || string(all[1].Value) != privateKey {
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
