package spec

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// CheckType is how nodes are checked.
type CheckType string

// The types of checks.
const (
	CheckTCP      CheckType = "tcp"      // a connection can be opened
	CheckHTTP     CheckType = "http"     // a GET is answered with an expected code
	CheckEngineIO CheckType = "engineio" // an Engine.IO handshake opens a session, which is closed again
	CheckNone     CheckType = "none"
)

// Check says how the gateways find out whether a node answers.
type Check struct {
	Type     CheckType `json:"type,omitempty"`     // default tcp
	Interval *Duration `json:"interval,omitempty"` // from check to check, ± 20 %; default 5s, engineio 30s
	Timeout  *Duration `json:"timeout,omitempty"`  // for the whole of a check; default 2s, or the interval if that is less
	Fall     *int      `json:"fall,omitempty"`     // failures in a row that make a node unhealthy; default 3
	Rise     *int      `json:"rise,omitempty"`     // successes in a row that make it healthy again; default 2
	Path     string    `json:"path,omitempty"`     // http: required; engineio: default "/socket.io/"
	Codes    []string  `json:"codes,omitempty"`    // http: "204" or "200-299"; default ["200-399"]
	Host     string    `json:"host,omitempty"`     // http, engineio: the Host header; default: the node's address
	TLS      *CheckTLS `json:"tls,omitempty"`      // http, engineio: checks over TLS
	Identity *Identity `json:"identity,omitempty"` // http, engineio: how a node proves that it is the one that registered
}

// CheckTLS says how a check speaks TLS.
type CheckTLS struct {
	Verify     *bool  `json:"verify,omitempty"`     // against the machine's certificate authorities; default true
	ServerName string `json:"serverName,omitempty"` // for SNI and verification; required when verify is on
}

// Identity is how a node proves that it is the one that registered, and not another that got its address: one of these.
type Identity struct {
	Header string `json:"header,omitempty"` // a response header whose value is the node's id
	SID    bool   `json:"sid,omitempty"`    // engineio: session ids begin with the node's id and a dot
	Path   string `json:"path,omitempty"`   // a path that answers 200 with the node's id, and nothing else, as text
}

// Codes is a range of HTTP status codes, both ends included.
type Codes struct{ First, Last int }

// ParseCodes reads "204" or "200-299".
func ParseCodes(s string) (Codes, error) {
	first, last, isRange := strings.Cut(s, "-")
	if !isRange {
		last = first
	}
	a, errA := strconv.Atoi(first)
	b, errB := strconv.Atoi(last)
	if errA != nil || errB != nil || len(first) != 3 || len(last) != 3 || a < 200 || b > 599 || a > b {
		return Codes{}, fmt.Errorf(`%q is neither a status code nor a range of them: write it as 204 or 200-299, from 200 to 599`, s)
	}
	return Codes{a, b}, nil
}

var (
	// What is asked of a node may have a query, other than the path of a route.
	checkTarget = regexp.MustCompile(`^/[!"\x24-\x7e]{0,999}$`)
	checkHostRE = regexp.MustCompile(`^[A-Za-z0-9._-]{1,253}(:[0-9]{1,5})?$|^\[[0-9A-Fa-f:.]{2,45}\](:[0-9]{1,5})?$`)
	serverName  = regexp.MustCompile(`^[A-Za-z0-9_]([A-Za-z0-9._-]{0,251}[A-Za-z0-9])?$`)
)

func (k Check) check(c checker) {
	oneOf(c.in("type"), k.Type, CheckTCP, CheckHTTP, CheckEngineIO, CheckNone)
	c.in("interval").duration(k.Interval, time.Second, time.Hour, time.Millisecond)
	c.in("timeout").duration(k.Timeout, 10*time.Millisecond, time.Minute, time.Millisecond)
	if d := k.withDefaults(); *d.Timeout > *d.Interval {
		c.in("timeout").add("%s is longer than the interval of %s: a node has one check at a time", short(time.Duration(*d.Timeout)), short(time.Duration(*d.Interval)))
	}
	c.in("fall").number(k.Fall, 1, 100)
	c.in("rise").number(k.Rise, 1, 100)

	switch k.Type {
	case CheckHTTP:
		if k.Path == "" {
			c.in("path").add("name the path that is asked for, as /health")
		}
	case CheckEngineIO:
		if strings.Contains(k.Path, "?") {
			c.in("path").add("%q has a query, and the handshake has one of its own: leave it out", k.Path)
		}
	default:
		k.refuse(c)
		return
	}
	if len(k.Codes) > 0 && k.Type != CheckHTTP {
		c.in("codes").add(`is for the type "http" only: leave it out`)
	}
	for i, s := range k.Codes {
		if _, err := ParseCodes(s); err != nil {
			c.in("codes", i).add("%s", err)
		}
	}
	checkRequestTarget(c.in("path"), k.Path)
	if k.Host != "" && !checkHostRE.MatchString(k.Host) {
		c.in("host").add("%q is no Host header: write a name or an address, with a port or without", k.Host)
	}
	if k.TLS != nil {
		k.TLS.check(c.in("tls"))
	}
	if k.Identity != nil {
		k.Identity.check(c.in("identity"), k.Type)
	}
}

// refuse adds an error for each field that only types have which speak HTTP.
func (k Check) refuse(c checker) {
	for _, f := range []struct {
		name string
		set  bool
	}{
		{"path", k.Path != ""}, {"codes", len(k.Codes) > 0}, {"host", k.Host != ""}, {"tls", k.TLS != nil}, {"identity", k.Identity != nil},
	} {
		switch {
		case !f.set:
		case f.name == "codes":
			c.in(f.name).add(`is for the type "http" only: set that, or leave it out`)
		default:
			c.in(f.name).add(`is for the types "http" and "engineio" only: set one of them, or leave it out`)
		}
	}
}

func (t CheckTLS) check(c checker) {
	switch {
	case t.ServerName != "":
		if !serverName.MatchString(t.ServerName) {
			c.in("serverName").add("%q is not the name of a server", t.ServerName)
		}
	case t.Verify == nil || *t.Verify:
		c.in("serverName").add("name what the certificate must be for, or set verify to false: nodes are known by their addresses")
	}
}

func (i Identity) check(c checker, t CheckType) {
	n := 0
	if i.Header != "" {
		n++
		if !headerName.MatchString(i.Header) {
			c.in("header").add("%q is not the name of a header: use letters, digits and dashes, at most 64", i.Header)
		}
	}
	if i.SID {
		n++
		if t != CheckEngineIO {
			c.in("sid").add(`is for the type "engineio" only: set that, or use header or path`)
		}
	}
	if i.Path != "" {
		n++
		checkRequestTarget(c.in("path"), i.Path)
	}
	if n != 1 {
		c.add("say one way in which a node proves who it is: header, sid or path")
	}
}

func checkRequestTarget(c checker, path string) {
	if path != "" && !checkTarget.MatchString(path) {
		c.add("%q is not a path: it starts with a slash, and has at most 1000 printable ASCII characters without spaces and #", path)
	}
}
