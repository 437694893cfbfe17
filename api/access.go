package api

import (
	"cmp"
	"context"
	"errors"
	"net/http"
	"strings"
	"time"

	"github.com/labstack/echo/v4"

	"sluice/controlplane/spec"
)

// access lets a caller do what his role is enough for, as often as his rate allows, and writes it down.
func (s *Server) access(next echo.HandlerFunc) echo.HandlerFunc {
	return func(c echo.Context) error {
		r := c.Request()
		op, known := s.operations[r.Method+" "+c.Path()]
		if known && op.role == "" || !known && r.URL.Path != "/v1" && !strings.HasPrefix(r.URL.Path, "/v1/") {
			return next(c)
		}
		began := time.Now()
		e := newEntry(r, cmp.Or(op.id, "unknown"))
		c.Response().Header().Set("X-Request-Id", e.id)
		done := false
		defer func() {
			status := c.Response().Status
			if !done { // a panic, which goes on to the guard
				status = http.StatusInternalServerError
			}
			s.audit(e, status)
			s.metrics.request(e.operation, status, time.Since(began))
		}()
		who, err := s.admit(r, op, known)
		e.caller = who
		if err == nil {
			ctx := context.WithValue(withCaller(r.Context(), who), entryKey{}, e)
			c.SetRequest(r.WithContext(ctx))
			err = next(c)
		}
		if err != nil {
			s.answerError(err, c)
		}
		done = true
		return nil
	}
}

// admit finds out who sent a request, and refuses what his role is not enough for, and what is too much.
func (s *Server) admit(r *http.Request, op operation, known bool) (caller, error) {
	who, err := s.authenticate(r)
	if err != nil {
		wrong := r.Header.Get("Authorization") != "" && statusOf(err) == http.StatusUnauthorized
		if wrong && s.limits.failed(who.remote) {
			err = errTooManyFailures
		}
		return who, err
	}
	if err := s.limits.take(who, op.role == spec.Registrar); err != nil {
		return who, err
	}
	if known && !may(who.role, op.role) {
		return who, problemf(http.StatusForbidden, "%s needs the role %q, and %s has the role %q", op.id, op.role, who.name, who.role)
	}
	return who, nil
}

func statusOf(err error) int {
	if p, ok := errors.AsType[*Problem](err); ok {
		return p.Status
	}
	return 0
}
