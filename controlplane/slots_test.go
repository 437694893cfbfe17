package controlplane

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/google/go-cmp/cmp"

	"sluice/registry"
)

func slotted(keys ...string) []Slotted {
	var nodes []Slotted
	for _, k := range keys {
		nodes = append(nodes, Slotted{Node: k, Weight: 1})
	}
	return nodes
}

// layout writes a table as "a b -c", with a dash before the absent.
func layout(table []registry.Slot) string {
	s := ""
	for i, slot := range table {
		if i > 0 {
			s += " "
		}
		if slot.Absent > 0 {
			s += "-"
		}
		s += slot.Node
	}
	return s
}

func TestAssign(t *testing.T) {
	t.Parallel()
	steps := []struct {
		name  string
		nodes []Slotted
		want  string
	}{
		{"the first nodes come in order", slotted("a", "b", "c"), "a b c"},
		{"one that leaves keeps its slot", slotted("a", "c"), "a -b c"},
		{"and gets it back", slotted("a", "b", "c"), "a b c"},
		{"two leave, one after the other", slotted("a", "b"), "a b -c"},
		{"the second", slotted("b"), "b"},
		{"more come", slotted("b", "d", "e", "f"), "b d e f"},
		{"e leaves first", slotted("b", "d", "f"), "b d -e f"},
		{"then b", slotted("d", "f"), "-b d -e f"},
		{"a new one takes the slot left longest ago", slotted("d", "f", "g"), "-b d g f"},
		{"the next one the other, and the one after is appended", slotted("d", "f", "g", "h", "i"), "h d g f i"},
		{"nobody is left: the table waits", nil, "-h -d -g -f -i"},
		{"fewer than half are alive: the rest is dropped", slotted("g", "h"), "h g"},
	}
	var table []registry.Slot
	for _, step := range steps {
		before := layout(table)
		next := Assign(table, step.nodes)
		if got := layout(next); got != step.want {
			t.Fatalf("%s: got %q, want %q", step.name, got, step.want)
		}
		if layout(table) != before {
			t.Fatalf("%s: the old table was changed", step.name)
		}
		if again := Assign(next, step.nodes); !cmp.Equal(again, next) {
			t.Fatalf("%s: not stable: %q became %q", step.name, layout(next), layout(again))
		}
		table = next
	}
}

func TestAssignWeights(t *testing.T) {
	t.Parallel()
	table := Assign(nil, []Slotted{{"a", 2}, {"b", 3}})
	table = Assign(table, []Slotted{{"a", 5}})
	want := []registry.Slot{{Node: "a", Weight: 5}, {Node: "b", Weight: 3, Absent: 1}}
	if diff := cmp.Diff(want, table); diff != "" {
		t.Errorf("an absent node's slot keeps its weight, a present one follows it (-want +got):\n%s", diff)
	}
}

// A node that is there before and after a change keeps its position, unless the table is compacted.
func TestAssignKeepsPositions(t *testing.T) {
	t.Parallel()
	rng := rand.New(rand.NewPCG(1, 2))
	var table []registry.Slot
	for range 2000 {
		var nodes []Slotted
		here := map[string]bool{}
		for i := range 12 {
			if rng.IntN(3) > 0 {
				node := fmt.Sprint("n", i)
				nodes = append(nodes, Slotted{Node: node, Weight: 1})
				here[node] = true
			}
		}
		next := Assign(table, nodes)
		alive := 0
		seen := map[string]bool{}
		for i, s := range next {
			if seen[s.Node] {
				t.Fatalf("%s has two slots: %s", s.Node, layout(next))
			}
			seen[s.Node] = true
			if s.Absent == 0 {
				alive++
				if len(next) >= len(table) && i < len(table) && here[table[i].Node] && table[i].Node != s.Node {
					t.Fatalf("slot %d of %s was taken by %s", i, table[i].Node, s.Node)
				}
			}
		}
		if alive != len(nodes) {
			t.Fatalf("%d slots are alive for %d nodes", alive, len(nodes))
		}
		if alive > 0 && 2*alive < len(next) {
			t.Fatalf("%d of %d alive: not compacted", alive, len(next))
		}
		table = next
	}
}
