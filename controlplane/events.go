package controlplane

import (
	"cmp"
	"fmt"
	"slices"
	"sync"
	"time"

	"sluice/registry"
)

// EventType is what an Event tells of.
type EventType string

// The types of events.
const (
	EventChange   EventType = "change"   // the desired state is another
	EventNode     EventType = "node"     // a node came, changed, went, or stands otherwise than before
	EventApply    EventType = "apply"    // what became of a configuration at this gateway
	EventAlarm    EventType = "alarm"    // somebody should look at something, or need not any more
	EventRegistry EventType = "registry" // the registry is away, or back
	EventGap      EventType = "gap"      // events are missing here: read the state anew
)

// Event is something that happened, as this gateway saw it.
type Event struct {
	ID   string    `json:"id"` // <start of the instance, in Unix milliseconds>-<number>
	At   time.Time `json:"at"`
	Type EventType `json:"type"`
	// What says what happened: a node "joined", "changed", "left" (on purpose), "expired", or has a NodeState; a configuration is
	// "live", "failed" or "waiting"; an alarm is "raised" or "cleared"; the registry is "away" or "back".
	What     string       `json:"what,omitempty"`
	Seq      registry.Seq `json:"seq,omitempty"`
	Objects  []string     `json:"objects,omitempty"` // of a change: "site/chat"; of a node: "node/io/n1"
	Revision string       `json:"revision,omitempty"`
	How      How          `json:"how,omitempty"`
	Message  string       `json:"message,omitempty"`
}

// maxEvents are kept: enough for a reader who was away for a moment, or for a storm of nodes.
const maxEvents = 4096

// Events keeps the newest events for whoever reads them. It never makes the one who adds wait.
type Events struct {
	mu     sync.Mutex
	start  int64
	first  uint64 // number of ring[0]
	ring   []Event
	change chan struct{} // closed, and replaced, when an event comes
}

// NewEvents returns an empty Events.
func NewEvents() *Events {
	return &Events{start: time.Now().UnixMilli(), first: 1, change: make(chan struct{})}
}

