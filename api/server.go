// Package api is the REST API: the server that ops and nodes talk to, and the client that the command line uses. The
// contract is openapi.yaml, from which openapi.gen.go is generated.
package api

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"sync"
	"time"

	"github.com/labstack/echo/v4"

	"sluice/controlplane"
	"sluice/controlplane/spec"
	"sluice/registry"
)

// Registry is what the API needs of a registry.
type Registry interface {
	registry.Store
	registry.Nodes
	registry.Roller
	registry.Slotter
	Health() registry.Health
	MinTTL() time.Duration
}

// Local is the gateway that this instance keeps.
type Local interface {
	Status(ctx context.Context) controlplane.Status
	Retry() // tries at once what failed or waits; does not block
	// Snapshot returns the newest Snapshot; ok is false before there is one.
	Snapshot() (s registry.Snapshot, ok bool)
	// Readings are what the objects of the Snapshot were read as.
	Readings() *controlplane.Readings
	Events() *controlplane.Events
	// Try tells what changes of objects would do here; nil deletes. An error says that it could not be tried.
	Try(ctx context.Context, changes map[registry.Ref]*registry.Object) (controlplane.Trial, error)
	// Forecast tells what changes of objects would do at each gateway of a fleet. An error says that it can't be told.
	Forecast(changes map[registry.Ref]*registry.Object, fleet []controlplane.Status) ([]controlplane.Forecast, error)
	Applies() controlplane.Applies
}

// Options are the parts of a Server.
type Options struct {
	Registry Registry
	Local    Local
	// Token is that of an admin, and Subjects are the roles of client certificates, by their subject (RFC 2253) or its common
	// name. Without either, requests to a loopback address are answered to everyone, and no others.
	Token    string
	Subjects map[string]spec.Role
	// Reserved are addresses that no node can have, as host:port, or as unix:/path with all that is below it: the API's own and
	// the registry's.
	Reserved []string
	// Rollouts are the pace at which changes that are made here reach the gateways; without a canary, they do at once.
	Rollouts registry.RolloutSettings
	Logger   *slog.Logger
	Audit    *slog.Logger // gets a line for each write and for whatever was denied; may be nil
}

// Server answers the API.
type Server struct {
	registry Registry
	local    Local
	log      *slog.Logger
	handler  http.Handler

	open       bool // nobody on this machine is asked who he is
	token      string
	subjects   map[string]spec.Role
	operations map[string]operation // by method and path
	tokens     tokenCache
	limits     *limits
	reserved   reserved
	pace       registry.RolloutSettings
	beats      beats
	metrics    *metrics
	docs       func() (docsPage, error)
	closing    chan struct{} // closed by Close
	closed     sync.Once
	auditLog   *slog.Logger
}

var _ StrictServerInterface = (*Server)(nil)

// New returns a Server.
func New(o Options) (*Server, error) {
	if o.Registry == nil || o.Local == nil || o.Logger == nil {
		return nil, errors.New("the API needs a registry, a gateway and a logger")
	}
	operations, err := readOperations()
	if err != nil {
		return nil, err
	}
	own, err := newReserved(o.Reserved)
	if err != nil {
		return nil, err
	}
	s := &Server{
		registry: o.Registry, local: o.Local, log: o.Logger, auditLog: o.Audit,
		open: o.Token == "" && len(o.Subjects) == 0, token: o.Token, subjects: o.Subjects, operations: operations, reserved: own, pace: o.Rollouts,
		tokens: tokenCache{registry: o.Registry, known: map[string]knownToken{}}, limits: newLimits(),
	}
	s.metrics, s.docs, s.closing = newMetrics(s), sync.OnceValues(newDocs), make(chan struct{})
	e := echo.New()
	e.Binder = binder{}
	e.HTTPErrorHandler = s.answerError
	e.Use(s.access, s.checkParameters)
	RegisterHandlers(e, NewStrictHandler(s, nil))
	s.handler = s.guard(e)
	return s, nil
}

// ServeHTTP implements http.Handler.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) { s.handler.ServeHTTP(w, r) }

// Close ends the streams of events, which would never end by themselves.
func (s *Server) Close() { s.closed.Do(func() { close(s.closing) }) }

// answerError is where every error of a handler ends.
func (s *Server) answerError(err error, c echo.Context) {
	if c.Response().Committed {
		return
	}
	p, internal := asProblem(err)
	if e, ok := errors.AsType[*echo.HTTPError](err); ok {
		p, internal = routingProblem(e, c.Request()), false
	}
	if internal {
		s.log.Error("request failed", "method", c.Request().Method, "path", withoutTokens(c.Request().URL.Path), "error", err)
	}
	p.write(c.Response())
}

// routingProblem is what echo and the generated code say before a handler is called.
func routingProblem(e *echo.HTTPError, r *http.Request) *Problem {
	switch e.Code {
	case http.StatusNotFound:
		return problemf(e.Code, "there is nothing at %s: /openapi.yaml lists what there is", r.URL.Path)
	case http.StatusMethodNotAllowed:
		return problemf(e.Code, "%s is not possible at %s: /openapi.yaml lists what is", r.Method, r.URL.Path)
	default:
		return newProblem(e.Code, fmt.Sprint(e.Message))
	}
}

// fault marks an error that the registry returned, unless it is one of its answers.
func (s *Server) fault(err error) error {
	if err == nil || errors.Is(err, registry.ErrNotFound) {
		return err
	}
	for _, answer := range []any{new(*Problem), new(*registry.ConflictError), new(*registry.TooLargeError), new(*registryError)} {
		if errors.As(err, answer) {
			return err
		}
	}
	away := errors.Is(err, registry.ErrAway) || errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled) || !s.registry.Health().Connected
	return &registryError{err, away}
}
