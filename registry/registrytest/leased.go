package registrytest

import (
	"encoding/json"
	"errors"
	"reflect"
	"testing"
	"time"

	"sluice/registry"
)

func slotTests() []test {
	return []test{
		{"are written by compare-and-set", slotsCAS},
		{"are won by one of two writers", slotsRace},
	}
}

func slotsCAS(t *testing.T, e *env) {
	e.commit(t, write(upstream("io"), `{}`))
	w := e.watch(t, e.Two)
	w.next(e.Settle)
	table := registry.SlotTable{Upstream: "io", Slots: []registry.Slot{{Node: "0123456789", Weight: 1}, {Node: "abcdef0123", Weight: 2, Absent: 7}}}
	if err := e.One.PutSlots(e.ctx, table); err != nil {
		t.Fatal(err)
	}
	s := w.until(e.Settle, "the table", func(s registry.Snapshot) bool { return len(s.Slots) == 1 })
	stored := s.Slots[0]
	if stored.Version == 0 || stored.Upstream != "io" || !reflect.DeepEqual(stored.Slots, table.Slots) {
		t.Fatalf("stored: %+v", stored)
	}
	if s.Seq != 1 {
		t.Errorf("slots moved the seq to %d", s.Seq)
	}
	var conflict *registry.ConflictError
	if err := e.Two.PutSlots(e.ctx, table); !errors.As(err, &conflict) {
		t.Errorf("a second first write: %v, want a ConflictError", err)
	}
	stored.Slots = stored.Slots[:1:1]
	if err := e.Two.PutSlots(e.ctx, stored); err != nil {
		t.Fatal(err)
	}
	if err := e.One.PutSlots(e.ctx, stored); !errors.As(err, &conflict) {
		t.Errorf("a write of an old version: %v, want a ConflictError", err)
	}
	if tables, err := e.One.ListSlots(e.ctx); err != nil || len(tables) != 1 || tables[0].Upstream != "io" ||
		tables[0].Version == stored.Version || !reflect.DeepEqual(tables[0].Slots, stored.Slots) {
		t.Errorf("listed: %+v, %v", tables, err)
	}
	s = w.until(e.Settle, "the new table", func(s registry.Snapshot) bool { return len(s.Slots) == 1 && len(s.Slots[0].Slots) == 1 })
	if s.Slots[0].Version == stored.Version {
		t.Error("the version did not change")
	}
}

func slotsRace(t *testing.T, e *env) {
	errs := make(chan error, 2)
	for i, r := range []registry.Registry{e.One, e.Two} {
		go func() {
			errs <- r.PutSlots(e.ctx, registry.SlotTable{Upstream: "io", Slots: []registry.Slot{{Node: "0123456789", Weight: i + 1}}})
		}()
	}
	first, second := <-errs, <-errs
	var conflict *registry.ConflictError
	if (first == nil) == (second == nil) || !errors.As(errors.Join(first, second), &conflict) {
		t.Errorf("got %v and %v, want one ConflictError", first, second)
	}
}

func holdTests() []test {
	return []test{
		{"keeps, refreshes and changes", holdKeeps},
		{"expires", holdExpires},
		{"refuses the desired state", holdRefuses},
	}
}

func report(value string) registry.Object {
	return registry.Object{Kind: registry.KindGateway, Name: "edge-1", Value: json.RawMessage(value)}
}

func holdKeeps(t *testing.T, e *env) {
	for _, value := range []string{`{"a":1}`, `{"a":1}`, `{"a":2}`} {
		if err := e.One.Hold(e.ctx, report(value), long); err != nil {
			t.Fatal(err)
		}
		if o := e.get(t, report("").Ref()); !registry.SameJSON(o.Value, json.RawMessage(value)) || o.Seq != 0 {
			t.Errorf("got %+v, want %s", o, value)
		}
	}
	if got := e.list(t, registry.KindGateway); len(got) != 1 || got[0].Name != "edge-1" {
		t.Errorf("listed: %+v", got)
	}
	if page, err := e.Two.List(e.ctx, registry.KindSite, "", 0); err != nil || page.Seq != 0 {
		t.Errorf("it moved the seq to %d, %v", page.Seq, err)
	}
}

func holdExpires(t *testing.T, e *env) {
	ttl := e.One.MinTTL()
	if err := e.One.Hold(e.ctx, report(`{}`), ttl); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	e.eventually(t, ttl+e.ExpirySlack, "the report gone", func() bool { return len(e.list(t, registry.KindGateway)) == 0 })
	if lived := time.Since(began); lived < ttl-100*time.Millisecond {
		t.Errorf("it lived only %s of %s", lived, ttl)
	}
}

func holdRefuses(t *testing.T, e *env) {
	for _, o := range []registry.Object{
		{Kind: registry.KindSite, Name: "a", Value: json.RawMessage(`{}`)},
		{Kind: registry.KindHistory, Name: registry.HistoryName(1), Value: json.RawMessage(`{}`)},
		{Kind: registry.KindGateway, Name: "", Value: json.RawMessage(`{}`)},
		{Kind: registry.KindGateway, Name: "a", Value: json.RawMessage(`nonsense`)},
	} {
		if err := e.One.Hold(e.ctx, o, long); err == nil {
			t.Errorf("%s was taken", o.Ref())
		}
	}
}
