package etcd

import (
	"fmt"
	"strings"

	"sluice/registry"
)

// keys are the places of one fleet in etcd; docs/registry.md describes them. All that a Snapshot needs is below state,
// so that one watch carries it; what would only cause noise there (history, leased reports) is elsewhere.
type keys struct {
	state      string // /sluice/<fleet>/state/
	head       string
	objects    string // <kind>/<name>
	nodes      string // <service>/<id>
	tombstones string // <service>/<id>
	slots      string // <upstream>
	history    string // <seq, 20 digits>
	leased     string // <kind>/<name>
}

func newKeys(fleet string) keys {
	base := "/sluice/" + fleet + "/"
	state := base + "state/"
	return keys{
		state:      state,
		head:       state + "head",
		objects:    state + "objects/",
		nodes:      state + "nodes/",
		tombstones: state + "tombstones/",
		slots:      state + "slots/",
		history:    base + "history/",
		leased:     base + "leased/",
	}
}

// kind returns the prefix below which the objects of a kind are.
func (k keys) kind(kind registry.Kind) string {
	switch {
	case kind == registry.KindHistory:
		return k.history
	case desired(kind):
		return k.objects + string(kind) + "/"
	default:
		return k.leased + string(kind) + "/"
	}
}

func (k keys) object(ref registry.Ref) string { return k.kind(ref.Kind) + ref.Name }

func (k keys) node(service, id string) string { return k.nodes + service + "/" + id }

func (k keys) tombstone(service, id string) string { return k.tombstones + service + "/" + id }

func (k keys) slotTable(upstream string) string { return k.slots + upstream }

// split cuts "a/b" at the first slash: neither kinds nor services contain one, names and ids may.
func split(rest string) (first, second string, err error) {
	first, second, ok := strings.Cut(rest, "/")
	if !ok || first == "" || second == "" {
		return "", "", fmt.Errorf("the key is not of the form …/a/b")
	}
	return first, second, nil
}

func desired(kind registry.Kind) bool {
	for _, k := range registry.DesiredKinds() {
		if k == kind {
			return true
		}
	}
	return false
}
