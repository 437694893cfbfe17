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
	failureRate  = 1 // of wrong tokens, from one address
	failureBurst = 20

	maxLimited = 10_000 // callers that are remembered
	idle       = time.Minute
)

// limits keep one caller from using up what is there for all.
type limits struct {
	mu      sync.Mutex
	callers map[string]*limited
}

type limited struct {
	requests, beats, failures *rate.Limiter
	seen                      time.Time
}

var (
	errTooMany         = newProblem(http.StatusTooManyRequests, "too many requests of this caller: slow down, and put many changes into one POST /v1/apply")
	errTooManyFailures = newProblem(http.StatusTooManyRequests, "too many wrong tokens came from this address: wait, and look at what sends them")
)

func (l *limits) of(key string) *limited {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now()
	is, ok := l.callers[key]
	if !ok {
		if len(l.callers) >= maxLimited {
			maps.DeleteFunc(l.callers, func(_ string, c *limited) bool { return now.Sub(c.seen) > idle })
		}
		is = &limited{
			requests: rate.NewLimiter(requestRate, requestBurst), beats: rate.NewLimiter(beatRate, beatBurst),
			failures: rate.NewLimiter(failureRate, failureBurst),
		}
		if len(l.callers) < maxLimited {
			l.callers[key] = is
		}
	}
	is.seen = now
	return is
}

// take returns an error when the caller has sent too much.
func (l *limits) take(c caller, beat bool) error {
	key := c.name
	if key == anonymous {
		key += " " + c.remote.String()
	}
	is := l.of(key)
	bucket := is.requests
	if beat {
		bucket = is.beats
	}
	if !bucket.Allow() {
		return errTooMany
	}
	return nil
}

// failed notes a wrong token, and failing says that there were too many.
func (l *limits) failed(remote netip.Addr) { l.of("failures " + remote.String()).failures.Allow() }

func (l *limits) failing(remote netip.Addr) bool {
	return l.of("failures "+remote.String()).failures.Tokens() < 1
}
