package controlplane

import (
	"cmp"
	"maps"
	"slices"
	"time"

	"sluice/controlplane/health"
	"sluice/controlplane/spec"
	"sluice/registry"
)

// Timing of the guard.
const (
	// gather is how long a node that was lost stays before it goes, unless nobody listens there. Registrations that run out
	// together do so within seconds: without it the first of a wave would go before it is known to be one.
	gather = 5 * time.Second
	// tcpProof is how long an open port proves that the node behind it is the one that registered.
	tcpProof = time.Minute
	// emptiedSlack is how far apart the pieces of a registry may vanish that is emptied.
	emptiedSlack = time.Minute
)

// Ward is what the guard remembers of an upstream. It is never changed: judge returns the next one.
type Ward struct {
	Service  string          `json:"service"`
	Known    []registry.Node `json:"-"`                  // registered when it was last judged, sorted by id
	Lost     map[string]Loss `json:"lost,omitempty"`     // by id: not registered any more, and still in nginx
	Failing  map[string]Fail `json:"failing,omitempty"`  // by id: registered, and found unhealthy by checks
	Gone     []Departure     `json:"gone,omitempty"`     // within the window and not on purpose; oldest first
	Peaks    []Peak          `json:"peaks,omitempty"`    // falling counts, oldest first: the first is the window's peak
	Idle     int             `json:"idle,omitempty"`     // that ops keep out of the rotation
	Approved registry.Seq    `json:"approved,omitempty"` // the newest approval that was acted on
}

// Loss is a node whose registration is gone although nobody took it away.
type Loss struct {
	Node  registry.Node `json:"node"`
	Since time.Time     `json:"since"`
	Held  bool          `json:"held,omitempty"`
	// Proof is when it last proved to be itself, and Proven whether it did when it was last judged: nobody judges while all
	// stays as it is. Its registration was a proof; and a process that has just started, or a gateway that takes it over from
	// another, must first ask.
	Proof  time.Time `json:"-"`
	Proven bool      `json:"-"`
}

// Fail is a registered node that checks found unhealthy.
type Fail struct {
	Since time.Time `json:"since"`
	Held  bool      `json:"held,omitempty"` // it stays in the rotation
	Out   bool      `json:"out,omitempty"`  // it is out of the rotation
}

// Departure is a node that left the rotation and that nobody took away.
type Departure struct {
	ID string    `json:"id"`
	At time.Time `json:"at"`
}

// Peak is how many nodes an upstream had.
type Peak struct {
	At    time.Time `json:"at"`
	Nodes int       `json:"nodes"`
}

// Scene is what an upstream is judged by.
type Scene struct {
	Name      string
	Spec      spec.Upstream   // with its defaults
	Nodes     []registry.Node // registered, sorted by id
	Left      map[string]bool // by id: not here any more, and this was meant
	Idle      map[string]bool // by id: ops keep it out of the rotation
	Verdict   func(id string) (health.Verdict, bool)
	Elsewhere func(address string) bool // a node of another service is registered there
	Approval  *Approval
	Emptied   time.Time // when the registry was found empty; zero when it was not
}

// Approval is a spec.Approval with the Seq that tells it from the one before.
type Approval struct {
	spec.Approval
	Seq registry.Seq
}

// Ruling is what becomes of an upstream's nodes.
type Ruling struct {
	Nodes      []registry.Node // registered or kept, sorted by id
	Kept       map[string]bool // by id: not registered any more
	Down       map[string]bool // by id: out of the rotation by checks
	Exceptions []NodeStatus    // sorted by id
	Held       int             // that are in the rotation only because the guard keeps them
	Alarm      string
	Next       time.Time // when it should be judged again, whatever happens; zero never
}

// judge decides which nodes of an upstream are in the rotation. It is pure. All losses that are not on purpose draw on one
// budget: a share of the most nodes within the window. Those that exceed it are held: a registered node until its checks
// pass, another one for as long as a check proves that it answers and is the same. Nobody who refuses connections is held.
func judge(w Ward, s Scene, now time.Time) (Ward, Ruling) {
	if w.Service != UpstreamService(s.Spec) { // ops chose other nodes
		w = Ward{Service: UpstreamService(s.Spec), Approved: w.Approved}
	}
	j := &judgement{Ward: w, Scene: s, now: now, window: time.Duration(*s.Spec.Guard.Window), ruling: Ruling{Kept: map[string]bool{}, Down: map[string]bool{}}}
	j.Lost, j.Failing = maps.Clone(w.Lost), maps.Clone(w.Failing)
	if j.Lost == nil {
		j.Lost = map[string]Loss{}
	}
	if j.Failing == nil {
		j.Failing = map[string]Fail{}
	}
	j.Gone, j.Peaks = slices.Clone(w.Gone), slices.Clone(w.Peaks)
	j.findLosses()
	j.findFailing()
	j.count()
	j.approve()
	j.setLimit()
	j.removeDead()
	j.removeUnproven()
	j.removeWithinBudget()
	j.describe()
	j.Known = s.Nodes
	return j.Ward, j.ruling
}

