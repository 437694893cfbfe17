package keyspace

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

// slotsValue is the value of a slot table; its version is the store's number of the key's last change.
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

// EncodeHead writes the value of the head key.
func EncodeHead(seq registry.Seq) (string, error) { return encode(headValue{versioned{version}, seq}) }

// DecodeHead reads the value of the head key.
func DecodeHead(raw []byte) (registry.Seq, error) {
	var v headValue
	err := decode(raw, &v)
	return v.Seq, err
}

// EncodeObject writes the value of an object.
func EncodeObject(o registry.Object) (string, error) {
	return encode(objectValue{versioned{version}, o.Seq, o.Value})
}

// DecodeObject reads the value of an object.
func DecodeObject(kind registry.Kind, name string, raw []byte) (registry.Object, error) {
	var v objectValue
	if err := decode(raw, &v); err != nil {
		return registry.Object{}, err
	}
	if len(v.Value) == 0 || v.Value[0] != '{' {
		return registry.Object{}, errors.New(`"value" is not a JSON object: write it again through the API`)
	}
	return registry.Object{Kind: kind, Name: name, Seq: v.Seq, Value: v.Value}, nil
}

// EncodeNode writes the value of a node with its ttl in seconds.
func EncodeNode(n registry.Node, ttl int64) (string, error) {
	return encode(nodeValue{versioned{version}, ttl, n})
}

// DecodeNode reads the value of a node, and checks all that Put checks: anybody may write into the store.
func DecodeNode(service, id string, raw []byte) (registry.Node, error) {
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

// Incarnation reads the incarnation of a node's value. Garbage has none, and can be removed without one.
func Incarnation(raw []byte) string {
	var v nodeValue
	_ = decode(raw, &v)
	return v.Node.Incarnation
}

// TTL reads the time to live of a node's value; zero of garbage.
func TTL(raw []byte) time.Duration {
	var v nodeValue
	_ = decode(raw, &v)
	return time.Duration(v.TTL) * time.Second
}

// EncodeTombstone writes the value of a tombstone.
func EncodeTombstone(incarnation string, at time.Time) (string, error) {
	return encode(tombstoneValue{versioned{version}, incarnation, at.UTC()})
}

// DecodeTombstone reads the value of a tombstone.
func DecodeTombstone(service, id string, raw []byte) (registry.Tombstone, error) {
	var v tombstoneValue
	if err := decode(raw, &v); err != nil {
		return registry.Tombstone{}, err
	}
	ref := registry.NodeRef{Service: service, ID: id, Incarnation: v.Incarnation}
	return registry.Tombstone{NodeRef: ref, At: v.At}, nil
}

// EncodeSlots writes the value of a slot table.
func EncodeSlots(slots []registry.Slot) (string, error) {
	return encode(slotsValue{versioned{version}, slots})
}

// DecodeSlots reads the value of a slot table; entry is that of its key.
func DecodeSlots(upstream string, entry Entry) (registry.SlotTable, error) {
	var v slotsValue
	err := decode(entry.Value, &v)
	return registry.SlotTable{Upstream: upstream, Version: entry.Version, Slots: v.Slots}, err
}

// encode writes a value of one of the types above.
func encode(v any) (string, error) {
	raw, err := registry.MarshalJSON(v)
	return string(raw), err
}
