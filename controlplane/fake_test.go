package controlplane

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"sluice/controlplane/health"
	"sluice/registry"
	"sluice/templates"
)

// fakeRegistry sends what a test gives it and notes what it is told.
type fakeRegistry struct {
	mu      sync.Mutex
	send    chan registry.Snapshot
	health  registry.Health
	slots   []registry.SlotTable
	slotErr error
	reports []Status
	lists   map[registry.Kind][]registry.Object // what List answers
	seq     registry.Seq
	listErr error
	commits []registry.Tx

	rollouts map[registry.Seq]registry.Rollout
	tidied   []time.Time // what TidyHistory was called with
	untidy   int         // how often there is more
}

func (r *fakeRegistry) Watch(ctx context.Context, _ func(registry.Object) []string, out chan<- registry.Snapshot) error {
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case s := <-r.send:
			select {
			case out <- s:
			case <-ctx.Done():
				return ctx.Err()
			}
		}
	}
}

func (r *fakeRegistry) Health() registry.Health { return r.health }

func (r *fakeRegistry) PutSlots(_ context.Context, t registry.SlotTable) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	t.Version++
	r.slots = append(r.slots, t)
	return r.slotErr
}

func (r *fakeRegistry) ListSlots(context.Context) ([]registry.SlotTable, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.slots, nil
}

func (r *fakeRegistry) List(_ context.Context, kind registry.Kind, _ string, _ int) (registry.Page, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return registry.Page{Objects: r.lists[kind], Seq: r.seq}, r.listErr
}

func (r *fakeRegistry) Commit(_ context.Context, tx registry.Tx) (registry.Committed, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.commits = append(r.commits, tx)
	return registry.Committed{Seq: r.seq + 1}, nil
}

func (r *fakeRegistry) TidyHistory(_ context.Context, before time.Time) (bool, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.tidied = append(r.tidied, before)
	r.untidy--
	return r.untidy >= 0, r.listErr
}

func (r *fakeRegistry) Get(_ context.Context, ref registry.Ref) (registry.Object, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, o := range r.lists[ref.Kind] {
		if o.Name == ref.Name {
			return o, nil
		}
	}
	return registry.Object{}, registry.ErrNotFound
}

func (r *fakeRegistry) UpdateRollout(_ context.Context, seq registry.Seq, change func(*registry.Rollout) error) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	rollout, ok := r.rollouts[seq]
	if !ok {
		return registry.ErrNotFound
	}
	err := change(&rollout)
	if err == nil {
		r.rollouts[seq] = rollout
	}
	return err
}

func (r *fakeRegistry) DropRollout(_ context.Context, seq registry.Seq) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.rollouts, seq)
	return nil
}

// set changes what the registry answers.
func (r *fakeRegistry) set(change func(*fakeRegistry)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	change(r)
}

func (r *fakeRegistry) stored() []registry.SlotTable {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.slots)
}

func (r *fakeRegistry) reported() []Status {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.reports)
}

func (r *fakeRegistry) Hold(_ context.Context, o registry.Object, _ time.Duration) error {
	var s Status
	if err := json.Unmarshal(o.Value, &s); err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.reports = append(r.reports, s)
	return nil
}

// fakeApplier takes or refuses bundles, each after took.
type fakeApplier struct {
	mu      sync.Mutex
	took    time.Duration
	due     time.Time
	err     error                   // refuses everything while it is set
	judge   func(conf string) error // refuses by what is written, when it is set
	live    string
	conf    string // that is live: the fake renderer writes everything into the first file
	applied []attempt
	tried   int
	open    Connections
}

type attempt struct {
	revision string
	at       time.Time
}

var errRefused = errors.New(`nginx: [emerg] unknown directive "bogus" in http/site-chat.conf:3`)

func (a *fakeApplier) Apply(ctx context.Context, b templates.Bundle) (Applied, error) {
	select {
	case <-time.After(a.took):
	case <-ctx.Done():
		return Applied{}, ctx.Err()
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.applied = append(a.applied, attempt{b.Revision, time.Now()})
	if a.err != nil {
		return Applied{}, a.err
	}
	if a.judge != nil {
		if err := a.judge(string(b.Files[0].Data)); err != nil {
			return Applied{}, err
		}
	}
	if a.live == b.Revision {
		return Applied{Revision: b.Revision, How: Nothing}, nil
	}
	a.live, a.conf = b.Revision, string(b.Files[0].Data)
	return Applied{Revision: b.Revision, How: Reload, Took: a.took}, nil
}

func (a *fakeApplier) Try(_ context.Context, b templates.Bundle) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.tried++
	if a.judge != nil {
		return a.judge(string(b.Files[0].Data))
	}
	return a.err
}

func (a *fakeApplier) Due(leaves bool) (time.Time, string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if leaves {
		return time.Time{}, ""
	}
	return a.due, "3 old generations of workers live"
}

// set changes the applier between two applies.
func (a *fakeApplier) set(change func(*fakeApplier)) {
	a.mu.Lock()
	defer a.mu.Unlock()
	change(a)
}

func (a *fakeApplier) Live(context.Context) Live {
	a.mu.Lock()
	defer a.mu.Unlock()
	return Live{Running: true, Connections: a.open}
}

