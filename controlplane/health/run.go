package health

import (
	"container/heap"
	"context"
	"math/rand/v2"
	"sync"
	"syscall"
	"time"
)

const (
	// tick is how long the loop gathers what is due: to wake up for each of 2,000 checks a second costs more than the checks.
	tick = 20 * time.Millisecond
	// pulse is how long the loop sleeps at most while there are targets, so that it notices when the machine stands still.
	pulse = 100 * time.Millisecond
	// againAfter is when a check that told nothing is made again.
	againAfter = time.Second
	logEvery   = time.Minute
)

// maxInFlight leaves most descriptors to others.
func maxInFlight() int {
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return 64
	}
	return int(min(max(limit.Cur/4, 16), 4096))
}

// Run checks the targets until ctx ends, and returns its error when no check runs any more.
func (c *Checker) Run(ctx context.Context) error {
	var checks sync.WaitGroup
	defer checks.Wait()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-timer.C:
		case <-c.wake:
		}
		timer.Reset(c.start(ctx, &checks))
	}
}

// start starts the checks that are due, and returns how long the loop may sleep.
func (c *Checker) start(ctx context.Context, checks *sync.WaitGroup) time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := time.Now()
	if !c.expected.IsZero() {
		c.stalls.add(c.expected, now)
	}
	for len(c.queue) > 0 && c.running < c.inFlight && !c.queue[0].due.After(now) {
		t := heap.Pop(&c.queue).(*target)
		c.running++
		checks.Add(1)
		go func(p prober, version int, deadline time.Time) {
			defer checks.Done()
			o := p.probe(ctx, deadline)
			if ctx.Err() == nil {
				c.finish(t, version, now, o)
			}
		}(t.prober, t.version, now.Add(t.timeout))
	}
	if len(c.targets) == 0 {
		c.expected = time.Time{}
		return time.Hour
	}
	sleep := pulse
	if len(c.queue) > 0 && c.running < c.inFlight {
		sleep = min(max(c.queue[0].due.Sub(now), tick), pulse)
	}
	c.expected = now.Add(sleep)
	return sleep
}

// finish takes the outcome of a check that was started at start.
func (c *Checker) finish(t *target, version int, start time.Time, o outcome) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.running--
	if t.gone {
		return
	}
	now := time.Now()
	if o.timedOut {
		// The node's answer may be there already, and nobody had the time to read it.
		stalled := max(c.stalls.within(start, now), now.Sub(start)-t.timeout)
		if !c.expected.IsZero() && now.Sub(c.expected) > stallMin {
			stalled += now.Sub(c.expected)
		}
		if stalled > t.timeout/4 {
			o.untold, o.reason = true, "this machine stood still for "+stalled.Round(time.Millisecond).String()
		}
	}
	interval := t.interval
	switch {
	case version != t.version:
		interval = 0
	case o.untold:
		interval = againAfter
		c.logAtFault(o.reason, now)
	default:
		before := t.verdict
		t.add(o, now)
		same := t.verdict.sameMeaning(before)
		if !same || t.verdict.Reason != before.Reason {
			c.view = nil
		}
		if !same {
			select {
			case c.changed <- struct{}{}:
			default:
			}
		}
	}
	if t.Urgent {
		interval = min(interval, urgentInterval)
	}
	t.due = start.Add(time.Duration(float64(interval) * (1 - jitter + 2*jitter*rand.Float64())))
	if t.due.Before(now) {
		t.due = now
	}
	c.queue.push(t)
}

func (c *Checker) logAtFault(reason string, now time.Time) {
	if now.Sub(c.atFault) >= logEvery {
		c.atFault = now
		c.log.Warn("checks of nodes tell nothing, and are made again", "reason", reason)
	}
}

// rouse makes the loop look at the queue again.
func (c *Checker) rouse() {
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

// queue is a heap of targets by when they are due.
type queue []*target

func (q queue) Len() int           { return len(q) }
func (q queue) Less(i, j int) bool { return q[i].due.Before(q[j].due) }
func (q queue) Swap(i, j int) {
	q[i], q[j] = q[j], q[i]
	q[i].at, q[j].at = i, j
}

// Push is heap.Interface's.
func (q *queue) Push(x any) {
	t := x.(*target)
	t.at = len(*q)
	*q = append(*q, t)
}

// Pop is heap.Interface's.
func (q *queue) Pop() any {
	last := len(*q) - 1
	t := (*q)[last]
	(*q)[last] = nil
	*q = (*q)[:last]
	t.at = -1
	return t
}

func (q *queue) push(t *target)   { heap.Push(q, t) }
func (q *queue) remove(t *target) { heap.Remove(q, t.at) }
func (q *queue) fix(t *target)    { heap.Fix(q, t.at) }
