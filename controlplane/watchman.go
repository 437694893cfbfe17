package controlplane

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"time"

	"github.com/google/renameio/v2"

	"sluice/controlplane/health"
	"sluice/controlplane/spec"
	"sluice/registry"
)

// Checker checks nodes. A nil one checks none: then the guard believes that all of them answer.
type Checker interface {
	// Set replaces the targets; the caller does not change list any more.
	Set(list []health.Target)
	// Verdicts returns what is known of each target. Nobody changes the map.
	Verdicts() map[health.Key]health.Verdict
	// Changed gets a value when a Verdict means something else than before.
	Changed() <-chan struct{}
}

// watchman is what the loop knows of nodes beyond their registrations.
type watchman struct {
	desire
	wards      Wards
	specs      map[string]upstreamSpec // of the upstreams, as they were last valid
	electorate *electorate
	told       []peer    // the findings of the other gateways
	met        bool      // they were read once, or did not come in time
	again      time.Time // when the guard wants to judge, whatever happens; zero never
	aimed      int       // room for the next targets
	saved      memory    // what the disk holds, or what is on its way there
	puttingOut error     // why what the registry lost could not be put back
	putting    bool
	putNext    time.Time
}

type upstreamSpec struct {
	seq registry.Seq
	spec.Upstream
}

// memory is what the guard must not forget when sluice is killed.
type memory struct {
	Version int       `json:"version"`
	Emptied time.Time `json:"emptied,omitzero"`
	Wards   Wards     `json:"wards"`
}

const memoryVersion = 1

// guardPath is where the guard's memory is, beside the last good state.
func guardPath(lastGood string) string { return filepath.Join(filepath.Dir(lastGood), "guard.json") }

func loadMemory(path string) (memory, error) {
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return memory{}, nil
	}
	if err != nil {
		return memory{}, fmt.Errorf("read what the guard remembers: %w", err)
	}
	var m memory
	if err := json.Unmarshal(data, &m); err != nil {
		return memory{}, fmt.Errorf("read what the guard remembers in %s: %w", path, err)
	}
	if m.Version != memoryVersion {
		return memory{}, fmt.Errorf("read what the guard remembers in %s: its format is %d, this version reads %d", path, m.Version, memoryVersion)
	}
	return m, nil
}

func (m memory) save(path string) error {
	m.Version = memoryVersion
	data, err := json.Marshal(m)
	if err != nil {
		return fmt.Errorf("save what the guard remembers: %w", err)
	}
	if err := renameio.WriteFile(path, data, 0o600, renameio.WithTempDir(filepath.Dir(path))); err != nil {
		return fmt.Errorf("save what the guard remembers: %w", err)
	}
	return nil
}

// same tells whether the disk need not be written: the peaks move all the time, and are only bounds.
func (m memory) same(o memory) bool {
	if !m.Emptied.Equal(o.Emptied) || len(m.Wards) != len(o.Wards) {
		return false
	}
	for name, w := range m.Wards {
		v, ok := o.Wards[name]
		if !ok || w.Service != v.Service || w.Approved != v.Approved || !maps.EqualFunc(w.Lost, v.Lost, sameLoss) ||
			!reflect.DeepEqual(w.Failing, v.Failing) || !slices.Equal(w.Gone, v.Gone) {
			return false
		}
	}
	return true
}

// sameLoss tells whether two losses are the same on the disk.
func sameLoss(a, b Loss) bool {
	return a.Held == b.Held && a.Since.Equal(b.Since) && reflect.DeepEqual(a.Node, b.Node)
}

// saveMemory writes what comes, at most once a second.
func (c *Controller) saveMemory(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case m := <-c.memories:
			if err := m.save(guardPath(c.LastGoodPath)); err != nil {
				c.Log.Error("a restart would not know whom the guard holds", "error", err)
			}
		}
		pause := time.NewTimer(reportMin)
		select {
		case <-ctx.Done():
			pause.Stop()
			return ctx.Err()
		case <-pause.C:
		}
	}
}

