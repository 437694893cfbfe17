package controlplane

import (
	"cmp"
	"maps"
	"slices"
	"strings"
)

// Sockets are the open connections of a gateway's nginx to nodes, those of old generations too. Idle ones that nginx keeps for
// later requests are among them.
type Sockets struct {
	Total int `json:"total"`
	Old   int `json:"old"` // of these, those of old generations
	// Nodes is by service/id. Those without a socket are not in it; of the others, the busiest MaxCounted.
	Nodes     map[string]int `json:"nodes,omitempty"`
	MoreNodes int            `json:"moreNodes,omitempty"` // that have sockets and were left out
	Uncounted string         `json:"uncounted,omitempty"` // what could not be counted, and why
}

// MaxCounted is of how many nodes a Status tells the sockets. With ids as io/n1 they make a report some 6 KB longer.
const MaxCounted = 500

// Of returns the sockets of a node; ok is false when they are not known.
func (s *Sockets) Of(node string) (n int, ok bool) {
	if s == nil {
		return 0, false
	}
	n, ok = s.Nodes[node]
	return n, ok || s.MoreNodes == 0 && s.Uncounted == ""
}

// Connected is how many connections nginx has open to a server.
type Connected struct {
	All int
	Old int // of these, those of old generations
}

// Connections are the connections that nginx's workers have open to servers, by address as a configuration has it. Those without a
// connection are not in it.
type Connections struct {
	Servers map[string]Connected
	NoTCP   string // why TCP connections are not counted; empty when they are
	NoUnix  string // likewise
}

// Member is a node of an upstream, whether it takes connections or not.
type Member struct {
	Upstream string
	Node     string // service/id
	Address  string // as nginx is given it
	Up       bool   // it takes connections
}

// sockets counts those of nodes.
func (c Connections) sockets(members []Member) *Sockets {
	s := &Sockets{Nodes: map[string]int{}}
	counted := map[string]bool{}
	for _, m := range members {
		if why := c.uncounted(m.Address); why != "" {
			s.Uncounted = why
		}
		n := c.Servers[m.Address]
		if n.All == 0 {
			continue
		}
		s.Nodes[m.Node] = n.All
		if !counted[m.Address] { // a node of several upstreams is counted once
			counted[m.Address] = true
			s.Total += n.All
			s.Old += n.Old
		}
	}
	if s.MoreNodes = max(0, len(s.Nodes)-MaxCounted); s.MoreNodes > 0 {
		quietest := slices.SortedFunc(maps.Keys(s.Nodes), func(a, b string) int {
			return cmp.Or(cmp.Compare(s.Nodes[a], s.Nodes[b]), cmp.Compare(b, a))
		})
		for _, node := range quietest[:s.MoreNodes] {
			delete(s.Nodes, node)
		}
	}
	return s
}

// uncounted says why the connections to an address are not counted; empty when they are.
func (c Connections) uncounted(address string) string {
	if strings.HasPrefix(address, "unix:") {
		return c.NoUnix
	}
	return c.NoTCP
}

// count adds the sockets of the nodes of upstreams.
func (s *Status) count(members []Member) {
	connections := s.Nginx.Connections
	s.Sockets = connections.sockets(members)
	byUpstream := map[string]int{}
	for _, m := range members {
		byUpstream[m.Upstream] += connections.Servers[m.Address].All
	}
	s.Upstreams = slices.Clone(s.Upstreams) // those of the loop are not changed
	for i := range s.Upstreams {
		s.Upstreams[i].Sockets = byUpstream[s.Upstreams[i].Name]
	}
}
