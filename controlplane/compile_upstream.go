package controlplane

import (
	"cmp"
	"slices"
	"strings"
	"time"

	"sluice/controlplane/spec"
	"sluice/registry"
	"sluice/templates"
)

// freeSlotAddress stands in the slot of an ip_hash node that is away. It is down, so nginx never connects to it; it only
// keeps the positions of the others. 192.0.2.0/24 is reserved for documentation (RFC 5737).
const freeSlotAddress = "192.0.2.1:9"

// upstream is a compiled upstream.
type upstream struct {
	config templates.Upstream
	up     int                 // servers that take connections; with none, nothing is rendered
	slots  *registry.SlotTable // ip_hash: the table that should be stored, when it is another

	status     UpstreamStatus
	members    []Member     // sorted by id
	exceptions []NodeStatus // sorted by id
}

// upstream returns the named upstream, compiled at its first use; nil when it does not exist or no version will do.
func (c *compiler) upstream(name string) *upstream {
	if u, ok := c.upstreams[name]; ok {
		return u
	}
	var u *upstream
	c.choose(registry.Ref{Kind: registry.KindUpstream, Name: name}, func(o registry.Object) []spec.FieldError {
		value, faults := Recall[spec.Upstream](c.facts.Readings, o)
		if len(faults) == 0 {
			u = c.compileUpstream(name, value.WithDefaults(name))
		}
		return faults
	})
	c.upstreams[name] = u
	return u
}

// UpstreamService returns the service whose nodes an upstream has.
func UpstreamService(u spec.Upstream) string {
	if u.Endpoints != "" {
		return registry.EndpointsService(u.Endpoints)
	}
	return u.Service
}

// Uses returns the services that an object needs: what registries that watch by service must know.
func Uses(o registry.Object) []string {
	if o.Kind == registry.KindRollout {
		return usesBefore(o)
	}
	if o.Kind != registry.KindUpstream {
		return nil
	}
	value, faults := read[spec.Upstream](o)
	if len(faults) > 0 {
		return nil
	}
	return []string{UpstreamService(value.WithDefaults(o.Name))}
}

// member is a node of an upstream with what ops say about it.
type member struct {
	registry.Node
	key    string
	weight int
	down   bool
	kept   bool // it is not registered any more
}

func (c *compiler) compileUpstream(name string, u spec.Upstream) *upstream {
	members := c.members(name, u)
	result := &upstream{config: templates.Upstream{
		Name:             name,
		Keepalive:        *u.Keepalive.Connections,
		KeepaliveTimeout: time.Duration(*u.Keepalive.Timeout),
	}}
	cfg := &result.config
	switch u.Balance.Method {
	case spec.RoundRobin:
	case spec.Hash:
		cfg.Method, cfg.HashKey, cfg.Ketama = "hash", hashVariable(u.Balance.Key), *u.Balance.Consistent
	default:
		cfg.Method = string(u.Balance.Method)
	}
	server := func(m member) templates.Server {
		if !m.down {
			result.up++
		}
		return templates.Server{
			Node: m.key, Address: m.HostPort(), Weight: m.weight, MaxConns: m.MaxConns, Down: m.down,
			MaxFails: *u.Passive.MaxFails, FailTimeout: time.Duration(*u.Passive.FailTimeout),
		}
	}
	if u.Balance.Method == spec.IPHash {
		table := c.slots(name)
		result.slots = wantSlots(table, members, c.facts.Growing[name])
		byKey := make(map[string]member, len(members))
		for _, m := range members {
			byKey[m.key] = m
		}
		total := 0
		for _, s := range table.Slots {
			total += s.Weight
			if m, ok := byKey[s.Node]; ok {
				m.weight = s.Weight // as stored, so that all gateways agree while it changes
				cfg.Servers = append(cfg.Servers, server(m))
			} else {
				cfg.Servers = append(cfg.Servers, templates.Server{
					Address: freeSlotAddress, Weight: s.Weight, MaxFails: 1, FailTimeout: 10 * time.Second, Down: true,
				})
			}
		}
		if total > maxIPHashWeight {
			c.problem(registry.Ref{Kind: registry.KindUpstream, Name: name}, "/balance/method",
				"the weights add up to %d, and ip_hash reaches only the first %d: use smaller weights", total, maxIPHashWeight)
		}
	} else {
		cfg.Servers = make([]templates.Server, 0, len(members))
		for _, m := range members {
			cfg.Servers = append(cfg.Servers, server(m))
		}
	}
	cfg.Zone = templates.ZoneSize(len(cfg.Servers))
	c.describe(result, name, u, members)
	return result
}