// judgement is the state of one judge.
type judgement struct {
	Ward
	Scene
	now    time.Time
	window time.Duration
	ruling Ruling

	left      int  // nodes that left on purpose since the last judgement
	total     int  // nodes that should be in the rotation
	serving   int  // nodes that are in the rotation
	ignored   bool // checks are not believed, but that nobody listens
	strangers bool // that others answer is not believed either
	over      bool // the budget is spent
	limit     int
}

func findNode(nodes []registry.Node, id string) (registry.Node, bool) {
	i, ok := slices.BinarySearchFunc(nodes, id, func(n registry.Node, id string) int { return cmp.Compare(n.ID, id) })
	if !ok {
		return registry.Node{}, false
	}
	return nodes[i], true
}

// findLosses notes who is not registered any more, and forgets those that are back or that were replaced.
func (j *judgement) findLosses() {
	i := 0
	for _, known := range j.Known {
		for i < len(j.Nodes) && j.Nodes[i].ID < known.ID {
			i++
		}
		if i < len(j.Nodes) && j.Nodes[i].ID == known.ID {
			continue
		}
		if _, already := j.Lost[known.ID]; already || j.Failing[known.ID].Out {
			continue // what was taken out by checks was counted then
		}
		j.Lost[known.ID] = Loss{Node: known, Since: j.now, Proof: j.now}
	}
	if len(j.Lost) == 0 {
		return
	}
	at := make(map[string]bool, len(j.Nodes))
	for _, n := range j.Nodes {
		at[n.HostPort()] = true
	}
	for id, l := range j.Lost {
		_, back := findNode(j.Nodes, id)
		switch {
		case back:
			delete(j.Lost, id)
		case j.Left[id] || j.Scene.Idle[id]:
			delete(j.Lost, id)
			j.left++
		case at[l.Node.HostPort()]: // it was started anew under another id
			delete(j.Lost, id)
			j.left++
		default:
			proven := j.believed(id).Proven
			if l.Proof.IsZero() || l.Proven || proven {
				l.Proof = j.now
			}
			l.Proven = proven
			j.Lost[id] = l
		}
	}
}

// believed returns what the checks found about a node; the zero Verdict when nobody checks it.
func (j *judgement) believed(id string) health.Verdict {
	v, _ := j.Verdict(id)
	return v
}

// findFailing notes which registered nodes the checks found unhealthy, and decides whether to believe them.
func (j *judgement) findFailing() {
	asked, bad, strange, refused := 0, 0, 0, 0
	look := func(id string) {
		if j.Scene.Idle[id] {
			return
		}
		asked++
		v := j.believed(id)
		if _, lost := j.Lost[id]; v.Refused && (lost || v.State == health.Unhealthy) {
			refused++
			return
		}
		if v.Stranger {
			strange++
		}
		if v.State == health.Unhealthy {
			bad++
		}
	}
	now := make(map[string]Fail, len(j.Failing))
	for _, n := range j.Nodes {
		look(n.ID)
		if j.believed(n.ID).State == health.Unhealthy && !j.Scene.Idle[n.ID] {
			f, was := j.Failing[n.ID]
			if !was {
				f.Since = j.now
			}
			now[n.ID] = f
		}
	}
	for id := range j.Lost {
		look(id)
	}
	j.Failing = now
	j.strangers = 2*strange > asked
	if asked -= refused; 2*(asked-bad) < asked {
		j.ignored = true
		for id, f := range now {
			if !j.believed(id).Refused {
				now[id] = Fail{Since: f.Since}
			}
		}
	}
}

// count brings the window up to date.
func (j *judgement) count() {
	j.Gone = slices.DeleteFunc(j.Gone, func(d Departure) bool {
		_, back := findNode(j.Nodes, d.ID)
		return j.now.Sub(d.At) >= j.window || back && !j.Failing[d.ID].Out || j.Left[d.ID]
	})
	idle := 0
	for _, n := range j.Nodes {
		switch {
		case j.Scene.Idle[n.ID]:
			idle++
		case j.Failing[n.ID].Out:
			j.total++
		default:
			j.total++
			j.serving++
		}
	}
	j.left += max(idle-j.Ward.Idle, 0)
	j.Ward.Idle = idle
	j.total += len(j.Lost)
	j.serving += len(j.Lost)
	j.lower(j.left)
	for len(j.Peaks) > 0 && j.now.Sub(j.Peaks[0].At) >= j.window {
		j.Peaks = j.Peaks[1:]
	}
	for len(j.Peaks) > 0 && j.Peaks[len(j.Peaks)-1].Nodes <= j.total {
		j.Peaks = j.Peaks[:len(j.Peaks)-1]
	}
	j.Peaks = append(j.Peaks, Peak{j.now, j.total})
}

// lower takes nodes that were meant to go out of the window's count.
func (j *judgement) lower(n int) {
	for i := range j.Peaks {
		j.Peaks[i].Nodes = max(j.Peaks[i].Nodes-n, 0)
	}
}

