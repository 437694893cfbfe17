package keyspace

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"sluice/registry"
)

func TestSectionKeepsWhatItGaveOut(t *testing.T) {
	t.Parallel()
	rnd := rand.New(rand.NewPCG(1, 2))
	var s Section[int]
	model := map[string]int{}
	var given, copies [][]int
	for step := range 500 {
		for range rnd.IntN(20) {
			key := fmt.Sprintf("k%02d", rnd.IntN(60))
			if rnd.IntN(3) == 0 {
				s.Remove(key)
				delete(model, key)
			} else {
				s.Set(key, step)
				model[key] = step
			}
		}
		s.Flush()
		var keys []string
		for k := range model {
			keys = append(keys, k)
		}
		slices.Sort(keys)
		var want []int
		for _, k := range keys {
			want = append(want, model[k])
		}
		if !slices.Equal(s.Items(), want) {
			t.Fatalf("step %d: got %v, want %v", step, s.Items(), want)
		}
		given, copies = append(given, s.Items()), append(copies, slices.Clone(s.Items()))
	}
	for i := range given {
		if !slices.Equal(given[i], copies[i]) {
			t.Fatalf("what step %d gave out was changed later", i)
		}
	}
	before := s.Items()
	if s.Flush() || &s.Items()[0] != &before[0] {
		t.Error("a flush of nothing made a new slice")
	}
}

// BenchmarkSnapshot is one change among 10,000 nodes, and the first list of them.
func BenchmarkSnapshot(b *testing.B) {
	const nodes = 10_000
	k := New("/bench/")
	node := func(i, weight int) Entry {
		n := registry.Node{Service: fmt.Sprintf("svc-%d", i%100), ID: fmt.Sprintf("n%d", i), Address: "10.0.0.1", Port: 80, Weight: weight}
		value, err := EncodeNode(n, 15)
		if err != nil {
			b.Fatal(err)
		}
		return Entry{Key: k.Node(n.Service, n.ID), Value: []byte(value), Version: uint64(weight)}
	}
	fill := func() *State {
		s := NewState(k)
		for i := range nodes {
			s.Put(node(i, 1))
		}
		s.Flush()
		return s
	}
	b.Run("list", func(b *testing.B) {
		for b.Loop() {
			if len(fill().Snapshot().Nodes) != nodes {
				b.Fatal("nodes are missing")
			}
		}
	})
	b.Run("change", func(b *testing.B) {
		s := fill()
		for i := 0; b.Loop(); i++ {
			s.Put(node(i%nodes, i%1000+1))
			s.Flush()
			if len(s.Snapshot().Nodes) != nodes {
				b.Fatal("nodes are missing")
			}
		}
	})
}