// describe writes down what there is to say about an upstream and its nodes.
func (c *compiler) describe(result *upstream, name string, u spec.Upstream, members []member) {
	ruling := c.facts.Rulings[name]
	result.status = UpstreamStatus{
		Name: name, Service: UpstreamService(u), Nodes: len(members), Up: result.up, Held: ruling.Held, Alarm: ruling.Alarm,
	}
	result.exceptions = slices.Clone(ruling.Exceptions)
	result.members = make([]Member, len(members))
	for i, m := range members {
		node := m.Ref().String()
		result.members[i] = Member{Upstream: name, Node: node, Address: m.HostPort(), Up: !m.down}
		o := c.overrides[node]
		state := NodeDraining
		switch o.State {
		case spec.Draining:
		case spec.Disabled:
			state = NodeDisabled
		default:
			continue
		}
		result.exceptions = append(result.exceptions, NodeStatus{Upstream: name, Service: m.Service, ID: m.ID, State: state, Reason: o.Note})
	}
	slices.SortFunc(result.exceptions, func(a, b NodeStatus) int { return cmp.Compare(a.ID, b.ID) })
}

// Selects reports whether a node of u's service is one of u's: it has all the tags and metadata that u asks for.
func Selects(u spec.Upstream, n registry.Node) bool {
	for _, tag := range u.Tags {
		if !slices.Contains(n.Tags, tag) {
			return false
		}
	}
	for key, want := range u.Meta {
		if is, ok := n.Meta[key]; !ok || is != want {
			return false
		}
	}
	return true
}

// members returns the nodes of an upstream, sorted by id. Of several nodes at one address only the first counts, since
// nginx would send it the share of all of them.
func (c *compiler) members(name string, u spec.Upstream) []member {
	ruling, guarded := c.facts.Rulings[name]
	nodes := ruling.Nodes
	if !guarded {
		nodes = serviceNodes(c.snapshot.Nodes, UpstreamService(u))
	}
	members := make([]member, 0, len(nodes))
	at := make(map[string]string, len(nodes))
	for _, n := range nodes {
		if !guarded && !Selects(u, n) {
			continue
		}
		if other, taken := at[n.HostPort()]; taken {
			c.problems = append(c.problems, registry.Problem{
				Object: "node/" + n.Ref().String(), Field: "/address",
				Message: "has the address of node " + other + ", and only that one is used: let one of them deregister",
			})
			continue
		}
		at[n.HostPort()] = n.ID
		m := member{Node: n, key: n.Key(), weight: max(n.Weight, 1), down: ruling.Down[n.ID], kept: ruling.Kept[n.ID]}
		if o, ok := c.overrides[n.Ref().String()]; ok {
			m.down = m.down || o.State == spec.Draining || o.State == spec.Disabled
			if o.Weight != nil {
				m.weight = *o.Weight
			}
		}
		members = append(members, m)
	}
	return members
}

// slots returns the stored slot table of an upstream.
func (c *compiler) slots(upstream string) registry.SlotTable {
	i, ok := slices.BinarySearchFunc(c.snapshot.Slots, upstream, func(t registry.SlotTable, name string) int {
		return cmp.Compare(t.Upstream, name)
	})
	if !ok {
		return registry.SlotTable{Upstream: upstream}
	}
	return c.snapshot.Slots[i]
}

// wantSlots returns the table that members need, or nil when it is the one that is stored. While the upstream is being
// rolled out, the gateways do not agree on its nodes: then the table only grows, by those of all of them. A member that only the guard of
// this gateway keeps has the slot that it has: another gateway may see it otherwise, and the two would take turns.
func wantSlots(stored registry.SlotTable, members []member, growing bool) *registry.SlotTable {
	holds := map[string]bool{}
	for _, s := range stored.Slots {
		holds[s.Node] = s.Absent == 0
	}
	nodes := make([]Slotted, 0, len(members))
	for _, m := range members {
		if !m.kept || holds[m.key] {
			nodes = append(nodes, Slotted{Node: m.key, Weight: m.weight})
		}
	}
	assign := Assign
	if growing {
		assign = grow
	}
	next := assign(stored.Slots, nodes)
	if slices.Equal(next, stored.Slots) && (stored.Version > 0 || len(next) == 0) {
		return nil
	}
	return &registry.SlotTable{Upstream: stored.Upstream, Version: stored.Version, Slots: next}
}

// hashVariable returns nginx's variable for a validated hash key.
func hashVariable(key string) string {
	source, name, err := spec.ParseHashKey(key)
	switch {
	case err != nil: // validated before
		return ""
	case source == "header":
		return "$http_" + strings.ReplaceAll(strings.ToLower(name), "-", "_")
	case name != "":
		return "$" + source + "_" + name
	default:
		return "$" + source
	}
}
