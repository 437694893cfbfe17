package etcd

import (
	"maps"
	"slices"
	"strings"

	"go.etcd.io/etcd/api/v3/mvccpb"

	"sluice/registry"
)

// state is what a Watch knows. One goroutine owns it.
type state struct {
	keys       keys
	seq        registry.Seq
	objects    section[registry.Object]
	nodes      section[registry.Node]
	tombstones section[registry.Tombstone]
	slots      section[registry.SlotTable]
	problems   map[string]registry.Problem // by the key in etcd
	sorted     []registry.Problem          // problems, as sent; nil when they changed since
	dirty      bool                        // there is something that was not sent
}

func newState(k keys) *state {
	return &state{keys: k, problems: make(map[string]registry.Problem), dirty: true}
}

// flush brings the sections up to date and reports whether objects changed.
func (s *state) flush() (objects bool) {
	objects = s.objects.flush()
	changed := []bool{objects, s.nodes.flush(), s.tombstones.flush(), s.slots.flush()}
	for _, c := range changed {
		s.dirty = s.dirty || c
	}
	return objects
}

func (s *state) snapshot() registry.Snapshot {
	if s.sorted == nil && len(s.problems) > 0 {
		s.sorted = registry.SortProblems(slices.Collect(maps.Values(s.problems)))
	}
	return registry.Snapshot{
		Seq:        s.seq,
		Objects:    s.objects.items(),
		Nodes:      s.nodes.items(),
		Tombstones: s.tombstones.items(),
		Slots:      s.slots.items(),
		Problems:   s.sorted,
	}
}

// problem keeps what is wrong at key; nil says that nothing is (any more).
func (s *state) problem(key, object string, err error) {
	if err == nil {
		s.setProblem(key, nil)
		return
	}
	s.setProblem(key, &registry.Problem{Object: object, Message: "key " + key + ": " + err.Error()})
}

// setProblem keeps p, or forgets what was at key when p is nil.
func (s *state) setProblem(key string, p *registry.Problem) {
	had, ok := s.problems[key]
	switch {
	case p == nil && !ok, p != nil && ok && *p == had:
		return
	case p == nil:
		delete(s.problems, key)
	default:
		s.problems[key] = *p
	}
	s.dirty, s.sorted = true, nil
}

// put and remove take a key below keys.state in. Keys of which this version knows nothing are left alone.
func (s *state) put(kv *mvccpb.KeyValue) {
	key := string(kv.Key)
	switch {
	case key == s.keys.head:
		s.putHead(kv)
	case strings.HasPrefix(key, s.keys.objects):
		s.putObject(key, kv)
	case strings.HasPrefix(key, s.keys.nodes):
		n, err := decodeNodeKey(s.keys, kv)
		s.putNode(key, strings.TrimPrefix(key, s.keys.nodes), n, err)
	case strings.HasPrefix(key, s.keys.tombstones):
		s.putTombstone(key, kv)
	case strings.HasPrefix(key, s.keys.slots):
		s.putSlots(key, kv)
	}
}

func (s *state) remove(key string) {
	s.problem(key, "", nil)
	switch {
	case key == s.keys.head:
		s.seq, s.dirty = 0, true
	case strings.HasPrefix(key, s.keys.objects):
		s.objects.remove(sortKey(strings.TrimPrefix(key, s.keys.objects)))
	case strings.HasPrefix(key, s.keys.nodes):
		s.nodes.remove(sortKey(strings.TrimPrefix(key, s.keys.nodes)))
	case strings.HasPrefix(key, s.keys.tombstones):
		s.tombstones.remove(sortKey(strings.TrimPrefix(key, s.keys.tombstones)))
	case strings.HasPrefix(key, s.keys.slots):
		s.slots.remove(strings.TrimPrefix(key, s.keys.slots))
	}
}

func (s *state) putHead(kv *mvccpb.KeyValue) {
	var h headValue
	err := decode(kv.Value, &h)
	s.problem(string(kv.Key), "registry/head", err)
	if err == nil && h.Seq != s.seq {
		s.seq, s.dirty = h.Seq, true
	}
}

func (s *state) putObject(key string, kv *mvccpb.KeyValue) {
	rest := strings.TrimPrefix(key, s.keys.objects)
	kind, name, err := split(rest)
	if err == nil && !desired(registry.Kind(kind)) {
		return
	}
	var o registry.Object
	if err == nil {
		o, err = decodeObject(registry.Kind(kind), name, kv.Value)
	}
	s.problem(key, rest, err)
	if err != nil {
		s.objects.remove(sortKey(rest))
		return
	}
	s.objects.set(sortKey(rest), o)
}

// putNode takes in the node <service>/<id> that was decoded from key, or what was wrong with it.
func (s *state) putNode(key, rest string, n registry.Node, err error) {
	s.problem(key, "node/"+rest, err)
	if err != nil {
		s.nodes.remove(sortKey(rest))
		return
	}
	s.nodes.set(sortKey(rest), n)
}

func (s *state) putTombstone(key string, kv *mvccpb.KeyValue) {
	rest := strings.TrimPrefix(key, s.keys.tombstones)
	service, id, err := split(rest)
	var v tombstoneValue
	if err == nil {
		err = decode(kv.Value, &v)
	}
	s.problem(key, "tombstone/"+rest, err)
	if err != nil {
		s.tombstones.remove(sortKey(rest))
		return
	}
	ref := registry.NodeRef{Service: service, ID: id, Incarnation: v.Incarnation}
	s.tombstones.set(sortKey(rest), registry.Tombstone{NodeRef: ref, At: v.At})
}

func (s *state) putSlots(key string, kv *mvccpb.KeyValue) {
	upstream := strings.TrimPrefix(key, s.keys.slots)
	var v slotsValue
	err := decode(kv.Value, &v)
	s.problem(key, string(kindSlots)+"/"+upstream, err)
	if err != nil {
		s.slots.remove(upstream)
		return
	}
	s.slots.set(upstream, registry.SlotTable{Upstream: upstream, Version: uint64(kv.ModRevision), Slots: v.Slots})
}

// sortKey makes of "a/b" what sorts by a and then by b, also where one a begins with another.
func sortKey(rest string) string { return strings.Replace(rest, "/", "\x00", 1) }

// decodeNodeKey decodes a node of sluice's own.
func decodeNodeKey(k keys, kv *mvccpb.KeyValue) (registry.Node, error) {
	service, id, err := split(strings.TrimPrefix(string(kv.Key), k.nodes))
	if err != nil {
		return registry.Node{}, err
	}
	return decodeNode(service, id, kv.Value)
}
