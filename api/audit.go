package api

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"sync"

	"sluice/registry"
)

// entry is what becomes a line of the audit log.
type entry struct {
	id        string
	operation string
	method    string
	path      string
	reason    string
	caller    caller
	seq       registry.Seq
	changed   []registry.Ref
	beat      *registry.Node // when the request only tells that a node lives
	export    bool           // everything was read
}

// maxAudited is how many bytes of a path, or of a reason, are in a line of the audit log: the longest reason has 500 characters.
const maxAudited = 2048

// newEntry takes nothing of the body and of the query: both may hold secrets.
func newEntry(r *http.Request, operation string) *entry {
	id := make([]byte, 8)
	_, _ = rand.Read(id) // never fails: see its documentation
	return &entry{
		id: hex.EncodeToString(id), operation: operation, method: r.Method,
		path: cut(withoutTokens(r.URL.EscapedPath())), reason: cut(withoutTokens(r.Header.Get("X-Change-Reason"))),
	}
}

var tokenText = regexp.MustCompile(`(` + tokenPrefix + `[a-z0-9._-]+_)[0-9a-f]{` + fmt.Sprint(2*tokenBytes) + `}`)

// withoutTokens takes tokens out of a text that may have one by mistake, as that of DELETE /v1/tokens/sluice_….
func withoutTokens(text string) string { return tokenText.ReplaceAllString(text, "$1…") }

func cut(text string) string {
	if len(text) > maxAudited {
		return text[:maxAudited] + "…"
	}
	return text
}

type entryKey struct{}

func entryOfRequest(ctx context.Context) *entry {
	if e, ok := ctx.Value(entryKey{}).(*entry); ok {
		return e
	}
	return &entry{} // of a test that calls a handler itself
}

// noteChange writes down what a request changed; a restore does so in several changes.
func noteChange(ctx context.Context, seq registry.Seq, changed []registry.Ref) {
	e := entryOfRequest(ctx)
	e.seq, e.changed = seq, append(e.changed, changed...)
}

// noteBeat writes down that a request is a beat of a node.
func noteBeat(ctx context.Context, n registry.Node) { entryOfRequest(ctx).beat = &n }

// noteExport writes down that a request reads everything.
func noteExport(ctx context.Context) { entryOfRequest(ctx).export = true }

// audit writes a line for each write, for each export, and for whatever was denied.
func (s *Server) audit(e *entry, status int) {
	if s.auditLog == nil {
		return
	}
	msg := "done"
	switch {
	case slices.Contains([]int{http.StatusUnauthorized, http.StatusForbidden, http.StatusTooManyRequests}, status):
		msg = "denied"
	case !e.export && slices.Contains([]string{http.MethodGet, http.MethodHead, http.MethodOptions}, e.method):
		return
	case status >= http.StatusBadRequest:
		msg = "failed"
	}
	if e.beat != nil && msg != "denied" && !s.beats.news(*e.beat, fmt.Sprint(e.caller.name, " ", status)) {
		return
	}
	attrs := []any{
		"id", e.id, "caller", e.caller.name, "role", string(e.caller.role), "remote", e.caller.remote.String(),
		"operation", e.operation, "method", e.method, "path", e.path, "status", status,
	}
	if msg == "denied" {
		omitted, write := s.limits.denied(e.caller)
		if !write {
			return
		}
		if omitted > 0 {
			attrs = append(attrs, "omitted", omitted)
		}
	}
	if e.seq > 0 {
		attrs = append(attrs, "seq", uint64(e.seq), "objects", names(e.changed))
	}
	if e.reason != "" {
		attrs = append(attrs, "reason", e.reason)
	}
	s.auditLog.Info(msg, attrs...)
}

// beats remembers what was last said of each node, so that the audit log has the first of many equal beats.
type beats struct {
	mu   sync.Mutex
	last map[registry.NodeRef][sha256.Size]byte
}

// maxBeats are remembered; then it begins anew.
const maxBeats = 100_000

// news reports whether a beat differs from the one before, in what it says, who says it, or what he was told.
func (b *beats) news(n registry.Node, outcome string) bool {
	text, err := registry.MarshalJSON(n)
	if err != nil {
		return true
	}
	said := sha256.Sum256(append(text, outcome...))
	key := registry.NodeRef{Service: n.Service, ID: n.ID}
	b.mu.Lock()
	defer b.mu.Unlock()
	if last, ok := b.last[key]; ok && last == said {
		return false
	}
	if b.last == nil || len(b.last) >= maxBeats {
		b.last = map[registry.NodeRef][sha256.Size]byte{}
	}
	b.last[key] = said
	return true
}

// forget has the next beat of a node be news: it was removed.
func (b *beats) forget(service, id string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.last, registry.NodeRef{Service: service, ID: id})
}
