package health

import (
	"log/slog"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"time"

	"sluice/controlplane/spec"
	"sluice/registry"
)

const (
	urgentInterval = time.Second
	jitter         = 0.2
	// spread is how much later each further new target gets its first check: a single one is checked at once, and those of
	// a whole fleet come over the length of their interval.
	spread = 2 * time.Millisecond
	// viewAge is how old the Last of a Verdict may be.
	viewAge = time.Second
)

// Options are a Checker's settings.
type Options struct {
	Log *slog.Logger
}

// Checker checks targets. All of its methods may be called from any goroutine.
type Checker struct {
	log      *slog.Logger
	prober   func(Target) prober
	inFlight int // the most checks at a time
	changed  chan struct{}
	wake     chan struct{}

	mu       sync.Mutex
	targets  []*target // sorted by key
	queue    queue
	running  int
	expected time.Time // when the loop of Run wants to be awake; zero when it does not mind
	stalls   stalls
	atFault  time.Time       // when it was last logged that this machine is at fault
	view     map[Key]Verdict // what Verdicts returned last; nil when something changed since
	viewed   time.Time
}

// New returns a Checker. It checks nothing before Run.
func New(o Options) *Checker {
	return &Checker{
		log: o.Log, prober: newProber, inFlight: maxInFlight(),
		changed: make(chan struct{}, 1), wake: make(chan struct{}, 1),
	}
}

// target is a Target with what is known of it, guarded by the Checker's mu.
type target struct {
	Target
	record
	prober   prober
	version  int // of its check: what an older one found does not count
	interval time.Duration
	timeout  time.Duration
	due      time.Time
	at       int // its place in the queue; -1 while it is being checked
	gone     bool
}

// compare orders targets by their keys. Targets are large, and a fleet has thousands: they are not copied here and below.
func compare(a, b *Target) int {
	if a.Upstream != b.Upstream {
		return strings.Compare(a.Upstream, b.Upstream)
	}
	return strings.Compare(a.Node.ID, b.Node.ID)
}

func sorted(list []Target) bool {
	for i := 1; i < len(list); i++ {
		if compare(&list[i-1], &list[i]) > 0 {
			return false
		}
	}
	return true
}

// Set replaces the targets: list is all that is to be checked. What is known of a target stays when its node is the same
// process at the same address; another process begins as Unknown. The Checker does not change list, and nobody may
// after the call. It is cheap when list is sorted by key and little in it changed.
func (c *Checker) Set(list []Target) {
	if !sorted(list) {
		list = slices.Clone(list)
		slices.SortFunc(list, func(a, b Target) int { return compare(&a, &b) })
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	now := time.Now()
	old := c.targets
	next := make([]*target, 0, len(list))
	fresh := 0
	changed := false
	for i := range list {
		t := &list[i]
		if t.Check.Type == spec.CheckNone || i > 0 && compare(t, &list[i-1]) == 0 {
			continue
		}
		for len(old) > 0 && compare(&old[0].Target, t) < 0 {
			c.drop(old[0])
			old, changed = old[1:], true
		}
		var known *target
		if len(old) > 0 && compare(&old[0].Target, t) == 0 {
			known, old = old[0], old[1:]
		}
		if known != nil && sameProcess(&known.Node, &t.Node) {
			c.update(known, t, now)
			next = append(next, known)
			continue
		}
		first := &target{Target: *t, record: record{verdict: Verdict{State: Unknown, Since: now}}}
		if known != nil { // a process that is started again and again flaps too
			c.drop(known)
			first.falls = known.falls
		}
		c.configure(first)
		if !t.Urgent {
			first.due = now.Add(min(time.Duration(fresh)*spread, time.Duration(rand.Float64()*float64(first.interval))))
			fresh++
		}
		c.queue.push(first)
		next, changed = append(next, first), true
	}
	for _, t := range old {
		c.drop(t)
		changed = true
	}
	c.targets = next
	if changed {
		c.view = nil
		c.rouse()
	}
}

// sameProcess says whether what is known of a holds for b, which has the same id.
func sameProcess(a, b *registry.Node) bool {
	return a.Port == b.Port && a.Address == b.Address && a.Incarnation == b.Incarnation && a.Service == b.Service
}

func (c *Checker) drop(t *target) {
	t.gone = true
	if t.at >= 0 {
		c.queue.remove(t)
	}
}

// update takes over what changed about a known target. The state stays until the new check says otherwise.
func (c *Checker) update(t *target, to *Target, now time.Time) {
	other, hurry := !sameCheck(&t.Check, &to.Check), to.Urgent && !t.Urgent
	if !other && to.Urgent == t.Urgent {
		return
	}
	t.Check, t.Urgent = to.Check, to.Urgent
	if other {
		t.good, t.bad = 0, 0
		c.configure(t)
	}
	if (hurry || other) && t.at >= 0 {
		t.due = now
		c.queue.fix(t)
		c.rouse()
	}
}

// configure makes t ready for its Check.
func (c *Checker) configure(t *target) {
	t.interval, t.timeout = time.Duration(*t.Check.Interval), time.Duration(*t.Check.Timeout)
	t.fall, t.rise = *t.Check.Fall, *t.Check.Rise
	t.prober = c.prober(t.Target)
	t.version++
}

func sameCheck(a, b *spec.Check) bool {
	return a.Type == b.Type && same(a.Interval, b.Interval) && same(a.Timeout, b.Timeout) && same(a.Fall, b.Fall) && same(a.Rise, b.Rise) &&
		a.Path == b.Path && a.Host == b.Host && slices.Equal(a.Codes, b.Codes) && sameTLS(a.TLS, b.TLS) && same(a.Identity, b.Identity)
}

func sameTLS(a, b *spec.CheckTLS) bool {
	return a == b || a != nil && b != nil && a.ServerName == b.ServerName && same(a.Verify, b.Verify)
}

func same[T comparable](a, b *T) bool { return a == b || a != nil && b != nil && *a == *b }

// Verdicts returns what is known of each target that is set. The map is shared and never changed: nobody may write to
// it. It is up to date but for Last, which may be a second behind.
func (c *Checker) Verdicts() map[Key]Verdict {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := time.Now()
	if c.view == nil || now.Sub(c.viewed) > viewAge {
		view := make(map[Key]Verdict, len(c.targets))
		for _, t := range c.targets {
			view[t.Key()] = t.verdict
		}
		c.view, c.viewed = view, now
	}
	return c.view
}

// Changed returns a channel of capacity one that gets a value when a Verdict changed in more than its times and reason,
// since the value before was taken.
func (c *Checker) Changed() <-chan struct{} { return c.changed }
