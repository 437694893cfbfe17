package controlplane

import (
	"cmp"
	"slices"
	"sync"
)

// Applies counts what became of configurations since the start.
type Applies struct {
	Counts []ApplyCount // sorted
	Took   Histogram    // of those that succeeded and did something
}

// ApplyCount is one kind of outcome.
type ApplyCount struct {
	How    How    // empty when it failed
	Result string // "live" or "failed"
	Count  uint64
}

// Histogram is a cumulative histogram of seconds.
type Histogram struct {
	Count   uint64
	Sum     float64
	Buckets map[float64]uint64 // by upper bound
}

// applyBounds are seconds: a reload takes 0.1 to 0.2, and gives up after 15.
func applyBounds() []float64 { return []float64{.05, .1, .2, .5, 1, 2, 5, 15} }

// applyCounter makes Applies.
type applyCounter struct {
	mu     sync.Mutex
	counts map[ApplyCount]uint64 // by How and Result
	took   Histogram
}

func (c *applyCounter) note(applied Applied, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	key := ApplyCount{How: applied.How, Result: "live"}
	if err != nil {
		key = ApplyCount{Result: "failed"}
	}
	if c.counts == nil {
		c.counts = map[ApplyCount]uint64{}
	}
	c.counts[key]++
	if err != nil || applied.How == Nothing {
		return
	}
	seconds := applied.Took.Seconds()
	c.took.Count++
	c.took.Sum += seconds
	if c.took.Buckets == nil {
		c.took.Buckets = map[float64]uint64{}
	}
	for _, bound := range applyBounds() {
		if seconds <= bound {
			c.took.Buckets[bound]++
		}
	}
}

func (c *applyCounter) applies() Applies {
	c.mu.Lock()
	defer c.mu.Unlock()
	a := Applies{Took: Histogram{Count: c.took.Count, Sum: c.took.Sum, Buckets: map[float64]uint64{}}}
	for _, bound := range applyBounds() {
		a.Took.Buckets[bound] = c.took.Buckets[bound]
	}
	for key, n := range c.counts {
		key.Count = n
		a.Counts = append(a.Counts, key)
	}
	slices.SortFunc(a.Counts, func(x, y ApplyCount) int {
		return cmp.Or(cmp.Compare(x.Result, y.Result), cmp.Compare(x.How, y.How))
	})
	return a
}
