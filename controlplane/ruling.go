package controlplane

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"sluice/registry"
)

// describe writes the ruling down.
func (j *judgement) describe() {
	r := &j.ruling
	exception := func(n registry.Node, state NodeState, since time.Time, reason string) {
		r.Exceptions = append(r.Exceptions, NodeStatus{Upstream: j.Name, Service: n.Service, ID: n.ID, State: state, Since: since, Reason: reason})
	}
	ignored := 0
	r.Nodes = j.Nodes
	if len(j.Lost) > 0 {
		r.Nodes = make([]registry.Node, 0, len(j.Nodes)+len(j.Lost))
		r.Nodes = append(r.Nodes, j.Nodes...)
		for _, l := range j.Lost {
			r.Nodes = append(r.Nodes, l.Node)
		}
		slices.SortFunc(r.Nodes, func(a, b registry.Node) int { return cmp.Compare(a.ID, b.ID) })
	}
	if len(j.Lost)+len(j.Failing) > 0 {
		for _, n := range r.Nodes {
			if l, ok := j.Lost[n.ID]; ok {
				r.Kept[n.ID] = true
				state := NodeSuspect
				if l.Held {
					state = NodeHeld
					r.Held++
				}
				exception(n, state, l.Since, "its registration ran out")
				continue
			}
			f, ok := j.Failing[n.ID]
			if !ok {
				continue
			}
			v := j.believed(n.ID)
			state := NodeSuspect
			switch {
			case f.Out && v.Stranger:
				state = NodeStranger
			case f.Out && v.Flapping:
				state = NodeFlapping
			case f.Out:
				state = NodeUnhealthy
			case j.ignored:
				state = NodeIgnored
				ignored++
			case f.Held:
				state = NodeHeld
				r.Held++
			}
			r.Down[n.ID] = f.Out
			exception(n, state, f.Since, v.Reason)
		}
	}
	switch {
	case ignored > 0:
		r.Alarm = fmt.Sprintf("the checks of %d of %d nodes fail, and are ignored since most do: look at what they have in common", ignored, j.total)
	case j.strangers:
		r.Alarm = "most nodes do not prove that they are themselves, and are believed all the same: look at the check's identity"
	}
	if r.Held > 0 {
		if r.Alarm != "" {
			r.Alarm += "; "
		}
		r.Alarm += fmt.Sprintf("%d of %d nodes are held, and %d went within %s, of which at most %d may: look at them, or let them go with sluice approve %s",
			r.Held, j.total, len(j.Gone), shortDuration(j.window), j.limit, j.Name)
	}
}

func shortDuration(d time.Duration) string {
	if d%time.Minute == 0 {
		return fmt.Sprintf("%dm", int(d/time.Minute))
	}
	return d.String()
}
