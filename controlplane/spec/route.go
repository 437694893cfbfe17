package spec

import (
	"strings"
	"time"
	"unicode/utf8"
)

// SocketIOSilence is how long a healthy Socket.IO session can be silent: Engine.IO's default pingInterval (25 s) and
// pingTimeout (20 s).
const SocketIOSilence = 45 * time.Second

// Match is how a route's path is compared.
type Match string

// The ways to compare a route's path.
const (
	MatchPrefix Match = "prefix"
	MatchExact  Match = "exact"
)

func (s Site) checkRoutes(c checker) {
	if len(s.Routes) == 0 {
		c.add("a site needs at least one route, as {upstream: chat}")
	}
	type place struct {
		path  string
		match Match
	}
	taken := map[place]int{}
	for i, r := range s.Routes {
		c := c.in(i)
		c.merge(r.Validate())
		d := r.WithDefaults()
		at := place{d.Path, d.Match}
		if first, ok := taken[at]; ok {
			c.in("path").add("%q is the path of route %d too: leave one out", d.Path, first)
			continue
		}
		taken[at] = i
	}
}

// Validate returns what is wrong with r, as it was submitted.
func (r Route) Validate() []FieldError {
	c := newChecker()
	if r.Path != "" {
		checkPath(c.in("path"), r.Path)
	}
	oneOf(c.in("match"), r.Match, MatchPrefix, MatchExact)
	oneOf(c.in("kind"), r.Kind, SocketIO, WebSocket, HTTP)
	if r.Upstream == "" {
		c.in("upstream").add("name the upstream that the requests go to")
	} else {
		c.in("upstream").name(r.Upstream)
	}
	// nginx's documentation says that a connect time-out cannot usually exceed 75 seconds.
	c.in("connectTimeout").duration(r.ConnectTimeout, 10*time.Millisecond, 75*time.Second, time.Millisecond)
	c.in("readTimeout").duration(r.ReadTimeout, time.Second, 7*24*time.Hour, time.Millisecond)
	c.in("sendTimeout").duration(r.SendTimeout, time.Second, 7*24*time.Hour, time.Millisecond)
	if d := r.ReadTimeout; d != nil && (r.Kind == SocketIO || r.Kind == "") {
		if got := time.Duration(*d); got >= time.Second && got <= SocketIOSilence {
			c.in("readTimeout").add("%s is not above %s, for which a Socket.IO session may be silent (pingInterval 25s + pingTimeout 20s): raise it, or leave it out for %s",
				short(got), SocketIOSilence, time.Duration(defaultSocketIOTimeout))
		}
	}
	if r.Retries != nil {
		c.in("retries", "tries").number(r.Retries.Tries, 1, 10)
		c.in("retries", "timeout").duration(r.Retries.Timeout, 10*time.Millisecond, 5*time.Minute, time.Millisecond)
	}
	c.in("maxBodySize").size(r.MaxBodySize, 0, 1<<40)
	c.in("bufferSize").size(r.BufferSize, 1<<10, 64<<10)
	return *c.errs
}

// pathCharacters are those of RFC 3986's pchar and the slash, without what means something to nginx (quotes, semicolon,
// dollar) and without the percent sign: nginx compares with the decoded path.
const pathCharacters = "/-._~!&()*+,=:@"

func checkPath(c checker, path string) {
	ok := func(r rune) bool {
		return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune(pathCharacters, r)
	}
	switch i := strings.IndexFunc(path, func(r rune) bool { return !ok(r) }); {
	case i >= 0:
		bad, _ := utf8.DecodeRuneInString(path[i:])
		c.add("%q has the character %q: a path is letters, digits and %s", path, bad, strings.Join(strings.Split(pathCharacters, ""), " "))
	case path[0] != '/':
		c.add("%q does not start with a slash: write %q", path, "/"+path)
	case len(path) > 1000:
		c.add("has %d characters: at most 1000 are possible", len(path))
	case strings.Contains(path, "//"):
		c.add("%q has two slashes in a row, which nginx merges before it compares: write one", path)
	case strings.Contains(path+"/", "/./") || strings.Contains(path+"/", "/../"):
		c.add(`%q has a "." or ".." segment, which nginx resolves before it compares: write the resolved path`, path)
	}
}
