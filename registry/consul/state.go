package consul

import (
	"strings"
	"time"

	"github.com/hashicorp/consul/api"

	"sluice/registry"
	"sluice/registry/keyspace"
)

// state is what a Watch knows. One goroutine owns it.
//
// Tombstones are of two origins. Those in Consul's keys were left by Remove; they hide the node that they name, since
// another agent may still have it for a while. Those that are only known here are of nodes that somebody took out of
// Consul's catalog while they were alive, or put into maintenance: these were meant as well.
type state struct {
	*keyspace.State
	keys     keyspace.Keys
	versions map[string]uint64 // the ModifyIndex of each key that is known
	services map[string]*nodes
	seen     map[string]registry.Tombstone // those that are only known here, by sort key
	buried   bool                          // tombstones changed since the last flush
}

// nodes are those of a service.
type nodes struct {
	alive   map[string]registry.Node // by id
	resting map[string]bool
	shown   map[string]registry.Node // those of alive that no tombstone hides
	bad     map[string]bool          // which have a Problem
	grace   map[string]time.Time     // until when those of sluice's are alive that could not beat: Consul or their agent was away
	where   map[string]lodging       // of alive
}

// lodging is where a node of alive is.
type lodging struct {
	where string        // the Consul node whose agent keeps it
	ttl   time.Duration // of one that was registered with sluice, else zero
}

func newState(k keyspace.Keys) *state {
	return &state{
		State: keyspace.NewState(k), keys: k, versions: make(map[string]uint64), services: make(map[string]*nodes),
		seen: make(map[string]registry.Tombstone),
	}
}

// takeKeys takes a list of all keys in. What did not change costs nothing.
func (s *state) takeKeys(pairs []*api.KVPair) {
	versions := make(map[string]uint64, len(pairs))
	for _, p := range pairs {
		if strings.HasPrefix(p.Key, s.keys.Nodes) {
			continue // nodes are services here
		}
		versions[p.Key] = p.ModifyIndex
		if s.versions[p.Key] != p.ModifyIndex {
			s.Put(keyspace.Entry{Key: p.Key, Value: p.Value, Version: p.ModifyIndex, Created: p.CreateIndex})
			s.buried = s.buried || strings.HasPrefix(p.Key, s.keys.Tombstones)
		}
	}
	for key := range s.versions {
		if _, ok := versions[key]; !ok {
			s.Remove(key)
			s.buried = s.buried || strings.HasPrefix(key, s.keys.Tombstones)
		}
	}
	s.versions = versions
}

func sortKey(service, id string) string { return service + "\x00" + id }

// takeService takes an answer about a service in.
func (s *state) takeService(service string, n news) {
	was := s.services[service]
	if was == nil {
		was = &nodes{}
	}
	is := &nodes{
		alive: make(map[string]registry.Node), resting: make(map[string]bool), shown: was.shown, bad: make(map[string]bool),
		grace: make(map[string]time.Time), where: make(map[string]lodging),
	}
	present := make(map[string]bool, len(n.instances))
	for _, i := range n.instances {
		id := i.node.ID
		present[id] = true
		switch {
		case i.err != nil:
			is.bad[id] = true
			s.SetProblem("node "+sortKey(service, id), &registry.Problem{
				Object: "node/" + service + "/" + id, Message: "service " + i.serviceID + " on " + i.where + ": " + i.err.Error(),
			})
		case i.condition == alive:
			is.alive[id], is.where[id] = i.node, lodging{i.where, i.ttl}
			s.unsee(service, id)
		case i.condition == resting:
			is.resting[id] = true
			s.see(i.node)
		default:
			// An outage of Consul expires nobody: who was alive before it has its whole ttl to beat again.
			until := n.gap.Add(i.ttl)
			if i.adrift {
				until = was.graceOf(id, i.ttl)
			}
			if known, ok := was.alive[id]; ok && i.ours && known.Incarnation == i.node.Incarnation && time.Now().Before(until) {
				is.alive[id], is.where[id], is.grace[id] = known, lodging{i.where, i.ttl}, until
			}
		}
	}
	for id := range was.bad {
		if !is.bad[id] {
			s.SetProblem("node "+sortKey(service, id), nil)
		}
	}
	for id, node := range was.alive {
		if present[id] {
			continue
		}
		at := was.where[id]
		until := was.graceOf(id, at.ttl)
		switch {
		case n.filtered:
			is.alive[id], is.where[id] = node, at
		case n.left[at.where]:
			// Nobody took it away. It has its ttl to beat with another agent.
			if time.Now().Before(until) {
				is.alive[id], is.where[id], is.grace[id] = node, at, until
			}
		case n.whole:
			s.see(node)
		}
	}
	s.services[service] = is
	s.show(service)
}

