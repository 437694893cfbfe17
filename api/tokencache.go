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
	// tokenAge is how long a token is believed to be as it was read, and tokenWait is how long the registry has to say so
	// anew: a revoked one is refused after both at the latest.
	tokenAge  = time.Second
	tokenWait = time.Second
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

	mu      sync.Mutex
	known   map[string]knownToken
	changes int // of this instance's own
}

// knownToken is a token as it was read; without a hash there was none.
type knownToken struct {
	spec.Token
	read  time.Time // when the registry said so
	asked time.Time // when it was asked last
}

// find returns the token with a name and a hash. slow says that the caller guesses too often: then the registry is not
// asked for what he shows, unless it was right a moment ago.
func (c *tokenCache) find(ctx context.Context, name, hash string, slow func() bool) (spec.Token, error) {
	c.mu.Lock()
	known, ok := c.known[name]
	right := ok && sameText(known.Hash, hash)
	fresh := ok && time.Since(known.asked) <= tokenAge
	if right && !fresh { // one asks; the others go by what is known meanwhile
		c.known[name] = knownToken{known.Token, known.read, time.Now()}
	}
	changes := c.changes
	c.mu.Unlock()
	if !fresh {
		if !right && slow() {
			return spec.Token{}, errTooManyFailures
		}
		read, err := c.read(ctx, name)
		switch {
		case err == nil:
			known = read
			c.remember(name, read, changes)
		case !right || time.Since(known.read) > tokenAway:
			return spec.Token{}, errTokenUnknown
		}
	}
	if !sameText(known.Hash, hash) {
		return spec.Token{}, errNoToken
	}
	return known.Token, nil
}

// errTokenUnknown says nothing of the registry: whoever is told has not shown who he is.
var errTokenUnknown = newProblem(http.StatusServiceUnavailable, "the registry did not answer, so the token cannot be checked; try again")

// read asks the registry. A caller who leaves does not end that: others wait for what it says.
func (c *tokenCache) read(ctx context.Context, name string) (knownToken, error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), tokenWait)
	defer cancel()
	now := time.Now()
	read := knownToken{read: now, asked: now}
	o, err := c.registry.Get(ctx, tokenRef(name))
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

// remember keeps what was read, unless this instance changed a token in between. When there is no room, names of no token
// go first, since anybody can make them up.
func (c *tokenCache) remember(name string, t knownToken, changes int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if changes != c.changes {
		return
	}
	if len(c.known) >= maxTokens {
		maps.DeleteFunc(c.known, func(_ string, k knownToken) bool { return k.Hash == "" || time.Since(k.read) > tokenAway })
	}
	if len(c.known) < maxTokens {
		c.known[name] = t
	}
}

// forget makes a change of this instance's own take effect at once.
func (c *tokenCache) forget(name string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.changes++
	delete(c.known, name)
}
