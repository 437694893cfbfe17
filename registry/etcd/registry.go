// Package etcd keeps a registry in etcd: in a cluster of its own, or in a server that is embedded (StartEmbedded).
// docs/registry.md describes the keys and values.
package etcd

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"sluice/registry"
	"sluice/registry/keyspace"
)

var _ registry.Registry = (*Registry)(nil)

// timing is how patient a Registry is; tests are less so.
type timing struct {
	call      time.Duration // for one request
	patience  time.Duration // for one request to a member, where there are others to ask
	list      time.Duration // for a whole list
	progress  time.Duration // a watch is asked for a sign of life this often
	silence   time.Duration // and is given up after this
	reconcile time.Duration // everything is listed again this often, ± 20 %
	alarms    time.Duration // etcd is asked for its alarms this often
	retryMin  time.Duration // first wait after a watch or a list that failed
	retryMax  time.Duration // it doubles up to this
}

var defaultTiming = timing{
	call:      5 * time.Second,
	patience:  2500 * time.Millisecond,
	list:      30 * time.Second,
	progress:  5 * time.Second,
	silence:   15 * time.Second,
	reconcile: 5 * time.Minute,
	alarms:    time.Minute,
	retryMin:  100 * time.Millisecond,
	retryMax:  5 * time.Second,
}

// Registry is one handle to a fleet's registry. It is safe for concurrent use.
type Registry struct {
	cfg      Config
	keys     keyspace.Keys
	log      *slog.Logger
	timing   timing
	health   registry.Link
	lifetime context.Context // of the client; ended by Close
	end      context.CancelFunc
	alarmed  chan struct{} // capacity 1: a write met the NOSPACE alarm

	mu     sync.Mutex
	at     int              // the endpoint in use
	client *clientv3.Client // nil until it is needed, and etcd took our password
	drop   context.CancelFunc
	left   int // endpoints that were left since one last answered
}

// New returns a Registry. It does not wait for etcd (only with a password, and then 5 s at most): when etcd is away,
// Health says so, calls fail, and Watch keeps trying. ctx is only for New itself. Errors are about cfg: a file that
// can't be read, a password that is wrong.
func New(ctx context.Context, cfg Config) (*Registry, error) {
	return newRegistry(ctx, cfg, defaultTiming)
}

func newRegistry(ctx context.Context, cfg Config, t timing) (*Registry, error) {
	cfg = cfg.withDefaults()
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("etcd: %w", err)
	}
	r := &Registry{
		cfg:     cfg,
		keys:    keyspace.New("/sluice/" + cfg.Fleet + "/"),
		log:     cfg.Logger.With("registry", "etcd"),
		timing:  t,
		alarmed: make(chan struct{}, 1),
	}
	r.health.Start("no answer from " + strings.Join(cfg.Endpoints, ", ") + " yet")
	r.lifetime, r.end = context.WithCancel(context.WithoutCancel(ctx))
	_, err := r.connect(ctx)
	switch {
	case err == nil:
		return r, nil
	case cfg.Username != "" && away(err):
		r.note(err)
		return r, nil
	default:
		r.end()
		return nil, fmt.Errorf("etcd: connect to %s: %w", strings.Join(cfg.Endpoints, ", "), err)
	}
}

// connect returns the client. With a password, making one needs etcd's answer, so it is made when it is needed.
func (r *Registry) connect(ctx context.Context) (*clientv3.Client, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.client != nil {
		return r.client, nil
	}
	if r.lifetime.Err() != nil {
		return nil, errors.New("the registry is closed")
	}
	tlsConfig, err := r.cfg.tls()
	if err != nil {
		return nil, err
	}
	// The client outlives ctx, but not if ctx ends while it is being made.
	lifetime, cancel := context.WithCancel(r.lifetime)
	stop := context.AfterFunc(ctx, cancel)
	client, err := clientv3.New(clientv3.Config{
		Endpoints:            []string{r.endpoint()},
		TLS:                  tlsConfig,
		Username:             r.cfg.Username,
		Password:             r.cfg.Password,
		DialTimeout:          r.timing.call, // the limit for the password's check
		DialKeepAliveTime:    10 * time.Second,
		DialKeepAliveTimeout: 5 * time.Second,
		Context:              lifetime,
		MaxUnaryRetries:      r.retries(),
		Logger:               zapTo(r.log, quiet, nil),
		DialOptions:          r.dialOptions(),
	})
	switch {
	case err != nil:
		cancel()
		if away(err) {
			r.next()
		}
		return nil, err
	case !stop():
		_ = client.Close()
		return nil, ctx.Err()
	}
	r.client, r.drop = client, cancel
	return client, nil
}

