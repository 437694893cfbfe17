package spec

import (
	"fmt"
	"net/netip"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// Role is what a caller of the API may do.
type Role string

// The roles. A registrar is for nodes and what starts them; the others may do what those before them may.
const (
	Viewer    Role = "viewer"    // read everything but keys
	Registrar Role = "registrar" // register and remove nodes, within limits
	Operator  Role = "operator"  // change the desired state
	Admin     Role = "admin"     // and say who may
)

// Roles are all roles.
func Roles() []Role { return []Role{Viewer, Registrar, Operator, Admin} }

// Token is who may use the API, and for what.
type Token struct {
	Role    Role       `json:"role"`
	Hash    string     `json:"hash,omitempty"`    // hex SHA-256 of the token's text; set by the API
	Created *time.Time `json:"created,omitempty"` // set by the API
	Expires *time.Time `json:"expires,omitempty"` // default: never
	Note    string     `json:"note,omitempty"`
	Limits  *Limits    `json:"limits,omitempty"` // of a registrar; required for one
}

// Limits are the nodes that a registrar may register.
type Limits struct {
	Services []string `json:"services"`           // required; "*" is any
	Networks []string `json:"networks,omitempty"` // of the nodes' addresses, as 10.0.0.0/8; default: any
	Ports    []string `json:"ports,omitempty"`    // "6001" or "6000-6999"; default: any
}

// AnyService is the service of Limits that stands for all.
const AnyService = "*"

var tokenHash = regexp.MustCompile(`^[0-9a-f]{64}$`)

// Validate returns what is wrong with t.
func (t Token) Validate() []FieldError {
	c := newChecker()
	if t.Role == "" {
		c.in("role").add("say what the token is for: one of %s", list(Roles()...))
	}
	oneOf(c.in("role"), t.Role, Roles()...)
	if t.Hash != "" && !tokenHash.MatchString(t.Hash) {
		c.in("hash").add("is not the hex SHA-256 of a token: leave it out")
	}
	c.in("note").text(t.Note, 1000)
	switch {
	case t.Role == Registrar && t.Limits == nil:
		c.in("limits").add(`a registrar needs limits: {services: [io]}, or {services: ["*"]} for any`)
	case t.Role != Registrar && t.Limits != nil:
		c.in("limits").add(`are for the role "registrar" only: leave them out`)
	case t.Limits != nil:
		t.Limits.check(c.in("limits"))
	}
	return *c.errs
}

func (l Limits) check(c checker) {
	if len(l.Services) == 0 {
		c.in("services").add(`name the services, or "*" for any`)
	}
	for i, s := range l.Services {
		if s != AnyService {
			c.in("services", i).name(s)
		}
	}
	for i, n := range l.Networks {
		if _, err := netip.ParsePrefix(n); err != nil {
			c.in("networks", i).add("%q is not a network: write it as 10.0.0.0/8 or fd00::/8", n)
		}
	}
	for i, p := range l.Ports {
		if _, _, err := parsePorts(p); err != nil {
			c.in("ports", i).add("%s", err)
		}
	}
}

// parsePorts reads "6001" or "6000-6999".
func parsePorts(s string) (first, last int, err error) {
	a, b, isRange := strings.Cut(s, "-")
	if !isRange {
		b = a
	}
	first, errA := strconv.Atoi(a)
	last, errB := strconv.Atoi(b)
	if errA != nil || errB != nil || first < 1 || last > 65535 || first > last {
		return 0, 0, fmt.Errorf("%q is neither a port nor a range of ports: write it as 6001 or 6000-6999", s)
	}
	return first, last, nil
}

// AllowsService says whether nodes of the service may be registered or removed.
func (l Limits) AllowsService(service string) bool {
	for _, s := range l.Services {
		if s == service || s == AnyService {
			return true
		}
	}
	return false
}

// AllowsAddress returns what speaks against a node's address and port, or nil. A unix socket is in no network and has no
// port: it is allowed where neither is limited.
func (l Limits) AllowsAddress(address string, port int) []FieldError {
	c := newChecker()
	addr, err := netip.ParseAddr(address)
	in := len(l.Networks) == 0
	for _, n := range l.Networks {
		prefix, bad := netip.ParsePrefix(n)
		in = in || bad == nil && err == nil && prefix.Contains(addr.Unmap())
	}
	if !in {
		c.in("address").add("the token registers nodes in %s only", list(l.Networks...))
	}
	on := len(l.Ports) == 0
	for _, p := range l.Ports {
		first, last, bad := parsePorts(p)
		on = on || bad == nil && port >= first && port <= last
	}
	if !on {
		c.in("port").add("the token registers nodes on the ports %s only", list(l.Ports...))
	}
	return *c.errs
}