// newWatchman starts from what the disk holds.
func (c *Controller) newWatchman() watchman {
	w := watchman{electorate: newElectorate(c.Gateway, nil), specs: map[string]upstreamSpec{}}
	m, err := loadMemory(guardPath(c.LastGoodPath))
	if err != nil {
		c.Log.Warn("the guard starts without a memory", "error", err)
	}
	w.saved, w.emptied = m, m.Emptied
	w.wards = maps.Clone(m.Wards)
	if w.wards == nil {
		w.wards = Wards{}
	}
	if c.loaded == nil {
		return w
	}
	w.raw, w.slots = c.loaded.Snapshot, c.loaded.Snapshot.Slots
	for name, u := range w.upstreams(c.loaded.Snapshot) {
		ward := w.wards[name]
		if service := UpstreamService(u); ward.Service != service {
			ward = Ward{Service: service, Approved: ward.Approved}
		}
		for _, n := range serviceNodes(c.loaded.Snapshot.Nodes, ward.Service) {
			if Selects(u, n) {
				ward.Known = append(ward.Known, n)
			}
		}
		w.wards[name] = ward
	}
	return w
}

// upstreams returns the upstreams of s; one that is not valid now as it last was.
func (w *watchman) upstreams(s registry.Snapshot) map[string]spec.Upstream {
	all := map[string]spec.Upstream{}
	specs := make(map[string]upstreamSpec, len(w.specs))
	for _, o := range s.Objects {
		if o.Kind != registry.KindUpstream {
			continue
		}
		u, known := w.specs[o.Name]
		if !known || u.seq != o.Seq {
			value, faults := read[spec.Upstream](o)
			if len(faults) == 0 {
				u, known = upstreamSpec{o.Seq, value.WithDefaults(o.Name)}, true
			}
		}
		if known {
			specs[o.Name], all[o.Name] = u, u.Upstream
		}
	}
	w.specs = specs
	return all
}

// meet takes the findings of the other gateways. The first ones tell a gateway that has just started whom it must hold.
func (l *loop) meet(told []peer) {
	first := !l.met
	l.met, l.told, l.electorate = true, told, newElectorate(l.Gateway, told)
	if first {
		wards := maps.Clone(l.wards)
		for _, p := range told {
			for _, h := range p.findings.Held {
				w := wards[h.Upstream]
				if w.Service == "" {
					w.Service = h.Node.Service
				}
				if _, known := w.Lost[h.Node.ID]; known || w.Service != h.Node.Service {
					continue
				}
				if w.Lost = maps.Clone(w.Lost); w.Lost == nil {
					w.Lost = map[string]Loss{}
				}
				w.Lost[h.Node.ID] = Loss{Node: h.Node, Since: h.Since, Held: true}
				wards[h.Upstream] = w
			}
		}
		l.wards = wards
	}
	if !first && l.have { // what came before waited for this
		l.change()
	}
}

// judge has the guard look at the nodes, and returns what becomes of them.
func (l *loop) judge(s registry.Snapshot, now time.Time) map[string]Ruling {
	var verdicts map[health.Key]health.Verdict
	if l.Checker != nil {
		verdicts = l.Checker.Verdicts()
	}
	before := l.wards
	e := Evidence{Emptied: l.emptied, Verdict: func(k health.Key) (health.Verdict, bool) {
		own, ok := verdicts[k]
		if _, lost := before[k.Upstream].Lost[k.ID]; lost {
			return own, ok // each gateway decides by what itself sees: it is a matter of seconds
		}
		return l.electorate.verdict(k, own, ok)
	}}
	j := Judge(l.wards, s, l.upstreams(s), e, now)
	l.wards, l.again = j.Wards, j.Next
	if m := (memory{Emptied: l.emptied, Wards: l.wards}); !m.same(l.saved) {
		l.saved = m
		select {
		case <-l.memories: // an older one that was not taken yet
		default:
		}
		l.memories <- m
	}
	return j.Rulings
}