// fakeRenderer writes the Config as JSON: equal ones have equal revisions.
type fakeRenderer struct {
	mu    sync.Mutex
	took  time.Duration
	made  int // how often it rendered
	print string
	err   error
	judge func(templates.Config) error // refuses by what is to be rendered, when it is set
}

func (r *fakeRenderer) Render(cfg templates.Config) (templates.Bundle, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.made++
	time.Sleep(r.took)
	if r.err != nil {
		return templates.Bundle{}, r.err
	}
	if r.judge != nil {
		if err := r.judge(cfg); err != nil {
			return templates.Bundle{}, err
		}
	}
	data, err := json.Marshal(struct {
		Config templates.Config
		Print  string
	}{cfg, r.print})
	sum := sha256.Sum256(data)
	return templates.Bundle{
		Files:    []templates.File{{Path: "nginx.conf", Data: data, Mode: 0o644}},
		Revision: hex.EncodeToString(sum[:]),
	}, err
}

func (r *fakeRenderer) Fingerprint() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.print
}

// rig is a Controller with fakes around it, in a synctest bubble.
type rig struct {
	*Controller
	t        *testing.T
	registry *fakeRegistry
	applier  *fakeApplier
	renderer *fakeRenderer
	checker  *fakeChecker
	wake     chan struct{}
	stop     func()
}

func newRig(t *testing.T, lastGood string, prepare ...func(*rig)) *rig {
	t.Helper()
	r := &rig{
		t:        t,
		registry: &fakeRegistry{send: make(chan registry.Snapshot)},
		applier:  &fakeApplier{took: 50 * time.Millisecond},
		renderer: &fakeRenderer{},
		checker:  &fakeChecker{verdicts: map[string]health.Verdict{}, changed: make(chan struct{}, 1)},
		wake:     make(chan struct{}, 1),
	}
	if lastGood == "" {
		lastGood = filepath.Join(t.TempDir(), "last-good.json")
	}
	for _, p := range prepare {
		p(r)
	}
	r.Controller = New(Options{
		Gateway: "edge-1", Group: "default", Version: "test", LastGoodPath: lastGood,
		Registry: r.registry, Applier: r.applier, Renderer: r.renderer, Checker: r.checker, Wake: r.wake,
		Facts: func() Facts { return testFacts },
		Log:   slog.New(slog.DiscardHandler),
	})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- r.Run(ctx) }()
	r.stop = func() {
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("Run returned %v", err)
		}
	}
	return r
}

// send hands a Snapshot over and waits until the controller has dealt with it.
func (r *rig) send(s registry.Snapshot) {
	r.registry.send <- s
	synctest.Wait()
}

func (r *rig) phase(want Phase) Status {
	r.t.Helper()
	s := r.Status(r.t.Context())
	if s.Phase != want {
		r.t.Fatalf("phase is %s, want %s: %+v", s.Phase, want, s)
	}
	return s
}

func (r *rig) attempts() []attempt {
	r.applier.mu.Lock()
	defer r.applier.mu.Unlock()
	return slices.Clone(r.applier.applied)
}

var testFacts = Facts{
	Group: "default",
	Rendering: Rendering{
		AccessLog:    "logs/access.log",
		Capabilities: templates.Capabilities{Version: "1.22.1", Realip: true, SSL: true, HTTP2: true, RejectHandshake: true},
	},
}

// world builds Snapshots.
type world struct {
	snapshot registry.Snapshot
}

func newWorld() *world {
	w := &world{}
	w.put(registry.KindUpstream, "io", `{"balance": {"method": "least_conn"}}`)
	w.put(registry.KindSite, "chat", `{"hosts": ["*"], "listeners": [{"port": 8080}], "routes": [{"upstream": "io"}]}`)
	return w
}

func (w *world) put(kind registry.Kind, name, value string) *world {
	w.snapshot.Seq++
	objects := []registry.Object{}
	for _, o := range w.snapshot.Objects {
		if o.Kind != kind || o.Name != name {
			objects = append(objects, o)
		}
	}
	if value != "" {
		objects = append(objects, registry.Object{Kind: kind, Name: name, Seq: w.snapshot.Seq, Value: json.RawMessage(value)})
	}
	w.snapshot.Objects = objects
	return w
}

// nodes sets the number of nodes of the service io.
func (w *world) nodes(n int) *world {
	w.snapshot.Nodes = nil
	for i := range n {
		w.snapshot.Nodes = append(w.snapshot.Nodes, registry.Node{
			Service: "io", ID: fmt.Sprintf("n%03d", i), Address: fmt.Sprintf("10.0.0.%d", i+1), Port: 6001,
		})
	}
	return w
}

// leave takes nodes of the service io away on purpose.
func (w *world) leave(ids ...string) *world {
	w.snapshot.Nodes = slices.DeleteFunc(slices.Clone(w.snapshot.Nodes), func(n registry.Node) bool { return slices.Contains(ids, n.ID) })
	for _, id := range ids {
		w.snapshot.Tombstones = append(w.snapshot.Tombstones, registry.Tombstone{NodeRef: registry.NodeRef{Service: "io", ID: id}})
	}
	return w
}
