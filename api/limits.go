package api

import (
	"maps"
	"net/http"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// Rates of one caller. Beats are many by nature: 5,000 nodes that start at once behind one token are no attack.
const (
	requestRate  = 200 // a second
	requestBurst = 400
	beatRate     = 2000
	beatBurst    = 10_000
	failureRate  = 1 // of wrong tokens, from one network
	failureBurst = 20
	denialRate   = 1 // of lines of the audit log about what was denied to one caller
	denialBurst  = 50

	maxLimited = 10_000 // callers, and networks, that are remembered
	idle       = time.Minute
)

// limits keep one caller from using up what is there for all. Strangers and callers are remembered apart: however many
// strangers there are, they take no caller's place.
type limits struct {
	callers   table[callerLimits]
	strangers table[strangerLimits]
}

type callerLimits struct {
	requests, beats *rate.Limiter
	denials         *denials
}

type strangerLimits struct {
	failures *rate.Limiter
	denials  *denials
}

func newLimits() *limits {
	return &limits{
		callers: newTable(func() callerLimits {
			return callerLimits{rate.NewLimiter(requestRate, requestBurst), rate.NewLimiter(beatRate, beatBurst), newDenials()}
		}),
		strangers: newTable(func() strangerLimits {
			return strangerLimits{rate.NewLimiter(failureRate, failureBurst), newDenials()}
		}),
	}
}

var (
	errTooMany         = newProblem(http.StatusTooManyRequests, "too many requests of this caller: slow down, and put many changes into one POST /v1/apply")
	errTooManyFailures = newProblem(http.StatusTooManyRequests, "too many wrong tokens came from this address: wait, and look at what sends them")
)

// take returns an error when the caller has sent too much.
func (l *limits) take(c caller, beat bool) error {
	key := c.name
	if key == anonymous {
		key += " " + network(c.remote)
	}
	is := l.callers.of(key)
	bucket := is.requests
	if beat {
		bucket = is.beats
	}
	if !bucket.Allow() {
		return errTooMany
	}
	return nil
}

// failed notes a wrong token, and says whether there were too many.
func (l *limits) failed(remote netip.Addr) (tooMany bool) {
	return !l.strangers.of(network(remote)).failures.Allow()
}

// failing says whether there were too many wrong tokens.
func (l *limits) failing(remote netip.Addr) bool {
	return l.strangers.of(network(remote)).failures.Tokens() < 1
}

// denied says whether a line about what was denied is written, and how many before it were not.
func (l *limits) denied(c caller) (omitted int, write bool) {
	if c.role == "" {
		return l.strangers.of(network(c.remote)).denials.take()
	}
	return l.callers.of(c.name).denials.take()
}

// network is what one stranger has of addresses: of IPv6, everybody has 2^64.
func network(addr netip.Addr) string {
	if !addr.Is6() {
		return addr.String()
	}
	prefix, _ := addr.Prefix(64) // never fails: an IPv6 address has as many bits
	return prefix.String()
}

// denials keep what is denied over and over from filling the disk.
type denials struct {
	lines *rate.Limiter

	mu      sync.Mutex
	omitted int
}

func newDenials() *denials { return &denials{lines: rate.NewLimiter(denialRate, denialBurst)} }

func (d *denials) take() (omitted int, write bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.lines.Allow() {
		d.omitted++
		return 0, false
	}
	omitted, d.omitted = d.omitted, 0
	return omitted, true
}

// table remembers something of each key, for as long as the key is used.
type table[T any] struct {
	empty func() T

	mu     sync.Mutex
	known  map[string]*remembered[T]
	others T // of all those for whom there is no room
	swept  time.Time
}

type remembered[T any] struct {
	is   T
	seen time.Time
}

func newTable[T any](empty func() T) table[T] {
	return table[T]{empty: empty, known: map[string]*remembered[T]{}, others: empty()}
}

func (t *table[T]) of(key string) T {
	t.mu.Lock()
	defer t.mu.Unlock()
	now := time.Now()
	r, ok := t.known[key]
	if !ok {
		if len(t.known) >= maxLimited && now.Sub(t.swept) > time.Second {
			t.swept = now
			maps.DeleteFunc(t.known, func(_ string, r *remembered[T]) bool { return now.Sub(r.seen) > idle })
		}
		if len(t.known) >= maxLimited {
			return t.others
		}
		r = &remembered[T]{is: t.empty()}
		t.known[key] = r
	}
	r.seen = now
	return r.is
}