// aim tells the Checker whom to check: of the upstreams that are served, the nodes that fall to this gateway, and all
// whose registration is missing, in a hurry.
func (l *loop) aim(p Compiled, rulings map[string]Ruling) {
	if l.Checker == nil {
		return
	}
	targets := make([]health.Target, 0, l.aimed) // most changes leave nearly all of them
	for _, u := range p.Upstreams {              // sorted by name, as their nodes are by id
		check := l.specs[u.Name].Check
		for _, n := range rulings[u.Name].Nodes {
			t := health.Target{Upstream: u.Name, Node: n, Check: *check, Urgent: rulings[u.Name].Kept[n.ID]}
			switch {
			case !t.Urgent && !l.electorate.mine(t.Key()):
				continue
			case t.Urgent && check.Type == spec.CheckNone:
				t.Check = anyCheck
			}
			targets = append(targets, t)
		}
	}
	l.aimed = len(targets) + len(targets)/16
	l.Checker.Set(targets)
}

// anyCheck tells of a node whose registration is missing whether anybody is there, when ops want no checks.
var anyCheck = *spec.Upstream{}.WithDefaults("any").Check

// findings are what the others should know.
func (l *loop) findings() *Findings {
	if l.Checker == nil {
		return nil
	}
	f := &Findings{}
	for k, v := range l.Checker.Verdicts() {
		if _, lost := l.wards[k.Upstream].Lost[k.ID]; v.State == health.Unhealthy && !lost {
			f.Failing = append(f.Failing, FailingNode{k.Upstream, k.ID, v.Refused, v.Stranger, v.Flapping})
		}
	}
	for name, w := range l.wards {
		for _, loss := range w.Lost {
			if loss.Held {
				f.Held = append(f.Held, HeldNode{name, loss.Since, loss.Node})
			}
		}
	}
	slices.SortFunc(f.Failing, func(a, b FailingNode) int {
		return compareRefs(registry.Ref{Kind: registry.Kind(a.Upstream), Name: a.ID}, registry.Ref{Kind: registry.Kind(b.Upstream), Name: b.ID})
	})
	slices.SortFunc(f.Held, func(a, b HeldNode) int {
		return compareRefs(registry.Ref{Kind: registry.Kind(a.Upstream), Name: a.Node.ID}, registry.Ref{Kind: registry.Kind(b.Upstream), Name: b.Node.ID})
	})
	f.Failing, f.Held = f.Failing[:min(len(f.Failing), maxTold)], f.Held[:min(len(f.Held), maxTold)]
	return f
}

// restore starts to put back what an empty registry lost, when this gateway saw it there.
func (l *loop) restore(ctx context.Context) {
	switch {
	case len(l.kept) == 0 || !l.empty():
		l.puttingOut, l.putNext = nil, time.Time{}
		return
	case l.putting || !l.back || l.stale:
		return
	case time.Now().Before(l.putNext):
		l.until(l.putNext)
		return
	}
	var objects []registry.Object
	for _, o := range l.kept {
		objects = append(objects, o)
	}
	slices.SortFunc(objects, func(a, b registry.Object) int { return compareRefs(a.Ref(), b.Ref()) })
	l.putting = true
	slots := l.slots
	go func() { l.put <- l.putBack(ctx, objects, slots) }()
}

// restored notes how putting back ended. When it worked, the watch brings what was put back.
func (l *loop) restored(err error) {
	l.putting, l.putNext = false, time.Now().Add(retryMin)
	if errors.Is(err, errNotEmpty) {
		err = nil // another gateway was faster
	}
	l.puttingOut = err
	if err != nil {
		l.Log.Error("the registry is empty, and what was there could not be put back; it is tried again", "error", err)
	}
}
