package controlplane

import (
	"slices"

	"sluice/registry"
)

// maxIPHashWeight is the modulus of nginx's ip_hash: positions beyond it are never chosen
// (ngx_http_upstream_ip_hash_module.c, hash = (hash * 113 + octet) % 6271).
const maxIPHashWeight = 6271

// Slotted is a node that wants a slot, with the weight that it counts for.
type Slotted struct {
	Node   string // Key
	Weight int
}

// Assign returns the slot table of an ip_hash upstream for the nodes that are there now. ip_hash picks a server by its
// position in the list, so a position must keep its owner for as long as possible: a node that left keeps its slot, a new
// one takes over the slot that was left longest ago, and only when there is none the table grows. When fewer than half of
// the slots are alive, the free ones are dropped: nginx gives up after 20 tries on servers that are down and falls back
// to round robin (1 % of the clients at 2 alive of 10, 11 % at 2 of 20). A table without anyone alive is kept, for the
// nodes to come back to.
//
// Assign is pure: it depends on the order of nodes, so callers sort them, and it leaves its arguments alone.
func Assign(table []registry.Slot, nodes []Slotted) []registry.Slot {
	here := make(map[string]int, len(nodes))
	for _, n := range nodes {
		here[n.Node] = n.Weight
	}
	next := slices.Clone(table)
	var absences uint64
	for _, s := range next {
		absences = max(absences, s.Absent)
	}
	taken := make(map[string]bool, len(nodes))
	for i, s := range next {
		if weight, ok := here[s.Node]; ok && !taken[s.Node] {
			taken[s.Node] = true
			next[i].Weight, next[i].Absent = weight, 0
		} else if s.Absent == 0 {
			next[i].Absent = absences + 1
		}
	}
	free := freeSlots(next)
	for _, n := range nodes {
		if taken[n.Node] {
			continue
		}
		taken[n.Node] = true
		slot := registry.Slot{Node: n.Node, Weight: n.Weight}
		if len(free) > 0 {
			next[free[0]], free = slot, free[1:]
		} else {
			next = append(next, slot)
		}
	}
	if alive := len(taken); alive > 0 && 2*alive < len(next) {
		next = slices.DeleteFunc(next, func(s registry.Slot) bool { return s.Absent > 0 })
	}
	return next
}

// grow returns the table with slots at its end for those nodes that have none, and leaves all others as they are.
func grow(table []registry.Slot, nodes []Slotted) []registry.Slot {
	next := slices.Clone(table)
	for _, n := range nodes {
		if !slices.ContainsFunc(next, func(s registry.Slot) bool { return s.Node == n.Node }) {
			next = append(next, registry.Slot{Node: n.Node, Weight: n.Weight})
		}
	}
	return next
}

// freeSlots returns the positions whose node is absent, the longest absent first.
func freeSlots(table []registry.Slot) []int {
	var free []int
	for i, s := range table {
		if s.Absent > 0 {
			free = append(free, i)
		}
	}
	slices.SortStableFunc(free, func(a, b int) int {
		switch x, y := table[a].Absent, table[b].Absent; {
		case x < y:
			return -1
		case x > y:
			return 1
		default:
			return 0
		}
	})
	return free
}
