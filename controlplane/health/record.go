package health

import (
	"fmt"
	"time"
)

// Flap damping. A node that fell so often within the window has to answer for the hold before it is healthy again; the
// hold doubles with each further fall. It is bounded, so a node that is well is back in service after five minutes.
const (
	flapFalls   = 3
	flapWindow  = 10 * time.Minute
	flapHold    = 30 * time.Second
	flapHoldMax = 5 * time.Minute
)

// outcome is what one probe found. The zero value is a check that passed.
type outcome struct {
	failed   bool
	untold   bool // it told nothing about the node: this machine was at fault
	timedOut bool
	refused  bool
	stranger bool
	proven   bool
	reason   string
}

func failure(format string, args ...any) outcome {
	return outcome{failed: true, reason: fmt.Sprintf(format, args...)}
}

// record counts the outcomes of one target.
type record struct {
	verdict    Verdict
	good, bad  int         // in a row
	goodSince  time.Time   // when the first of the good ones ended
	falls      []time.Time // when it became unhealthy, within flapWindow; oldest first
	fall, rise int
}

// add takes the outcome of a check that ended at now.
func (r *record) add(o outcome, now time.Time) {
	if o.untold {
		return
	}
	v := &r.verdict
	v.Last, v.Refused, v.Stranger, v.Proven, v.Reason = now, o.refused, o.stranger, o.proven, o.reason
	for len(r.falls) > 0 && now.Sub(r.falls[0]) > flapWindow {
		r.falls = r.falls[1:]
	}
	if o.failed {
		r.good = 0
		r.bad++
		if v.State != Unhealthy && r.bad >= r.fall {
			if v.State == Healthy {
				r.falls = append(r.falls, now)
			}
			v.State, v.Since = Unhealthy, now
		}
	} else {
		r.bad = 0
		if r.good == 0 {
			r.goodSince = now
		}
		r.good++
		hold := r.hold()
		switch {
		case v.State == Healthy:
		case v.State == Unknown, r.good >= r.rise && now.Sub(r.goodSince) >= hold:
			v.State, v.Since = Healthy, now
		case hold > 0:
			v.Reason = fmt.Sprintf("it answers, but fell %d times within %s: it has to answer for %s", len(r.falls), flapWindow, hold)
		default:
			v.Reason = fmt.Sprintf("it answers again: %d of %d checks in a row", r.good, r.rise)
		}
	}
	v.Flapping = len(r.falls) >= flapFalls
}

// hold is how long the node has to answer before it is healthy again.
func (r *record) hold() time.Duration {
	over := len(r.falls) - flapFalls
	if over < 0 {
		return 0
	}
	return min(flapHold<<min(over, 10), flapHoldMax)
}