// Add numbers an event and keeps it.
func (e *Events) Add(events ...Event) {
	if len(events) == 0 {
		return
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	now := time.Now().UTC()
	for _, ev := range events {
		ev.ID, ev.At = e.id(e.first+uint64(len(e.ring))), now
		e.ring = append(e.ring, ev)
	}
	if extra := len(e.ring) - maxEvents; extra > 0 {
		e.ring = e.ring[extra:] // append moves it when its room is used up
		e.first += uint64(extra)
	}
	close(e.change)
	e.change = make(chan struct{})
}

func (e *Events) id(number uint64) string { return fmt.Sprintf("%d-%d", e.start, number) }

// Since returns the events after the one with this id, and a channel that is closed when there are more. With an empty id
// it returns those to come. An id that is of another start, or too old, is answered with a gap first.
func (e *Events) Since(id string) (events []Event, last string, more <-chan struct{}) {
	e.mu.Lock()
	defer e.mu.Unlock()
	end := e.first + uint64(len(e.ring))
	last = e.id(end - 1)
	if id == "" {
		return nil, last, e.change
	}
	var start int64
	var number uint64
	_, err := fmt.Sscanf(id, "%d-%d", &start, &number)
	switch {
	case err != nil || start != e.start || number >= end:
		number = e.first - 1
		events = append(events, Event{ID: e.id(number), At: time.Now().UTC(), Type: EventGap, Message: "this instance started since, or is another one"})
	case number+1 < e.first:
		number = e.first - 1
		events = append(events, Event{ID: e.id(number), At: time.Now().UTC(), Type: EventGap, Message: "older events are forgotten"})
	}
	return append(events, e.ring[number+1-e.first:]...), last, e.change
}

// snapshotEvents are what next tells beyond before. Without a before there is nothing to compare with.
func snapshotEvents(before, next registry.Snapshot) []Event {
	var events []Event
	if next.Seq != before.Seq {
		events = append(events, Event{Type: EventChange, Seq: next.Seq, Objects: changedObjects(before.Objects, next.Objects)})
	}
	buried := map[registry.NodeRef]bool{}
	for _, t := range next.Tombstones {
		buried[t.NodeRef] = true
	}
	add := func(what string, n registry.Node) {
		events = append(events, Event{Type: EventNode, What: what, Objects: []string{nodeObject(n.Service, n.ID)}, Message: n.HostPort()})
	}
	merge(before.Nodes, next.Nodes, func(a, b *registry.Node) int {
		if a.Service != b.Service {
			return cmp.Compare(a.Service, b.Service)
		}
		return cmp.Compare(a.ID, b.ID)
	}, func(was, is *registry.Node) {
		switch {
		case was == nil:
			add("joined", *is)
		case is == nil && buried[was.Ref()]:
			add("left", *was)
		case is == nil:
			add("expired", *was)
		case was.Address != is.Address || was.Port != is.Port || was.Incarnation != is.Incarnation || was.Weight != is.Weight:
			add("changed", *is)
		}
	})
	return events
}

func nodeObject(service, id string) string { return "node/" + service + "/" + id }

func changedObjects(before, next []registry.Object) []string {
	var names []string
	merge(before, next, func(a, b *registry.Object) int { return compareRefs(a.Ref(), b.Ref()) }, func(was, is *registry.Object) {
		switch {
		case cmp.Or(was, is).Kind == registry.KindRollout: // it tells of a change, and is none
		case was == nil:
			names = append(names, is.Ref().String())
		case is == nil || was.Seq != is.Seq:
			names = append(names, was.Ref().String())
		}
	})
	return names
}

// merge walks two lists that are sorted by compare side by side, and calls each with what stands at a place; nil is missing.
func merge[T any](before, next []T, compare func(a, b *T) int, each func(was, is *T)) {
	for len(before) > 0 || len(next) > 0 {
		var order int
		switch {
		case len(before) == 0:
			order = 1
		case len(next) == 0:
			order = -1
		default:
			order = compare(&before[0], &next[0])
		}
		switch {
		case order < 0:
			each(&before[0], nil)
			before = before[1:]
		case order > 0:
			each(nil, &next[0])
			next = next[1:]
		default:
			each(&before[0], &next[0])
			before, next = before[1:], next[1:]
		}
	}
}

// statusEvents are what a status tells beyond the one before.
func statusEvents(before, next Status) []Event {
	var events []Event
	switch {
	case next.Applied != nil && (before.Applied == nil || *before.Applied != *next.Applied):
		events = append(events, Event{
			Type: EventApply, What: "live", Seq: next.SeqLive, Revision: next.RevisionLive, How: next.Applied.How,
			Message: fmt.Sprintf("%d nodes, after %.0f ms", next.Nodes, next.Applied.Milliseconds),
		})
	case next.Failure != nil && (before.Failure == nil || before.Failure.At != next.Failure.At):
		events = append(events, Event{Type: EventApply, What: "failed", Seq: next.SeqWanted, Revision: next.RevisionWanted, Message: next.Failure.Message})
	case next.Wait != nil && (before.Wait == nil || before.Wait.Since != next.Wait.Since):
		events = append(events, Event{Type: EventApply, What: "waiting", Seq: next.SeqWanted, Revision: next.RevisionWanted, Message: next.Wait.What + ": " + next.Wait.Why})
	}
	alarm := func(what string, p registry.Problem) {
		events = append(events, Event{Type: EventAlarm, What: what, Objects: []string{p.Object}, Message: p.Message})
	}
	// An alarm whose words change, as its numbers do, is the same alarm.
	merge(firstByObject(before.Alarms), firstByObject(next.Alarms), func(a, b *registry.Problem) int {
		return cmp.Compare(a.Object, b.Object)
	}, func(was, is *registry.Problem) {
		switch {
		case was == nil:
			alarm("raised", *is)
		case is == nil:
			alarm("cleared", *was)
		}
	})
	merge(sortedExceptions(before), sortedExceptions(next), func(a, b *NodeStatus) int { return compareExceptions(*a, *b) }, func(was, is *NodeStatus) {
		switch {
		case is == nil:
			events = append(events, nodeEvent(*was, NodeUp))
		case was == nil || was.State != is.State:
			events = append(events, nodeEvent(*is, is.State))
		}
	})
	return events
}

func firstByObject(alarms []registry.Problem) []registry.Problem {
	sorted := slices.SortedFunc(slices.Values(alarms), compareProblems)
	return slices.CompactFunc(sorted, func(a, b registry.Problem) bool { return a.Object == b.Object })
}

func compareExceptions(a, b NodeStatus) int {
	return cmp.Or(cmp.Compare(a.Upstream, b.Upstream), cmp.Compare(a.Service, b.Service), cmp.Compare(a.ID, b.ID))
}

func sortedExceptions(s Status) []NodeStatus {
	return slices.SortedFunc(slices.Values(s.Exceptions), compareExceptions)
}

func nodeEvent(n NodeStatus, state NodeState) Event {
	e := Event{Type: EventNode, What: string(state), Objects: []string{nodeObject(n.Service, n.ID), "upstream/" + n.Upstream}}
	if state != NodeUp {
		e.Message = n.Reason
	}
	return e
}
