package etcd

import (
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"sluice/registry"
)

// version is the version of the values below. A value of a later one is a Problem: it may mean something else.
const version = 1

// versioned is how each value starts.
type versioned struct {
	V int `json:"v"`
}

func (v versioned) version() int { return v.V }

// headValue is the value of the head key.
type headValue struct {
	versioned
	Seq registry.Seq `json:"seq"`
}

// objectValue is the value of an object: desired, leased, or a history entry.
type objectValue struct {
	versioned
	Seq   registry.Seq    `json:"seq,omitempty"`
	Value json.RawMessage `json:"value"`
}

// nodeValue is the value of a node. The ttl is in it so that a beat with another ttl is another value.
type nodeValue struct {
	versioned
	TTL  int64         `json:"ttl"` // seconds
	Node registry.Node `json:"node"`
}

// tombstoneValue is the value of a tombstone.
type tombstoneValue struct {
	versioned
	Incarnation string    `json:"incarnation,omitempty"`
	At          time.Time `json:"at"`
}

// slotsValue is the value of a slot table; its version is etcd's mod_revision of the key.
type slotsValue struct {
	versioned
	Slots []registry.Slot `json:"slots"`
}

var errNewer = fmt.Errorf("it was written in a later format than %d, which this version does not know: upgrade sluice here", version)

// decode reads a value into v, which points to something that embeds versioned. Unknown fields are left alone.
func decode(raw []byte, v interface{ version() int }) error {
	err := json.Unmarshal(raw, v)
	var alone versioned
	switch {
	case v.version() > version, err != nil && json.Unmarshal(raw, &alone) == nil && alone.V > version:
		return errNewer
	case err != nil:
		return fmt.Errorf("the value is not what sluice writes (%w): delete the key, or write it again through the API", err)
	case v.version() < 1:
		return errors.New(`the value is not what sluice writes ("v" is missing): delete the key, or write it again through the API`)
	}
	return nil
}

func decodeObject(kind registry.Kind, name string, raw []byte) (registry.Object, error) {
	var v objectValue
	if err := decode(raw, &v); err != nil {
		return registry.Object{}, err
	}
	if len(v.Value) == 0 || v.Value[0] != '{' {
		return registry.Object{}, errors.New(`"value" is not a JSON object: write it again through the API`)
	}
	return registry.Object{Kind: kind, Name: name, Seq: v.Seq, Value: v.Value}, nil
}

// decodeNode checks all that Put checks: anybody may write with etcdctl.
func decodeNode(service, id string, raw []byte) (registry.Node, error) {
	var v nodeValue
	if err := decode(raw, &v); err != nil {
		return registry.Node{}, err
	}
	n := v.Node
	if n.Service != service || n.ID != id {
		return registry.Node{}, fmt.Errorf("the value names the node %q of service %q: it must be that of its key", n.ID, n.Service)
	}
	if err := n.Validate(); err != nil {
		return registry.Node{}, fmt.Errorf("it was left out: %w", err)
	}
	return n, nil
}

// encode writes a value of one of the types above.
func encode(v any) (string, error) {
	raw, err := registry.MarshalJSON(v)
	return string(raw), err
}

func encodeObject(o registry.Object) (string, error) {
	return encode(objectValue{versioned{version}, o.Seq, o.Value})
}
