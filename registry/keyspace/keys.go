// Package keyspace is what the implementations of the registry have in common: where things are in a store of keys and
// values, how the values are written, and the state that is read from them. docs/registry.md describes both.
package keyspace

import (
	"errors"
	"strings"

	"sluice/registry"
)

// DefaultFleet is the fleet of whom none is named.
const DefaultFleet = "default"

// KindSlots names slot tables in a ConflictError.
const KindSlots registry.Kind = "slots"

// Keys are the places of one fleet. All that a Snapshot needs is below State, so that one watch carries it; what would
// only cause noise there (history, leased reports) is elsewhere.
type Keys struct {
	State      string // <base>/state/
	Head       string
	Objects    string // <kind>/<name>
	Nodes      string // <service>/<id>
	Tombstones string // <service>/<id>
	Slots      string // <upstream>
	History    string // <seq, 20 digits>
	Leased     string // <kind>/<name>
}

// New returns the places below base, which ends with a slash.
func New(base string) Keys {
	state := base + "state/"
	return Keys{
		State:      state,
		Head:       state + "head",
		Objects:    state + "objects/",
		Nodes:      state + "nodes/",
		Tombstones: state + "tombstones/",
		Slots:      state + "slots/",
		History:    base + "history/",
		Leased:     base + "leased/",
	}
}

// Kind returns the prefix below which the objects of a kind are.
func (k Keys) Kind(kind registry.Kind) string {
	switch {
	case kind == registry.KindHistory:
		return k.History
	case registry.InSnapshots(kind):
		return k.Objects + string(kind) + "/"
	default:
		return k.Leased + string(kind) + "/"
	}
}

// Object returns the key of an object.
func (k Keys) Object(ref registry.Ref) string { return k.Kind(ref.Kind) + ref.Name }

// Node returns the key of a node.
func (k Keys) Node(service, id string) string { return k.Nodes + service + "/" + id }

// Tombstone returns the key of a node's tombstone.
func (k Keys) Tombstone(service, id string) string { return k.Tombstones + service + "/" + id }

// SlotTable returns the key of an upstream's slot table.
func (k Keys) SlotTable(upstream string) string { return k.Slots + upstream }

// Split cuts "a/b" at the first slash: neither kinds nor services contain one, names and ids may.
func Split(rest string) (first, second string, err error) {
	first, second, ok := strings.Cut(rest, "/")
	if !ok || first == "" || second == "" {
		return "", "", errors.New("the key is not of the form …/a/b")
	}
	return first, second, nil
}

// SortKey makes of "a/b" what sorts by a and then by b, also where one a begins with another.
func SortKey(rest string) string { return strings.Replace(rest, "/", "\x00", 1) }
