package api

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"maps"
	"net/http"
	"strings"
	"sync"
	"time"

	"sluice/controlplane/spec"
	"sluice/registry"
)

// A token's text is its prefix, its name, and 256 random bits in hex: who reads it in a log can tell whose it is, and it can
// be looked up by its name. Since it is random, its SHA-256 is all that has to be kept.
const (
	tokenPrefix = "sluice_"
	tokenBytes  = 32
)

const (
	// tokenAge is how long a token is believed to be as it was read: a revoked one is refused that much later.
	tokenAge = 2 * time.Second
	// tokenAway is how long it is believed while the registry is away.
	tokenAway = time.Hour
	// maxTokens are remembered.
	maxTokens = 4096
)

func newTokenText(name string) string {
	secret := make([]byte, tokenBytes)
	_, _ = rand.Read(secret) // never fails: see its documentation
	return tokenPrefix + name + "_" + hex.EncodeToString(secret)
}

// tokenName returns the name of the token whose text is shown; ok is false for what is no token.
func tokenName(shown string) (name string, ok bool) {
	rest, ok := strings.CutPrefix(shown, tokenPrefix)
	i := strings.LastIndexByte(rest, '_')
	if !ok || i < 0 || len(rest)-i-1 != 2*tokenBytes || !spec.ValidName(rest[:i]) {
		return "", false
	}
	return rest[:i], true
}

func tokenHash(text string) string {
	sum := sha256.Sum256([]byte(text))
	return hex.EncodeToString(sum[:])
}

func expired(t spec.Token) bool { return t.Expires != nil && !time.Now().Before(*t.Expires) }

// tokenCache remembers tokens for a moment: nodes beat often.
type tokenCache struct {
	registry Registry

	mu    sync.Mutex
	known map[string]knownToken
}

// knownToken is a token as it was read; without a hash there was none.
type knownToken struct {
	spec.Token
	read time.Time
}

// find returns the token of a name, or why there is none. slow is asked before the registry is, and says that the caller has
// guessed too often.
func (c *tokenCache) find(ctx context.Context, name string, slow func() bool) (spec.Token, error) {
	c.mu.Lock()
	known, ok := c.known[name]
	c.mu.Unlock()
	if !ok || time.Since(known.read) > tokenAge {
		if slow() {
			return spec.Token{}, errTooManyFailures
		}
		read, err := c.read(ctx, name)
		switch {
		case err == nil:
			known = read
			c.remember(name, read)
		case !ok || known.Hash == "" || time.Since(known.read) > tokenAway:
			return spec.Token{}, problemf(http.StatusServiceUnavailable, "the registry did not answer, so the token cannot be checked; try again: %s", err)
		}
	}
	if known.Hash == "" {
		return spec.Token{}, errNoToken
	}
	return known.Token, nil
}

func (c *tokenCache) read(ctx context.Context, name string) (knownToken, error) {
	read := knownToken{read: time.Now()}
	o, err := c.registry.Get(ctx, registry.Ref{Kind: registry.KindToken, Name: name})
	if errors.Is(err, registry.ErrNotFound) {
		return read, nil
	}
	if err != nil {
		return read, err
	}
	token, err := spec.Decode[spec.Token](o.Value)
	if err == nil && len(token.Validate()) == 0 {
		read.Token = token
	}
	return read, nil
}

func (c *tokenCache) remember(name string, t knownToken) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.known) >= maxTokens {
		maps.DeleteFunc(c.known, func(_ string, k knownToken) bool { return time.Since(k.read) > tokenAge })
	}
	if len(c.known) < maxTokens {
		c.known[name] = t
	}
}

// forget makes a change of this instance's own take effect at once.
func (c *tokenCache) forget(name string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.known, name)
}
