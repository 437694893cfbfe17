// Package consul keeps a registry in Consul: the desired state in its keys and values, nodes as services of its catalog,
// those of others (Nomad, registrator, a service definition) included. docs/registry.md describes both.
package consul

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/consul/api"

	"sluice/registry"
	"sluice/registry/keyspace"
)

var _ registry.Registry = (*Registry)(nil)

// timing is how patient a Registry is; tests are less so.
type timing struct {
	call       time.Duration // for one request
	patience   time.Duration // for one request to an agent, where there are others to ask
	list       time.Duration // for a whole list
	pulse      time.Duration // the query of our own keys waits this long: what does not answer then is away
	wait       time.Duration // a query of a service waits this long
	slack      time.Duration // an answer may take this long beyond its wait
	rotation   time.Duration // with more services than may be asked at once, each is asked this often
	pace       time.Duration // two queries of the same are at least this far apart
	newService time.Duration // a service that is new holds a Snapshot up for no longer
	tick       time.Duration // what is old is looked for this often
	retryMin   time.Duration // first wait after a query that failed
	retryMax   time.Duration // it doubles up to this
}

var defaultTiming = timing{
	call:       5 * time.Second,
	patience:   2500 * time.Millisecond,
	list:       30 * time.Second,
	pulse:      10 * time.Second,
	wait:       60 * time.Second,
	slack:      5 * time.Second,
	rotation:   4 * time.Second,
	pace:       100 * time.Millisecond,
	newService: 5 * time.Second,
	tick:       time.Second,
	retryMin:   100 * time.Millisecond,
	retryMax:   5 * time.Second,
}

// Registry is one handle to a fleet's registry. It is safe for concurrent use.
type Registry struct {
	cfg        Config
	keys       keyspace.Keys
	log        *slog.Logger
	timing     timing
	link       registry.Link
	transports [2]*http.Transport // of requests, and of queries that wait
	agents     []clients          // one per address
	turns      turns
	used       atomic.Pointer[[]string] // the services that a Watch of this handle follows
	lifetime   context.Context          // ended by Close
	end        context.CancelFunc

	mu         sync.Mutex
	use        *use      // the agent that is asked
	at         int       // its place among the agents, counted on
	missed     int       // agents that were left since one last answered
	answeredAt time.Time // when one last did, in a way that tells of Consul
}

// New returns a Registry. It does not wait for Consul: when that is away, Health says so, calls fail, and Watch keeps
// trying. Errors are about cfg: a file that can't be read, an address that is none.
func New(ctx context.Context, cfg Config) (*Registry, error) {
	return newRegistry(ctx, cfg, defaultTiming, maxBlocking)
}

func newRegistry(ctx context.Context, cfg Config, t timing, blocking int) (*Registry, error) {
	cfg = cfg.withDefaults()
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("consul: %w", err)
	}
	r := &Registry{cfg: cfg, keys: keyspace.New("sluice/" + cfg.Fleet + "/"), log: cfg.Logger.With("registry", "consul"), timing: t}
	for i, conns := range []int{maxRequests, maxBlocking} {
		transport, err := cfg.newTransport(conns)
		if err != nil {
			return nil, fmt.Errorf("consul: %w", err)
		}
		r.transports[i] = transport
	}
	for _, address := range cfg.Addresses {
		asking, err := cfg.newClient(address, r.transports[0])
		if err != nil {
			return nil, fmt.Errorf("consul: %s: %w", address, err)
		}
		waiting, err := cfg.newClient(address, r.transports[1])
		if err != nil {
			return nil, fmt.Errorf("consul: %s: %w", address, err)
		}
		r.agents = append(r.agents, clients{asking: asking, waiting: waiting})
	}
	r.link.Start("no answer from " + strings.Join(cfg.Addresses, ", ") + " yet")
	r.turns.init(blocking - 1) // one is for our own keys
	r.lifetime, r.end = context.WithCancel(context.WithoutCancel(ctx))
	r.use = r.newUse(0)
	return r, nil
}

// Close ends all that the Registry does. A Watch that still runs returns.
func (r *Registry) Close() error {
	r.end()
	for _, t := range r.transports {
		t.CloseIdleConnections()
	}
	return nil
}

// MinTTL returns 2 s, as etcd has it. What is held under a session (Hold) lives for at least 10 s.
func (r *Registry) MinTTL() time.Duration { return 2 * time.Second }

// Health tells whether Consul answers.
func (r *Registry) Health() registry.Health { return r.link.Health() }

// note keeps in Health what the outcome of a request says about the connection. Consul is away when none of the agents
// answers: not when one request is slow while others, which began later, are answered.
func (r *Registry) note(began time.Time, err error) {
	r.mu.Lock()
	if err == nil {
		r.answeredAt = time.Now()
	}
	news := r.answeredAt.Before(began)
	r.mu.Unlock()
	switch {
	case r.lifetime.Err() != nil:
	case err == nil:
		if r.link.Up() {
			r.log.Info("consul answers", "addresses", r.cfg.Addresses)
		}
	case away(err) && r.allLeft() && news:
		if r.link.Down(err.Error()) {
			r.log.Warn("consul does not answer: what is known stands, and it is tried again", "addresses", r.cfg.Addresses, "error", err)
		}
	}
}

// refused notes that Consul does not let us read what nothing goes without.
func (r *Registry) refused(err error) {
	if r.link.Down(err.Error()) {
		r.log.Warn("consul does not let sluice read its own keys: what is known stands, and it is tried again", "error", err)
	}
}

// linearizable reads what every write that has returned wrote.
func linearizable(ctx context.Context) *api.QueryOptions {
	return (&api.QueryOptions{RequireConsistent: true}).WithContext(ctx)
}

func writing(ctx context.Context) *api.WriteOptions { return new(api.WriteOptions).WithContext(ctx) }
