package registry

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// Node is one socket server process.
type Node struct {
	Service     string            `json:"service"`
	ID          string            `json:"id"`                    // printable, at most 253 bytes; unique in its service
	Address     string            `json:"address"`               // an IPv4 or IPv6 address, or unix:/path
	Port        int               `json:"port,omitempty"`        // 1 to 65535; 0 for a unix socket
	Weight      int               `json:"weight,omitempty"`      // share of new connections, 1 to 1000; 0 means 1
	MaxConns    int               `json:"maxConns,omitempty"`    // simultaneous connections per gateway; 0 means no limit
	Zone        string            `json:"zone,omitempty"`        // where it runs
	Tags        []string          `json:"tags,omitempty"`        // by which upstreams choose nodes
	Meta        map[string]string `json:"meta,omitempty"`        // free text of its own
	Incarnation string            `json:"incarnation,omitempty"` // tells a node from its successor under the same id
}

// NodeRef names a node; an empty Incarnation means whichever is there.
type NodeRef struct {
	Service     string `json:"service"`
	ID          string `json:"id"`
	Incarnation string `json:"incarnation,omitempty"`
}

func (r NodeRef) String() string { return r.Service + "/" + r.ID }

// Ref returns the name of n.
func (n Node) Ref() NodeRef { return NodeRef{n.Service, n.ID, n.Incarnation} }

// Key returns the 10 hex digits by which n is known in file names, variable names, cookies and slots.
func (n Node) Key() string { return NodeKey(n.Service, n.ID) }

// NodeKey returns the Key of the node: the first 40 bits of the SHA-256 of service, NUL, id.
func NodeKey(service, id string) string {
	sum := sha256.Sum256([]byte(service + "\x00" + id))
	return hex.EncodeToString(sum[:5])
}

// endpointsPrefix marks services whose nodes are not registered with sluice but by etcd's naming/endpoints.
const endpointsPrefix = "endpoints:"

// EndpointsService returns the service name under which the nodes appear that etcd's naming/endpoints package keeps
// below the key prefix target.
func EndpointsService(target string) string { return endpointsPrefix + strings.TrimSuffix(target, "/") }

// EndpointsTarget is the inverse of EndpointsService; ok is false for a service of sluice's own.
func EndpointsTarget(service string) (target string, ok bool) {
	return strings.CutPrefix(service, endpointsPrefix)
}

// TombstoneTTL is how long it is known that a node left on purpose.
const TombstoneTTL = 10 * time.Minute

// MaxTags is how many tags a node may have.
const MaxTags = 64

// Limits of what a node may say of itself.
const (
	maxIDBytes   = 253
	maxMeta      = 32
	maxMetaBytes = 4096
	maxWeight    = 1000
)

var (
	serviceName = regexp.MustCompile(`^[a-z0-9]([a-z0-9._-]{0,61}[a-z0-9])?$`)
	unixPath    = regexp.MustCompile(`^/[A-Za-z0-9._/@+-]{1,100}$`)
)

// ValidName reports whether s can name a service or an object: 1 to 63 lower-case letters, digits, dots, dashes and
// underscores, with a letter or digit at both ends.
func ValidName(s string) bool { return serviceName.MatchString(s) }

// ValidTag reports whether s can be a tag of a node.
func ValidTag(s string) bool { return s != "" && len(s) <= maxIDBytes && printable(s) }

// Validate returns what is wrong with n, or nil. The message names the field and says what it takes.
func (n Node) Validate() error {
	var errs []error
	bad := func(field, format string, args ...any) {
		errs = append(errs, fmt.Errorf("%s: %s", field, fmt.Sprintf(format, args...)))
	}
	if _, ok := EndpointsTarget(n.Service); !ok && !ValidName(n.Service) {
		bad("service", "%q is not a name: use lower-case letters, digits, dots, dashes and underscores, at most 63", n.Service)
	}
	if n.ID == "" || len(n.ID) > maxIDBytes || !printable(n.ID) {
		bad("id", "must be 1 to %d bytes of printable text", maxIDBytes)
	}
	if path, ok := strings.CutPrefix(n.Address, "unix:"); ok {
		if !unixPath.MatchString(path) {
			bad("address", "%q is not the absolute path of a unix socket of at most 100 plain characters", n.Address)
		}
		if n.Port != 0 {
			bad("port", "a unix socket has none: leave it out")
		}
	} else {
		addr, err := netip.ParseAddr(n.Address)
		switch {
		case err != nil:
			bad("address", "%q is not an IP address: host names are not resolved, register the address", n.Address)
		case addr.Zone() != "":
			bad("address", "%q has a zone: register a global or unique local address", n.Address)
		case addr.IsUnspecified() || addr.IsMulticast():
			bad("address", "%q is no address to connect to", n.Address)
		}
		if n.Port < 1 || n.Port > 65535 {
			bad("port", "%d is not between 1 and 65535", n.Port)
		}
	}
	if n.Weight < 0 || n.Weight > maxWeight {
		bad("weight", "%d is not between 1 and %d", n.Weight, maxWeight)
	}
	if n.MaxConns < 0 || n.MaxConns > 1_000_000 {
		bad("maxConns", "%d is not between 0 (no limit) and 1000000", n.MaxConns)
	}
	if len(n.Zone) > maxIDBytes || !printable(n.Zone) {
		bad("zone", "must be printable text of at most %d bytes", maxIDBytes)
	}
	if len(n.Incarnation) > maxIDBytes || !printable(n.Incarnation) {
		bad("incarnation", "must be printable text of at most %d bytes", maxIDBytes)
	}
	if len(n.Tags) > MaxTags || slices.ContainsFunc(n.Tags, func(t string) bool { return !ValidTag(t) }) {
		bad("tags", "must be at most %d texts of 1 to %d printable bytes", MaxTags, maxIDBytes)
	}
	size := 0
	for k, v := range n.Meta {
		size += len(k) + len(v)
		if !printable(k) || !utf8.ValidString(v) {
			bad("meta", "key %q or its value is not printable text", k)
		}
	}
	if len(n.Meta) > maxMeta || size > maxMetaBytes {
		bad("meta", "has %d entries of %d bytes; the limit is %d entries and %d bytes", len(n.Meta), size, maxMeta, maxMetaBytes)
	}
	return errors.Join(errs...)
}

// HostPort returns the address as nginx and Go's dialers write it: "10.0.0.1:80", "[fd00::1]:80", "unix:/run/n1.sock".
func (n Node) HostPort() string {
	if strings.HasPrefix(n.Address, "unix:") {
		return n.Address
	}
	addr, err := netip.ParseAddr(n.Address)
	if err != nil {
		return n.Address + ":" + strconv.Itoa(n.Port)
	}
	return netip.AddrPortFrom(addr.Unmap(), uint16(n.Port)).String()
}

func printable(s string) bool {
	if !utf8.ValidString(s) {
		return false
	}
	for _, r := range s {
		if !unicode.IsPrint(r) {
			return false
		}
	}
	return true
}
