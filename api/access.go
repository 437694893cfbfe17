package api

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/labstack/echo/v4"

	"sluice/controlplane/spec"
	"sluice/registry"
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
		e := &entry{id: requestID(), operation: cmp.Or(op.id, "unknown")}
		c.Response().Header().Set("X-Request-Id", e.id)
		who, err := s.authenticate(r)
		e.caller = who
		if err == nil {
			err = s.permit(who, op, known)
		} else if p, ok := errors.AsType[*Problem](err); ok && p.Status == http.StatusUnauthorized {
			s.limits.failed(who.remote)
		}
		if err == nil {
			ctx := context.WithValue(withCaller(r.Context(), who), entryKey{}, e)
			c.SetRequest(r.WithContext(ctx))
			err = next(c)
		} else {
			e.denied = true
		}
		if err != nil {
			s.answerError(err, c)
		}
		s.audit(e, c)
		s.metrics.request(e.operation, c.Response().Status, time.Since(began))
		return nil
	}
}

// permit refuses what the caller's role is not enough for, and what is too much.
func (s *Server) permit(who caller, op operation, known bool) error {
	if known && !may(who.role, op.role) {
		return problemf(http.StatusForbidden, "%s needs the role %q, and %s has the role %q", op.id, op.role, who.name, who.role)
	}
	return s.limits.take(who, op.role == spec.Registrar)
}

func requestID() string {
	id := make([]byte, 8)
	_, _ = rand.Read(id) // never fails: see its documentation
	return hex.EncodeToString(id)
}

// entry is what becomes a line of the audit log.
type entry struct {
	id        string
	operation string
	caller    caller
	denied    bool
	quiet     bool // it is a beat like the one before
	seq       registry.Seq
	changed   []registry.Ref
}

type entryKey struct{}

// noteChange writes down what a request changed.
func noteChange(ctx context.Context, seq registry.Seq, changed []registry.Ref) {
	if e, ok := ctx.Value(entryKey{}).(*entry); ok {
		e.seq, e.changed = seq, changed
	}
}

// noteBeat writes down that a request only told that a node still lives.
func noteBeat(ctx context.Context) {
	if e, ok := ctx.Value(entryKey{}).(*entry); ok {
		e.quiet = true
	}
}

// audit writes a line for each write, and for whatever was denied. It has nothing of a body, and no query: both may hold
// secrets.
func (s *Server) audit(e *entry, c echo.Context) {
	r := c.Request()
	if s.auditLog == nil || e.quiet || !e.denied && slices.Contains([]string{http.MethodGet, http.MethodHead, http.MethodOptions}, r.Method) {
		return
	}
	attrs := []any{
		"id", e.id, "caller", e.caller.name, "role", string(e.caller.role), "remote", e.caller.remote.String(),
		"operation", e.operation, "method", r.Method, "path", r.URL.EscapedPath(), "status", c.Response().Status,
	}
	if e.seq > 0 {
		attrs = append(attrs, "seq", uint64(e.seq), "objects", names(e.changed))
	}
	if reason := r.Header.Get("X-Change-Reason"); reason != "" {
		attrs = append(attrs, "reason", reason)
	}
	msg := "done"
	switch {
	case e.denied:
		msg = "denied"
	case c.Response().Status >= http.StatusBadRequest:
		msg = "failed"
	}
	s.auditLog.Info(msg, attrs...)
}
