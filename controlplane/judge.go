package controlplane

import (
	"cmp"
	"maps"
	"slices"
	"time"

	"sluice/controlplane/health"
	"sluice/controlplane/spec"
	"sluice/registry"
)

// Wards is what the guard remembers of all upstreams, by name. Neither it nor a Ward is changed once it is made.
type Wards map[string]Ward

// Evidence is what the upstreams of a Snapshot are judged by, besides it.
type Evidence struct {
	// Verdict is what the checks of a node come to; ok is false when nobody checks it.
	Verdict func(health.Key) (v health.Verdict, ok bool)
	Emptied time.Time // when the registry was found empty; zero when it was not
}

// Judged is a Snapshot's nodes as the guard sees them.
type Judged struct {
	Wards   Wards
	Rulings map[string]Ruling // by upstream
	Next    time.Time         // when to judge again, whatever happens; zero never
}

// Judge decides for all upstreams which nodes are in the rotation. It is pure.
func Judge(w Wards, s registry.Snapshot, upstreams map[string]spec.Upstream, e Evidence, now time.Time) Judged {
	out := Judged{Wards: make(Wards, len(upstreams)), Rulings: make(map[string]Ruling, len(upstreams))}
	c := newCourt(s)
	for _, name := range slices.Sorted(maps.Keys(upstreams)) {
		scene := c.scene(name, upstreams[name], w[name])
		scene.Emptied = e.Emptied
		scene.Verdict = func(id string) (health.Verdict, bool) { return e.Verdict(health.Key{Upstream: name, ID: id}) }
		ward, ruling := judge(w[name], scene, now)
		out.Wards[name], out.Rulings[name] = ward, ruling
		if !ruling.Next.IsZero() && (out.Next.IsZero() || ruling.Next.Before(out.Next)) {
			out.Next = ruling.Next
		}
	}
	return out
}

// court is what judging the upstreams of one Snapshot shares.
type court struct {
	snapshot  registry.Snapshot
	idle      map[string]map[string]bool // by service and id: drained or disabled by an override
	approvals map[string]*Approval
	services  map[string]string // by address: the service of a node there; made when it is needed
}

func newCourt(s registry.Snapshot) *court {
	c := &court{snapshot: s, idle: map[string]map[string]bool{}, approvals: map[string]*Approval{}}
	for _, o := range s.Objects {
		switch o.Kind {
		case registry.KindOverride:
			if v, faults := read[spec.Override](o); len(faults) == 0 && (v.State == spec.Draining || v.State == spec.Disabled) {
				c.setIdle(o.Name)
			}
		case registry.KindApproval:
			if v, faults := read[spec.Approval](o); len(faults) == 0 {
				c.approvals[o.Name] = &Approval{v, o.Seq}
			}
		}
	}
	return c
}

func (c *court) setIdle(name string) {
	service, id, err := spec.SplitNode(name)
	if err != nil {
		return
	}
	if c.idle[service] == nil {
		c.idle[service] = map[string]bool{}
	}
	c.idle[service][id] = true
}

// serviceNodes returns the nodes of a service, sorted by id.
func serviceNodes(nodes []registry.Node, service string) []registry.Node {
	first, _ := slices.BinarySearchFunc(nodes, service, func(n registry.Node, s string) int { return cmp.Compare(n.Service, s) })
	end := first
	for end < len(nodes) && nodes[end].Service == service {
		end++
	}
	return nodes[first:end]
}

func (c *court) scene(name string, u spec.Upstream, w Ward) Scene {
	service := UpstreamService(u)
	all := serviceNodes(c.snapshot.Nodes, service)
	s := Scene{Name: name, Spec: u, Nodes: all, Left: map[string]bool{}, Idle: c.idle[service], Approval: c.approvals[name], Elsewhere: c.elsewhere(service)}
	if len(u.Tags)+len(u.Meta) > 0 {
		s.Nodes = nil
		for _, n := range all {
			if Selects(u, n) {
				s.Nodes = append(s.Nodes, n)
			} else {
				s.Left[n.ID] = true
			}
		}
	}
	first, _ := slices.BinarySearchFunc(c.snapshot.Tombstones, service, func(t registry.Tombstone, s string) int { return cmp.Compare(t.Service, s) })
	for _, t := range c.snapshot.Tombstones[first:] {
		if t.Service != service {
			break
		}
		if _, back := findNode(all, t.ID); back {
			continue
		}
		known, ok := findNode(w.Known, t.ID)
		if !ok {
			known = w.Lost[t.ID].Node
		}
		// A tombstone of an earlier life says nothing of the one that was lost.
		if t.Incarnation == "" || t.Incarnation == known.Incarnation {
			s.Left[t.ID] = true
		}
	}
	return s
}

// elsewhere returns whether a node of another service is registered at an address.
func (c *court) elsewhere(service string) func(string) bool {
	return func(address string) bool {
		if c.services == nil {
			c.services = make(map[string]string, len(c.snapshot.Nodes))
			for _, n := range c.snapshot.Nodes {
				c.services[n.HostPort()] = n.Service
			}
		}
		other, ok := c.services[address]
		return ok && other != service
	}
}