// graceOf returns until when a node that cannot beat with its agent any more has time to beat with another.
func (n *nodes) graceOf(id string, ttl time.Duration) time.Time {
	if until, ok := n.grace[id]; ok {
		return until
	}
	return time.Now().Add(ttl)
}

// endGrace takes out who did not beat again.
func (s *state) endGrace(now time.Time) {
	for service, is := range s.services {
		for id, until := range is.grace {
			if now.After(until) {
				delete(is.grace, id)
				delete(is.alive, id)
				s.show(service)
			}
		}
	}
}

// dropService forgets a service that nobody uses.
func (s *state) dropService(service string) {
	is := s.services[service]
	if is == nil {
		return
	}
	for id := range is.bad {
		s.SetProblem("node "+sortKey(service, id), nil)
	}
	is.alive, is.resting, is.grace = nil, nil, nil
	s.show(service)
	delete(s.services, service)
	for key, t := range s.seen {
		if t.Service == service {
			s.unsee(t.Service, t.ID)
			delete(s.seen, key)
		}
	}
}

// show brings the nodes of a service, as a Snapshot has them, up to date.
func (s *state) show(service string) {
	is := s.services[service]
	shown := make(map[string]registry.Node, len(is.alive))
	for id, n := range is.alive {
		if s.hidden(n) {
			continue
		}
		shown[id] = n
		if old, ok := is.shown[id]; !ok || !sameNode(old, n) {
			s.Nodes.Set(sortKey(service, id), n)
		}
	}
	for id := range is.shown {
		if _, ok := shown[id]; !ok {
			s.Nodes.Remove(sortKey(service, id))
		}
	}
	is.shown = shown
}

// hidden reports whether a tombstone of Consul's keys names n.
func (s *state) hidden(n registry.Node) bool {
	if !s.stored(n.Service, n.ID) {
		return false
	}
	t, ok := s.Tombstones.Get(sortKey(n.Service, n.ID))
	return ok && t.Incarnation == n.Incarnation
}

// stored reports whether Consul's keys have a tombstone of the node.
func (s *state) stored(service, id string) bool {
	_, ok := s.versions[s.keys.Tombstone(service, id)]
	return ok
}

// see keeps a tombstone that is only known here; unsee forgets it.
func (s *state) see(n registry.Node) {
	key := sortKey(n.Service, n.ID)
	if known, ok := s.seen[key]; ok && known.Incarnation == n.Incarnation {
		return
	}
	t := registry.Tombstone{NodeRef: n.Ref(), At: time.Now().UTC()}
	s.seen[key] = t
	if !s.stored(n.Service, n.ID) {
		s.Tombstones.Set(key, t)
	}
}

func (s *state) unsee(service, id string) {
	key := sortKey(service, id)
	if _, ok := s.seen[key]; !ok {
		return
	}
	delete(s.seen, key)
	if !s.stored(service, id) {
		s.Tombstones.Remove(key)
	}
}

// oldTombstones forgets those that are only known here and older than before, unless their node still rests, and returns
// the keys of those that Consul has, with their index.
func (s *state) oldTombstones(before time.Time) map[string]uint64 {
	old := make(map[string]uint64)
	for _, t := range s.Tombstones.Items() {
		if t.At.After(before) {
			continue
		}
		if key := s.keys.Tombstone(t.Service, t.ID); s.stored(t.Service, t.ID) {
			old[key] = s.versions[key]
		} else if is := s.services[t.Service]; is == nil || !is.resting[t.ID] {
			s.unsee(t.Service, t.ID)
		}
	}
	return old
}

// flush brings everything up to date and reports whether objects changed.
func (s *state) flush() (objects bool) {
	objects = s.Flush()
	if s.buried {
		s.buried = false
		for service := range s.services {
			s.show(service)
		}
		s.Flush()
	}
	return objects
}
