package nginx

import (
	"cmp"
	"fmt"
	"slices"
	"time"
)

// workers returns the workers of the master and those that a dead one left, oldest first.
func (d *Driver) workers(master process) []worker {
	var found []worker
	if master != (process{}) {
		found = workersOf(master)
	}
	for _, o := range d.state.Orphans {
		if w, ok := readWorker(o.PID); ok && w.start == o.Start {
			w.leaving = true // told so already, or about to be
			found = append(found, w)
		}
	}
	slices.SortFunc(found, func(a, b worker) int {
		return cmp.Or(cmp.Compare(a.start, b.start), cmp.Compare(a.pid, b.pid))
	})
	return found
}

// cluster is how far apart the starts of two workers of one generation may be when nobody has noted the reload: the master
// forks them one after another, and two reloads are at least 100 ms apart.
const cluster = uint64(50 * time.Millisecond / tick)

// notice notes the reloads that are not ours: those of workers that no noted one explains. workers are sorted.
func (s *state) notice(workers []worker) {
	known := len(s.Reloads) // those added here are known by their workers only: every gap begins another
	for i, w := range workers {
		if i > 0 && w.start-workers[i-1].start <= cluster {
			continue // forked together with the one before
		}
		if at, noted := s.find(w); !noted || at >= known || s.Reloads[at].unnoted(w, workers[:i]) {
			s.Reloads = append(s.Reloads, reload{s.last() + 1, w.start})
		}
	}
}

// unnoted says whether w, which seems to be of generation r, is of a later one that nobody noted: others of r are leaving
// and it is not.
func (r reload) unnoted(w worker, older []worker) bool {
	return !w.leaving && slices.ContainsFunc(older, func(o worker) bool { return o.leaving && o.start >= r.Start })
}

// find returns the index of the reload that started w: the newest that is not younger. Both times are of the same clock,
// rounded down to the same ticks.
func (s *state) find(w worker) (int, bool) {
	for i, r := range slices.Backward(s.Reloads) {
		if r.Start <= w.start && r.Start > 0 {
			return i, true
		}
	}
	return 0, false
}

// prune forgets the reloads that have no workers any more, except the newest, and the orphans that are gone.
func (s *state) prune(workers []worker) {
	used := map[int]bool{len(s.Reloads) - 1: true}
	for _, w := range workers {
		if i, ok := s.find(w); ok {
			used[i] = true
		}
	}
	var kept []reload
	for i, r := range s.Reloads {
		if used[i] {
			kept = append(kept, r)
		}
	}
	s.Reloads = kept
	s.Orphans = slices.DeleteFunc(s.Orphans, func(o orphan) bool { return !process{o.PID, o.Start}.alive() })
}

// generations returns the workers by generation, the current one first, not measured yet.
func (d *Driver) generations(workers []worker) []Generation {
	d.state.notice(workers)
	byNumber := map[int]*Generation{}
	for _, w := range workers {
		at, _ := d.state.find(w)
		number := d.state.Reloads[at].Number
		g := byNumber[number]
		if g == nil {
			g = &Generation{Number: number, Since: w.since(), Old: true}
			byNumber[number] = g
		}
		g.Old = g.Old && w.leaving
		g.Workers = append(g.Workers, Worker{PID: w.pid})
	}
	var all []Generation
	for _, g := range byNumber {
		all = append(all, *g)
	}
	slices.SortFunc(all, func(a, b Generation) int { return cmp.Compare(b.Number, a.Number) })
	return all
}

func pids(workers []worker) []int {
	out := make([]int, len(workers))
	for i, w := range workers {
		out[i] = w.pid
	}
	return out
}

// Spacing of reloads: the next one is due at last + 1 s x 2^old generations, within these bounds.
const (
	spacing = time.Second
	// capAdded is for nodes that only join: those that are there can serve a while longer.
	capAdded = time.Minute
	// capLeaving is for nodes that leave, as long as there are few old generations.
	capLeaving = 5 * time.Second
	// From manyOld old generations on, nothing is sooner than pauseMany, and a node that leaves is not later: nginx's own
	// passive checks and retries keep clients away from a node that is gone for that long.
	manyOld   = 4
	pauseMany = 30 * time.Second
)

// Due returns the earliest time at which the next reload should start, and why it has to wait: every reload may leave a
// generation of workers behind, which lives as long as its WebSockets. leaves says that a node must leave the rotation.
// A time that is past means now.
func (d *Driver) Due(leaves bool) (at time.Time, why string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	workers := d.workers(d.master)
	old := 0
	for _, g := range d.generations(workers) {
		if g.Old {
			old++
		}
	}
	if d.master == (process{}) || len(workers) == 0 {
		return time.Time{}, "" // it has to be started
	}
	youngest := workers[len(workers)-1].start
	if n := len(d.state.Reloads); n > 0 {
		youngest = max(youngest, d.state.Reloads[n-1].Start)
	}
	wait := due(old, leaves)
	at = time.Now().Add(wait - time.Duration(ticks()-youngest)*tick)
	return at, fmt.Sprintf("the last reload was %s ago and %d old generations of workers live for their open connections: reloads are %s apart",
		(time.Duration(ticks()-youngest) * tick).Round(time.Second/10), old, wait)
}

func due(old int, leaves bool) time.Duration {
	wait := spacing << min(old, 10) // 2^10 s are beyond any cap
	switch {
	case old >= manyOld && leaves:
		return pauseMany
	case old >= manyOld:
		return max(pauseMany, min(wait, capAdded))
	case leaves:
		return min(wait, capLeaving)
	default:
		return min(wait, capAdded)
	}
}

// alarm says that old generations pile up.
func alarm(generations []Generation) string {
	old, count, bytes := 0, 0, int64(0)
	for _, g := range generations {
		if !g.Old {
			continue
		}
		old++
		for _, w := range g.Workers {
			count += w.Sockets
			bytes += w.Memory
		}
	}
	if old <= manyOld {
		return ""
	}
	return fmt.Sprintf("%d old generations of nginx workers live for %d open sockets and take %d MB: reloads come faster than "+
		"connections end; worker_shutdown_timeout would end them", old, count, bytes>>20)
}
