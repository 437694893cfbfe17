package controlplane

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"sluice/registry"
)

// told leaves out what differs from run to run.
func told(events []Event) []string {
	var out []string
	for _, e := range events {
		line := string(e.Type) + " " + e.What
		for _, o := range e.Objects {
			line += " " + o
		}
		out = append(out, line)
	}
	return out
}

func TestSnapshotEvents(t *testing.T) {
	t.Parallel()
	node := func(id, address string) registry.Node {
		return registry.Node{Service: "io", ID: id, Address: address, Port: 1, Incarnation: "1"}
	}
	object := func(name string, seq registry.Seq) registry.Object {
		return registry.Object{Kind: registry.KindSite, Name: name, Seq: seq}
	}
	before := registry.Snapshot{
		Seq: 3, Objects: []registry.Object{object("a", 1), object("b", 2), object("c", 3)},
		Nodes: []registry.Node{node("gone", "10.0.0.1"), node("left", "10.0.0.2"), node("moved", "10.0.0.3"), node("same", "10.0.0.4")},
	}
	next := registry.Snapshot{
		Seq: 4, Objects: []registry.Object{object("a", 1), object("b", 4), object("d", 4)},
		Nodes:      []registry.Node{node("moved", "10.0.0.5"), node("new", "10.0.0.6"), node("same", "10.0.0.4")},
		Tombstones: []registry.Tombstone{{NodeRef: registry.NodeRef{Service: "io", ID: "left", Incarnation: "1"}}},
	}
	want := []string{"change  site/b site/c site/d", "node expired node/io/gone", "node left node/io/left", "node changed node/io/moved", "node joined node/io/new"}
	if diff := cmp.Diff(want, told(snapshotEvents(before, next))); diff != "" {
		t.Error(diff)
	}
	if got := snapshotEvents(next, next); got != nil {
		t.Errorf("nothing changed: %v", told(got))
	}
}

func TestStatusEvents(t *testing.T) {
	t.Parallel()
	at := time.Unix(1, 0)
	n := func(id string, state NodeState) NodeStatus {
		return NodeStatus{Upstream: "u", Service: "io", ID: id, State: state}
	}
	before := Status{
		Alarms:     []registry.Problem{{Object: "upstream/a", Message: "1 of 3"}, {Object: "upstream/b", Message: "all"}},
		Exceptions: []NodeStatus{n("n1", NodeSuspect), n("n2", NodeUnhealthy), n("n3", NodeDraining)},
	}
	for name, tt := range map[string]struct {
		change func(*Status)
		want   []string
	}{
		"nothing": {func(*Status) {}, nil},
		"applied": {func(s *Status) { s.Applied = &LastApplied{At: at, How: Reload} }, []string{"apply live"}},
		"failed":  {func(s *Status) { s.Failure = &Failure{At: at} }, []string{"apply failed"}},
		"waits":   {func(s *Status) { s.Wait = &Wait{Since: at} }, []string{"apply waiting"}},
		"numbers": {func(s *Status) {
			s.Alarms = []registry.Problem{{Object: "upstream/a", Message: "2 of 3"}, {Object: "upstream/b", Message: "all"}}
		}, nil},
		"alarms": {func(s *Status) { s.Alarms = []registry.Problem{{Object: "upstream/b"}, {Object: "upstream/c"}} }, []string{"alarm cleared upstream/a", "alarm raised upstream/c"}},
		"a node": {func(s *Status) {
			s.Exceptions = []NodeStatus{n("n1", NodeHeld), n("n3", NodeDraining), n("n4", NodeStranger)}
		}, []string{"node held node/io/n1 upstream/u", "node up node/io/n2 upstream/u", "node stranger node/io/n4 upstream/u"}},
		"all well": {func(s *Status) { s.Exceptions, s.Alarms = nil, nil }, []string{"alarm cleared upstream/a", "alarm cleared upstream/b", "node up node/io/n1 upstream/u", "node up node/io/n2 upstream/u", "node up node/io/n3 upstream/u"}},
	} {
		next := before
		tt.change(&next)
		if diff := cmp.Diff(tt.want, told(statusEvents(before, next))); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
	}
}