// retries is how often the client itself tries again what gets no answer: where there is another member, that is asked.
func (r *Registry) retries() uint {
	if r.several() {
		return 1
	}
	return 0 // the client's default
}

func (r *Registry) dialOptions() []grpc.DialOption {
	opts := []grpc.DialOption{
		// gRPC's own limit of two minutes between attempts would be a long outage after a long outage.
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: r.timing.retryMin, Multiplier: 1.6, Jitter: 0.2, MaxDelay: r.timing.retryMax},
			MinConnectTimeout: r.timing.call,
		}),
	}
	if r.cfg.ServerName != "" {
		// The name in a tls.Config is overridden by the endpoint's host; this is not.
		opts = append(opts, grpc.WithAuthority(r.cfg.ServerName))
	}
	return opts
}

// Close ends all that the Registry does. A Watch that still runs returns.
func (r *Registry) Close() error {
	r.end()
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.client == nil {
		return nil
	}
	defer r.drop()
	if err := r.client.Close(); err != nil && !errors.Is(err, context.Canceled) {
		return fmt.Errorf("etcd: close: %w", err)
	}
	return nil
}

// MinTTL returns 2 s: etcd grants no shorter lease with its default election timeout of 1 s, and a longer one with a
// longer timeout.
func (r *Registry) MinTTL() time.Duration { return 2 * time.Second }

// Health tells whether etcd answers.
func (r *Registry) Health() registry.Health {
	h := r.health.Health()
	if s := r.cfg.Server; s != nil {
		if err := s.Err(); err != nil {
			h.Connected, h.Error = false, err.Error()
		}
	}
	return h
}

// txn runs one transaction. One that writes is not tried twice: the first time may have been enough.
func (r *Registry) txn(ctx context.Context, cmps []clientv3.Cmp, then, otherwise []clientv3.Op) (*clientv3.TxnResponse, error) {
	var resp *clientv3.TxnResponse
	call := r.call
	if slices.ContainsFunc(slices.Concat(then, otherwise), func(op clientv3.Op) bool { return !op.IsGet() }) {
		call = r.once
	}
	err := call(ctx, r.timing.call, func(ctx context.Context, c *clientv3.Client) (err error) {
		resp, err = c.Txn(ctx).If(cmps...).Then(then...).Else(otherwise...).Commit()
		return err
	})
	return resp, err
}

var errNoAnswer = errors.New("no answer")

// away reports whether err means that etcd can't be reached or has no leader, as opposed to an answer.
func away(err error) bool {
	if errors.Is(err, errNoAnswer) || errors.Is(err, context.DeadlineExceeded) || errors.Is(err, rpctypes.ErrNoLeader) {
		return true
	}
	var server rpctypes.EtcdError
	if errors.As(err, &server) {
		return server.Code() == codes.Unavailable
	}
	return status.Code(err) == codes.Unavailable
}

// refused reports whether etcd does not let us in.
func refused(err error) bool {
	var server rpctypes.EtcdError
	if errors.As(err, &server) {
		switch server.Code() {
		case codes.PermissionDenied, codes.Unauthenticated:
			return true
		}
		return errors.Is(err, rpctypes.ErrAuthFailed) || errors.Is(err, rpctypes.ErrUserEmpty)
	}
	return false
}

// note keeps in Health what the outcome of a request says about the connection. etcd is away when none of its members answers.
func (r *Registry) note(err error) {
	switch {
	case r.lifetime.Err() != nil:
	case err == nil:
		if r.health.Up() {
			r.log.Info("etcd answers", "endpoints", r.cfg.Endpoints)
		}
	case refused(err) || away(err) && r.allLeft():
		if r.health.Down(err.Error()) {
			r.log.Warn("etcd does not answer: what is known stands, and it is tried again", "endpoints", r.cfg.Endpoints, "error", err)
		}
	}
}

// noted is note, and returns what the caller should know.
func (r *Registry) noted(err error) error {
	r.note(err)
	if errors.Is(err, rpctypes.ErrNoSpace) {
		select {
		case r.alarmed <- struct{}{}:
		default:
		}
		return fmt.Errorf("%w: %s", err, noSpaceMend)
	}
	return err
}
