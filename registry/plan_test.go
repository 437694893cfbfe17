package registry_test

import (
	"context"
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"time"

	"sluice/registry"
)

func TestSameJSON(t *testing.T) {
	t.Parallel()
	cases := []struct {
		a, b string
		same bool
	}{
		{`{"a":1}`, `{"a":1}`, true},
		{`{"a":1,"b":[2]}`, ` { "b": [2], "a": 1 }`, true},
		{`{"a":"\u003c"}`, `{"a":"<"}`, true},
		{`{"a":12345678901234567890}`, `{"a":12345678901234567891}`, false}, // one and the same float
		{`{"a":[1,2]}`, `{"a":[2,1]}`, false},
		{`{"a":null}`, `{}`, false},
		{`{`, `{}`, false},
		{`{}`, `{`, false},
	}
	for _, tc := range cases {
		if got := registry.SameJSON(json.RawMessage(tc.a), json.RawMessage(tc.b)); got != tc.same {
			t.Errorf("%s and %s: %v", tc.a, tc.b, got)
		}
	}
}

func TestPlanExpired(t *testing.T) {
	t.Parallel()
	for seq, want := range map[registry.Seq]string{
		1: "", registry.MaxHistory: "", registry.MaxHistory + 1: registry.HistoryName(1), registry.MaxHistory + 7: registry.HistoryName(7),
	} {
		if name, ok := (&registry.Plan{Seq: seq}).Expired(); name != want || ok != (want != "") {
			t.Errorf("seq %d: %q, %v; want %q", seq, name, ok, want)
		}
	}
}

// state is a View of fixed objects.
type state []registry.Object

func (s state) Seq() registry.Seq { return 1 }

func (s state) Get(_ context.Context, ref registry.Ref) (registry.Object, error) {
	for _, o := range s {
		if o.Ref() == ref {
			return o, nil
		}
	}
	return registry.Object{}, registry.ErrNotFound
}

func (s state) List(_ context.Context, kind registry.Kind) ([]registry.Object, error) {
	return slices.DeleteFunc(slices.Clone(s), func(o registry.Object) bool { return o.Kind != kind }), nil
}

func TestPlanAfterLeavesTheBaseAlone(t *testing.T) {
	t.Parallel()
	site := func(name, value string, seq registry.Seq) registry.Object {
		return registry.Object{Kind: registry.KindSite, Name: name, Seq: seq, Value: json.RawMessage(value)}
	}
	base := state{site("b", `{}`, 1), site("c", `{}`, 1)}
	have := map[registry.Ref]registry.Object{base[0].Ref(): base[0], base[1].Ref(): base[1]}
	tx := registry.Tx{Ops: []registry.Op{
		{Ref: registry.Ref{Kind: registry.KindSite, Name: "a"}, Value: json.RawMessage(` { "x" : "<" } `)},
		{Ref: base[0].Ref()},
		{Ref: base[1].Ref(), Value: json.RawMessage(`{"y":2}`)},
	}}
	plan, err := registry.NewPlan(tx, 1, have, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	after, err := plan.After(base).List(t.Context(), registry.KindSite)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, o := range after {
		got = append(got, o.Name+string(o.Value))
	}
	if want := []string{`a{"x":"<"}`, `c{"y":2}`}; !slices.Equal(got, want) {
		t.Errorf("after: %q, want %q", got, want)
	}
	if base[0].Name != "b" || string(base[1].Value) != `{}` {
		t.Errorf("the base was changed: %+v", base)
	}
	if entry := string(plan.History.Value); !strings.Contains(entry, `"after":{"x":"<"}`) {
		t.Errorf("the history is not readable: %s", entry)
	}
}