// setLimit sets how many nodes may go within the window.
func (j *judgement) setLimit() {
	// A single node may go wherever there are others: a small upstream would keep a dead one for ever.
	if share := *j.Spec.Guard.Share; share > 0 {
		j.limit = max(1, j.Peaks[0].Nodes*share/100)
	}
}

// approve lets go of what ops approved.
func (j *judgement) approve() {
	a := j.Approval
	if a == nil {
		return
	}
	all := a.Seq > j.Approved && j.Known != nil || a.Until != nil && j.now.Before(*a.Until)
	j.Approved = max(j.Approved, a.Seq)
	if a.Until != nil && j.now.Before(*a.Until) {
		j.wake(*a.Until)
	}
	approved := func(since time.Time) bool { return all || a.At != nil && !since.After(*a.At) }
	before := j.serving
	for id, l := range j.Lost {
		if approved(l.Since) {
			delete(j.Lost, id)
			j.serving--
		}
	}
	for id, f := range j.Failing {
		if approved(f.Since) && !f.Out {
			j.Failing[id] = Fail{Since: f.Since, Out: true}
			j.serving--
		}
	}
	j.lower(before - j.serving)
}

// drop takes a lost node away.
func (j *judgement) drop(id string) {
	delete(j.Lost, id)
	j.Gone = append(j.Gone, Departure{id, j.now})
	j.serving--
}

// takeOut takes a registered node out of the rotation.
func (j *judgement) takeOut(id string) {
	j.Failing[id] = Fail{Since: j.Failing[id].Since, Out: true}
	j.Gone = append(j.Gone, Departure{id, j.now})
	j.serving--
}

// removeDead takes out whom nobody can reach: nobody listens there, or somebody else does. This needs no budget.
func (j *judgement) removeDead() {
	for _, id := range slices.Sorted(maps.Keys(j.Lost)) {
		if v := j.believed(id); v.Refused || v.Stranger && !j.strangers || !v.Proven && j.Elsewhere(j.Lost[id].Node.HostPort()) {
			j.drop(id)
		}
	}
	for _, id := range slices.Sorted(maps.Keys(j.Failing)) {
		if v := j.believed(id); !j.Failing[id].Out && (v.Refused || v.Stranger && !j.strangers && !j.ignored) {
			j.takeOut(id)
		}
	}
}

// removeUnproven takes out those that are held and not registered, when nothing proves any more that they are there.
func (j *judgement) removeUnproven() {
	for _, id := range slices.Sorted(maps.Keys(j.Lost)) {
		l := j.Lost[id]
		if !l.Held || j.serving <= 1 {
			continue
		}
		v := j.believed(id)
		until := l.Proof.Add(tcpProof)
		switch {
		case v.State == health.Unhealthy && !j.ignored:
			j.drop(id)
		case v.Proven || j.withRegistry(l):
		case !j.now.Before(until):
			j.drop(id)
		default:
			j.wake(until)
		}
	}
}

// withRegistry tells whether a node was lost together with all that the registry held: then it says nothing of the node.
func (j *judgement) withRegistry(l Loss) bool {
	return !j.Emptied.IsZero() && l.Since.Sub(j.Emptied).Abs() <= emptiedSlack
}

// removeWithinBudget lets those go that the budget allows, and holds the others, so that a wave is held as a whole.
func (j *judgement) removeWithinBudget() {
	var lost, failing []string
	held := 0
	for _, id := range slices.Sorted(maps.Keys(j.Lost)) {
		if l := j.Lost[id]; l.Held {
			held++
		} else if j.withRegistry(l) {
			l.Held = true
			j.Lost[id] = l
			held++
		} else {
			lost = append(lost, id)
		}
	}
	for _, id := range slices.Sorted(maps.Keys(j.Failing)) {
		switch f := j.Failing[id]; {
		case f.Out, j.ignored:
		case f.Held:
			held++
		default:
			failing = append(failing, id)
		}
	}
	guarded := *j.Spec.Guard.Enabled
	j.over = guarded && len(j.Gone)+held+len(lost)+len(failing) > j.limit
	// goes tells whether a node may go now.
	goes := func(since time.Time) bool {
		switch {
		case j.over || guarded && j.serving <= 1:
			return false
		case guarded && j.now.Sub(since) < gather:
			j.wake(since.Add(gather))
			return false
		}
		return true
	}
	for _, id := range lost {
		l := j.Lost[id]
		if goes(l.Since) {
			j.drop(id)
		} else if l.Held = j.over || guarded && j.serving <= 1; l.Held {
			j.Lost[id] = l
			if !j.believed(id).Proven && !j.withRegistry(l) {
				j.wake(l.Proof.Add(tcpProof))
			}
		}
	}
	for _, id := range failing {
		f := j.Failing[id]
		if goes(f.Since) {
			j.takeOut(id)
		} else if f.Held = j.over || guarded && j.serving <= 1; f.Held {
			j.Failing[id] = f
		}
	}
}

func (j *judgement) wake(at time.Time) {
	if j.ruling.Next.IsZero() || at.Before(j.ruling.Next) {
		j.ruling.Next = at
	}
}
