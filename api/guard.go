package api

import (
	"context"
	"net"
	"net/http"
	"net/netip"
	"runtime/debug"
	"strings"
	"time"
)

const (
	// maxBody covers the largest change that a registry takes, with room for JSON that is indented.
	maxBody = 1 << 20
	// maxTime is for one request; the registry's own limits are shorter, except for lists.
	maxTime = 20 * time.Second
)

// allowance returns how large the body of a request may be, and how long it may take.
func allowance(r *http.Request) (body int64, limit time.Duration) {
	body, limit = maxBody, maxTime
	if r.URL.Path == restorePath {
		body, limit = maxRestore, restoreTime
	}
	return body, limit + waitOf(r.URL.Query())
}

// guard stands before everything: it lets in who may come in, limits what they may send, and catches panics.
func (s *Server) guard(next http.Handler) http.Handler {
	crossOrigin := http.NewCrossOriginProtection()
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer s.recover(w, r)
		h := w.Header()
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'")
		h.Set("Referrer-Policy", "no-referrer")
		h.Set("Cache-Control", "no-store")

		// A page of another site can make a browser on this machine send requests: under its own name, pointed at us
		// (DNS rebinding), or across origins.
		if s.open && !loopback(r.Host) {
			s.deny(w, r, problemf(http.StatusForbidden, "where nothing says who may use it, the API answers only requests to a loopback address, not to %q: use 127.0.0.1 or localhost", r.Host))
			return
		}
		if err := crossOrigin.Check(r); err != nil {
			s.deny(w, r, newProblem(http.StatusForbidden, "the request comes from a page of another origin: "+err.Error()))
			return
		}
		ctx := r.Context()
		body, limit := allowance(r)
		if r.URL.Path != eventsPath { // which has no end, and limits each of its writes
			var cancel context.CancelFunc
			ctx, cancel = context.WithTimeout(ctx, limit)
			defer cancel()
			deadlines := http.NewResponseController(w) // a test's writer has none
			_ = deadlines.SetWriteDeadline(time.Now().Add(limit + slowReader))
			if body > maxBody {
				_ = deadlines.SetReadDeadline(time.Now().Add(limit))
			}
		}
		r.Body = http.MaxBytesReader(w, r.Body, body)
		next.ServeHTTP(w, r.WithContext(ctx))
	})
}

// deny answers what is refused before anybody is asked who he is.
func (s *Server) deny(w http.ResponseWriter, r *http.Request, p *Problem) {
	e := newEntry(r, "unknown")
	e.caller.remote = remoteOf(r)
	w.Header().Set("X-Request-Id", e.id)
	p.write(w)
	s.audit(e, p.Status)
}

func (s *Server) recover(w http.ResponseWriter, r *http.Request) {
	v := recover()
	if v == nil {
		return
	}
	if v == http.ErrAbortHandler { //nolint:errorlint // net/http compares it like this, too
		panic(v)
	}
	s.log.Error("request panicked", "method", r.Method, "path", withoutTokens(r.URL.Path), "panic", v, "stack", string(debug.Stack()))
	p, _ := asProblem(nil)
	p.write(w)
}

func loopback(host string) bool {
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	if host == "localhost" {
		return true
	}
	addr, err := netip.ParseAddr(strings.Trim(host, "[]"))
	return err == nil && addr.Unmap().IsLoopback()
}
