package spec

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"time"
)

// Limits of what an upstream asks of its nodes: what a node may have.
const (
	maxSelectors     = 32
	maxSelectorBytes = 253
	maxMetaBytes     = 4096
)

// HashKeys are the hash keys without a name of their own; the others are "arg:NAME", "cookie:NAME" and "header:NAME".
func HashKeys() []string { return []string{"remote_addr", "uri"} }

var (
	// A variable of nginx, as $arg_NAME, ends at any other character.
	variableName = regexp.MustCompile(`^[A-Za-z0-9_]{1,64}$`)
	headerName   = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9-]{0,63}$`)
	endpointsKey = regexp.MustCompile(`^[A-Za-z0-9._:@/-]{1,200}$`)
)

// ParseHashKey splits a hash key into its source ("remote_addr", "uri", "arg", "cookie" or "header") and, for the last
// three, the name.
func ParseHashKey(key string) (source, name string, err error) {
	source, name, named := strings.Cut(key, ":")
	switch source {
	case "remote_addr", "uri":
		if !named {
			return source, "", nil
		}
	case "arg", "cookie":
		if variableName.MatchString(name) {
			return source, name, nil
		}
		if named {
			return "", "", fmt.Errorf("%q cannot be a hash key: nginx knows the %s only if its name is letters, digits and underscores, at most 64", key, source)
		}
	case "header":
		if headerName.MatchString(name) {
			return source, name, nil
		}
		if named {
			return "", "", fmt.Errorf("%q cannot be a hash key: the name of a header is letters, digits and dashes, at most 64", key)
		}
	}
	return "", "", fmt.Errorf(`%q is no hash key: use %s, "arg:NAME", "cookie:NAME" or "header:NAME"`, key, list(HashKeys()...))
}

// Validate returns what is wrong with u, as it was submitted.
func (u Upstream) Validate() []FieldError {
	c := newChecker()
	checkOwner(c, u.Owner)
	switch {
	case u.Service != "" && u.Endpoints != "":
		c.in("endpoints").add("an upstream has either a service or endpoints: leave one out")
	case u.Service != "":
		c.in("service").name(u.Service)
	case u.Endpoints != "" && !endpointsKey.MatchString(u.Endpoints):
		c.in("endpoints").add("%q is no key prefix: use at most 200 letters, digits and . _ : @ / -", u.Endpoints)
	}
	if len(u.Tags) > maxSelectors {
		c.in("tags").add("has %d tags; the limit is %d", len(u.Tags), maxSelectors)
	}
	for i, tag := range u.Tags {
		c.in("tags", i).selector(tag)
	}
	if len(u.Meta) > maxSelectors {
		c.in("meta").add("has %d entries; the limit is %d", len(u.Meta), maxSelectors)
	}
	for _, key := range slices.Sorted(maps.Keys(u.Meta)) {
		c.in("meta", key).selector(key)
		c.in("meta", key).text(u.Meta[key], maxMetaBytes)
	}
	if u.Balance != nil {
		u.Balance.check(c.in("balance"))
	}
	if u.Passive != nil {
		c := c.in("passive")
		c.in("maxFails").number(u.Passive.MaxFails, 0, 1000)
		c.in("failTimeout").duration(u.Passive.FailTimeout, time.Second, time.Hour, time.Second)
	}
	if u.Keepalive != nil {
		c := c.in("keepalive")
		c.in("connections").number(u.Keepalive.Connections, 0, 10_000)
		c.in("timeout").duration(u.Keepalive.Timeout, 100*time.Millisecond, time.Hour, time.Millisecond)
	}
	if u.Guard != nil {
		c := c.in("guard")
		c.in("share").number(u.Guard.Share, 0, 100)
		c.in("window").duration(u.Guard.Window, 10*time.Second, 24*time.Hour, time.Second)
	}
	if u.Check != nil {
		u.Check.check(c.in("check"))
	}
	return *c.errs
}

// selector checks a tag, or a key of metadata, that nodes must have.
func (c checker) selector(s string) {
	if s == "" {
		c.add("is empty: leave it out")
		return
	}
	c.text(s, maxSelectorBytes)
}

func (b Balance) check(c checker) {
	oneOf(c.in("method"), b.Method, RoundRobin, LeastConn, IPHash, Hash, Random)
	if b.Method != Hash {
		if b.Key != "" {
			c.in("key").add(`is for the method "hash" only: set that, or leave the key out`)
		}
		if b.Consistent != nil {
			c.in("consistent").add(`is for the method "hash" only: set that, or leave it out`)
		}
		return
	}
	if b.Key == "" {
		c.in("key").add(`the method "hash" needs a key: %s, "arg:NAME", "cookie:NAME" or "header:NAME"`, list(HashKeys()...))
	} else if _, _, err := ParseHashKey(b.Key); err != nil {
		c.in("key").add("%s", err)
	}
}
