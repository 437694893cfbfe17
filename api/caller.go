package api

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"net"
	"net/http"
	"net/netip"
	"strings"

	"sluice/controlplane/spec"
)

// caller is who sent a request.
type caller struct {
	name   string // for the history and the audit log
	role   spec.Role
	limits *spec.Limits // of a registrar
	remote netip.Addr   // where the request came from
	here   bool         // it came from this machine, and nothing says that it was only passed on here
	// still says whether he may go on, for answers that have no end; nil when nobody takes that from him.
	still func(context.Context) bool
}

// Names of callers that have none of their own.
const (
	anonymous   = "anonymous" // from this machine, where nobody is asked
	tokenBearer = "token"     // showed the token of the instance
)

type callerKey struct{}

func withCaller(ctx context.Context, c caller) context.Context {
	return context.WithValue(ctx, callerKey{}, c)
}

func callerOf(ctx context.Context) caller {
	c, _ := ctx.Value(callerKey{}).(caller)
	return c
}

// author is the caller's name, for the history.
func author(ctx context.Context) string { return callerOf(ctx).name }

// remoteOf returns the address that a request came from, or the zero Addr.
func remoteOf(r *http.Request) netip.Addr {
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		return netip.Addr{}
	}
	addr, _ := netip.ParseAddr(host)
	return addr.Unmap()
}

// authenticate finds out who sent a request: by a token, by a certificate, or because it comes from this machine and
// nothing was configured.
func (s *Server) authenticate(r *http.Request) (caller, error) {
	c := caller{remote: remoteOf(r)}
	c.here = c.remote.IsLoopback() && r.Header.Get("Forwarded") == "" && r.Header.Get("X-Forwarded-For") == ""
	scheme, shown, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	if shown = strings.TrimSpace(shown); shown != "" {
		if !strings.EqualFold(scheme, "Bearer") {
			return c, errNoToken
		}
		return s.byToken(r.Context(), c, shown)
	}
	if r.TLS != nil && len(r.TLS.VerifiedChains) > 0 {
		subject := r.TLS.VerifiedChains[0][0].Subject
		c.name = subject.String()
		role, ok := s.subjects[c.name]
		if !ok && !strings.Contains(subject.CommonName, "=") { // it would be taken for a whole subject
			role, ok = s.subjects[subject.CommonName]
		}
		if ok {
			c.role = role
			return c, nil
		}
		return c, problemf(http.StatusForbidden, "the certificate of %q is valid, but no role is given to its subject: see --tls-role", c.name)
	}
	if s.open {
		c.name, c.role = anonymous, spec.Admin
		return c, nil
	}
	return c, errNoToken
}

var errNoToken = newProblem(http.StatusUnauthorized, "send the header Authorization: Bearer TOKEN with a token of the fleet or of this instance, or a client certificate")

// byToken finds out whose token was shown.
func (s *Server) byToken(ctx context.Context, c caller, shown string) (caller, error) {
	if s.token != "" && sameSecret(s.token, shown) {
		c.name, c.role = tokenBearer, spec.Admin
		return c, nil
	}
	name, ok := tokenName(shown)
	if !ok {
		return c, errNoToken
	}
	hash := tokenHash(shown)
	token, err := s.tokens.find(ctx, name, hash, func() bool { return s.limits.failing(c.remote) })
	if err != nil {
		return c, err
	}
	c.name, c.role, c.limits = "token/"+name, token.Role, token.Limits
	c.still = func(ctx context.Context) bool {
		token, err := s.tokens.find(ctx, name, hash, func() bool { return false })
		return err == nil && !expired(token)
	}
	if expired(token) {
		return c, problemf(http.StatusUnauthorized, "the token %q has expired: ask an admin for another one", name)
	}
	return c, nil
}

// sameSecret compares hashes, so that neither a secret's text nor its length shows in the time that it takes.
func sameSecret(want, shown string) bool {
	a, b := sha256.Sum256([]byte(want)), sha256.Sum256([]byte(shown))
	return subtle.ConstantTimeCompare(a[:], b[:]) == 1
}

func sameText(a, b string) bool { return subtle.ConstantTimeCompare([]byte(a), []byte(b)) == 1 }
