package health

import "time"

// stallMin is how much later than asked for the loop may awake on a machine that is merely busy.
const stallMin = 100 * time.Millisecond

// stalls are the last times at which this process did not get to run: what was not answered then was perhaps only not
// read. Such checks do not count against the nodes.
type stalls struct {
	last [16]struct{ from, to time.Time }
	next int
}

// add notes that the loop wanted to awake at wanted, and did at now.
func (s *stalls) add(wanted, now time.Time) {
	if now.Sub(wanted) > stallMin {
		s.last[s.next%len(s.last)] = struct{ from, to time.Time }{wanted, now}
		s.next++
	}
}

// within returns for how long the process stood still from start to end.
func (s *stalls) within(start, end time.Time) time.Duration {
	var sum time.Duration
	for _, stall := range &s.last {
		from, to := stall.from, stall.to
		if from.Before(start) {
			from = start
		}
		if to.After(end) {
			to = end
		}
		sum += max(to.Sub(from), 0)
	}
	return sum
}
