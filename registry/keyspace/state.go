package keyspace

import (
	"maps"
	"slices"
	"strings"

	"sluice/registry"
)

// Entry is a key with its value.
type Entry struct {
	Key     string
	Value   []byte
	Version uint64 // of the key's last change, as the store counts
	Created uint64 // when the key came to be, in the same count
}

// State is what a Watch knows. One goroutine owns it.
type State struct {
	Objects    Section[registry.Object]
	Nodes      Section[registry.Node]
	Tombstones Section[registry.Tombstone]
	Slots      Section[registry.SlotTable]
	Dirty      bool // there is something that was not sent

	keys     Keys
	seq      registry.Seq
	problems map[string]registry.Problem // by the key in the store
	sorted   []registry.Problem          // problems, as sent; nil when they changed since
}

// NewState returns a State of which nothing was sent.
func NewState(k Keys) *State {
	return &State{keys: k, problems: make(map[string]registry.Problem), Dirty: true}
}

// Flush brings all but the nodes up to date and reports whether objects changed. The nodes are thousands: they are brought
// up to date once for each Snapshot, not for each change.
func (s *State) Flush() (objects bool) {
	objects = s.Objects.Flush()
	changed := []bool{objects, s.Nodes.Pending(), s.Tombstones.Flush(), s.Slots.Flush()}
	for _, c := range changed {
		s.Dirty = s.Dirty || c
	}
	return objects
}

// Snapshot returns what is known as of the last Flush.
func (s *State) Snapshot() registry.Snapshot {
	s.Nodes.Flush()
	if s.sorted == nil && len(s.problems) > 0 {
		s.sorted = registry.SortProblems(slices.Collect(maps.Values(s.problems)))
	}
	return registry.Snapshot{
		Seq:        s.seq,
		Objects:    s.Objects.Items(),
		Nodes:      s.Nodes.Items(),
		Tombstones: s.Tombstones.Items(),
		Slots:      s.Slots.Items(),
		Problems:   s.sorted,
	}
}

// Problem keeps what is wrong at key; nil says that nothing is (any more).
func (s *State) Problem(key, object string, err error) {
	if err == nil {
		s.SetProblem(key, nil)
		return
	}
	s.SetProblem(key, &registry.Problem{Object: object, Message: "key " + key + ": " + err.Error()})
}

// SetProblem keeps p, or forgets what was at key when p is nil.
func (s *State) SetProblem(key string, p *registry.Problem) {
	had, ok := s.problems[key]
	switch {
	case p == nil && !ok, p != nil && ok && *p == had:
		return
	case p == nil:
		delete(s.problems, key)
	default:
		s.problems[key] = *p
	}
	s.Dirty, s.sorted = true, nil
}

// ReplaceProblems makes problems those at keys that begin with prefix.
func (s *State) ReplaceProblems(prefix string, problems []registry.Problem) {
	now := make(map[string]bool, len(problems))
	for _, p := range problems {
		key := prefix + p.String()
		now[key] = true
		s.SetProblem(key, &p)
	}
	for key := range s.problems {
		if strings.HasPrefix(key, prefix) && !now[key] {
			s.SetProblem(key, nil)
		}
	}
}

// Put takes a key below Keys.State in. Keys of which this version knows nothing are left alone.
func (s *State) Put(e Entry) {
	key := e.Key
	switch {
	case key == s.keys.Head:
		s.putHead(e)
	case strings.HasPrefix(key, s.keys.Objects):
		s.putObject(key, e)
	case strings.HasPrefix(key, s.keys.Nodes):
		n, err := NodeOf(s.keys, e)
		s.putNode(key, strings.TrimPrefix(key, s.keys.Nodes), n, err)
	case strings.HasPrefix(key, s.keys.Tombstones):
		s.putTombstone(key, e)
	case strings.HasPrefix(key, s.keys.Slots):
		s.putSlots(key, e)
	}
}

// Remove takes a key that is gone out.
func (s *State) Remove(key string) {
	s.Problem(key, "", nil)
	switch {
	case key == s.keys.Head:
		s.seq, s.Dirty = 0, true
	case strings.HasPrefix(key, s.keys.Objects):
		s.Objects.Remove(SortKey(strings.TrimPrefix(key, s.keys.Objects)))
	case strings.HasPrefix(key, s.keys.Nodes):
		s.Nodes.Remove(SortKey(strings.TrimPrefix(key, s.keys.Nodes)))
	case strings.HasPrefix(key, s.keys.Tombstones):
		s.Tombstones.Remove(SortKey(strings.TrimPrefix(key, s.keys.Tombstones)))
	case strings.HasPrefix(key, s.keys.Slots):
		s.Slots.Remove(strings.TrimPrefix(key, s.keys.Slots))
	}
}

func (s *State) putHead(e Entry) {
	seq, err := DecodeHead(e.Value)
	s.Problem(e.Key, "registry/head", err)
	if err == nil && seq != s.seq {
		s.seq, s.Dirty = seq, true
	}
}

func (s *State) putObject(key string, e Entry) {
	rest := strings.TrimPrefix(key, s.keys.Objects)
	kind, name, err := Split(rest)
	if err == nil && !registry.InSnapshots(registry.Kind(kind)) {
		return
	}
	var o registry.Object
	if err == nil {
		o, err = DecodeObject(registry.Kind(kind), name, e.Value)
	}
	s.Problem(key, rest, err)
	if err != nil {
		s.Objects.Remove(SortKey(rest))
		return
	}
	s.Objects.Set(SortKey(rest), o)
}

// putNode takes in the node <service>/<id> that was decoded from key, or what was wrong with it.
func (s *State) putNode(key, rest string, n registry.Node, err error) {
	s.Problem(key, "node/"+rest, err)
	if err != nil {
		s.Nodes.Remove(SortKey(rest))
		return
	}
	s.Nodes.Set(SortKey(rest), n)
}

func (s *State) putTombstone(key string, e Entry) {
	rest := strings.TrimPrefix(key, s.keys.Tombstones)
	service, id, err := Split(rest)
	var t registry.Tombstone
	if err == nil {
		t, err = DecodeTombstone(service, id, e.Value)
	}
	s.Problem(key, "tombstone/"+rest, err)
	if err != nil {
		s.Tombstones.Remove(SortKey(rest))
		return
	}
	s.Tombstones.Set(SortKey(rest), t)
}

func (s *State) putSlots(key string, e Entry) {
	upstream := strings.TrimPrefix(key, s.keys.Slots)
	table, err := DecodeSlots(upstream, e)
	s.Problem(key, string(KindSlots)+"/"+upstream, err)
	if err != nil {
		s.Slots.Remove(upstream)
		return
	}
	s.Slots.Set(upstream, table)
}

// NodeOf decodes the node at a key of k.Nodes.
func NodeOf(k Keys, e Entry) (registry.Node, error) {
	service, id, err := Split(strings.TrimPrefix(e.Key, k.Nodes))
	if err != nil {
		return registry.Node{}, err
	}
	return DecodeNode(service, id, e.Value)
}
