package etcd

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"go.etcd.io/etcd/api/v3/mvccpb"

	"sluice/registry"
)

func TestSectionKeepsWhatItGaveOut(t *testing.T) {
	t.Parallel()
	rnd := rand.New(rand.NewPCG(1, 2))
	var s section[int]
	model := map[string]int{}
	var given, copies [][]int
	for step := range 500 {
		for range rnd.IntN(20) {
			key := fmt.Sprintf("k%02d", rnd.IntN(60))
			if rnd.IntN(3) == 0 {
				s.remove(key)
				delete(model, key)
			} else {
				s.set(key, step)
				model[key] = step
			}
		}
		s.flush()
		var keys []string
		for k := range model {
			keys = append(keys, k)
		}
		slices.Sort(keys)
		var want []int
		for _, k := range keys {
			want = append(want, model[k])
		}
		if !slices.Equal(s.items(), want) {
			t.Fatalf("step %d: got %v, want %v", step, s.items(), want)
		}
		given, copies = append(given, s.items()), append(copies, slices.Clone(s.items()))
	}
	for i := range given {
		if !slices.Equal(given[i], copies[i]) {
			t.Fatalf("what step %d gave out was changed later", i)
		}
	}
	before := s.items()
	if s.flush() || &s.items()[0] != &before[0] {
		t.Error("a flush of nothing made a new slice")
	}
}

// BenchmarkSnapshot is one change among 10,000 nodes, and the first list of them.
func BenchmarkSnapshot(b *testing.B) {
	const nodes = 10_000
	k := newKeys("bench")
	kv := func(i, weight int) *mvccpb.KeyValue {
		n := registry.Node{Service: fmt.Sprintf("svc-%d", i%100), ID: fmt.Sprintf("n%d", i), Address: "10.0.0.1", Port: 80, Weight: weight}
		value, err := encode(nodeValue{versioned{version}, 15, n})
		if err != nil {
			b.Fatal(err)
		}
		return &mvccpb.KeyValue{Key: []byte(k.node(n.Service, n.ID)), Value: []byte(value), ModRevision: int64(weight)}
	}
	var list []*mvccpb.KeyValue
	for i := range nodes {
		list = append(list, kv(i, 1))
	}
	fill := func() *state {
		s := newState(k)
		mainFeed(s).take(batch{list: list})
		s.flush()
		return s
	}
	b.Run("list", func(b *testing.B) {
		for b.Loop() {
			if len(fill().snapshot().Nodes) != nodes {
				b.Fatal("nodes are missing")
			}
		}
	})
	b.Run("change", func(b *testing.B) {
		s := fill()
		for i := 0; b.Loop(); i++ {
			s.put(kv(i%nodes, i%1000+1))
			s.flush()
			if len(s.snapshot().Nodes) != nodes {
				b.Fatal("nodes are missing")
			}
		}
	})
}
