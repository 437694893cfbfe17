package spec

import (
	"net/netip"
	"regexp"
	"strings"
)

// FromProxyProtocol is the value of ClientAddress.From that takes the address from the PROXY protocol's header.
const FromProxyProtocol = "proxy_protocol"

// AnyHost is the host of a site that serves every name which no other site on the listener has.
const AnyHost = "*"

// Validate returns what is wrong with s, as it was submitted. References to other objects are not looked at.
func (s Site) Validate() []FieldError {
	c := newChecker()
	checkOwner(c, s.Owner)
	for i, g := range s.Groups {
		c.in("groups", i).name(g)
	}
	unique(c.in("groups"), s.Groups)
	if len(s.Hosts) == 0 {
		c.in("hosts").add(`a site needs at least one host: a name, "*.example.com", or "*" for any`)
	}
	for i, h := range s.Hosts {
		checkHost(c.in("hosts", i), h)
	}
	unique(c.in("hosts"), s.Hosts)
	plain, tls := s.checkListeners(c.in("listeners"))

	if s.Certificate != "" {
		c.in("certificate").name(s.Certificate)
	} else if tls {
		c.in("certificate").add("a listener has tls: name the certificate that it shows")
	}
	if s.TLS != nil {
		oneOf(c.in("tls", "minVersion"), s.TLS.MinVersion, "1.2", "1.3")
	}
	if s.RedirectToHTTPS && (!plain || !tls) {
		c.in("redirectToHTTPS").add("needs a listener without tls, to redirect from, and one with tls, to redirect to")
	}
	if s.ClientAddress != nil {
		s.ClientAddress.check(c.in("clientAddress"), s.Listeners)
	}
	s.checkRoutes(c.in("routes"))
	return *c.errs
}

// checkListeners also tells whether there are listeners without and with tls.
func (s Site) checkListeners(c checker) (plain, tls bool) {
	if len(s.Listeners) == 0 {
		c.add("a site needs at least one listener, as {port: 80}")
	}
	taken := map[netip.AddrPort]int{}
	for i, l := range s.Listeners {
		c := c.in(i)
		plain, tls = plain || !l.TLS, tls || l.TLS
		c.in("port").number(&l.Port, 1, 65535)
		if l.HTTP2 && !l.TLS {
			c.in("http2").add("browsers speak HTTP/2 only over TLS: set tls, or leave http2 out")
		}
		if !l.checkAddress(c.in("address")) {
			continue
		}
		for _, a := range l.sockets() {
			if first, ok := taken[a]; ok {
				c.add("listens on %s, as listener %d does: leave one out", a, first)
				break
			}
			taken[a] = i
		}
	}
	return plain, tls
}

func (l Listener) checkAddress(c checker) bool {
	if l.Address == "" {
		return true
	}
	addr, err := netip.ParseAddr(l.Address)
	switch {
	case err != nil:
		c.add("%q is not an IP address: write an address of the gateway, or leave it out to listen on all", l.Address)
	case addr.Zone() != "":
		c.add("%q has a zone: write it without, or leave the address out", l.Address)
	case addr.Is4In6():
		c.add("%q is an IPv4 address in IPv6 form: write %s", l.Address, addr.Unmap())
	case addr.IsMulticast():
		c.add("%q is a multicast address: TCP has none", l.Address)
	default:
		return true
	}
	return false
}

// sockets returns the sockets that l stands for: without an address, one for all of IPv4 and one for all of IPv6.
func (l Listener) sockets() []netip.AddrPort {
	port := uint16(l.Port)
	if l.Address == "" {
		return []netip.AddrPort{
			netip.AddrPortFrom(netip.IPv4Unspecified(), port),
			netip.AddrPortFrom(netip.IPv6Unspecified(), port),
		}
	}
	addr, err := netip.ParseAddr(l.Address)
	if err != nil {
		return nil
	}
	return []netip.AddrPort{netip.AddrPortFrom(addr, port)}
}

func (a ClientAddress) check(c checker, listeners []Listener) {
	if len(a.TrustedProxies) == 0 {
		c.in("trustedProxies").add("say whom to believe, as 10.0.0.0/8; without trusted proxies leave clientAddress out")
	}
	for i, p := range a.TrustedProxies {
		checkNetwork(c.in("trustedProxies", i), p)
	}
	unique(c.in("trustedProxies"), a.TrustedProxies)
	switch {
	case a.From == FromProxyProtocol:
		for _, l := range listeners {
			if l.ProxyProtocol {
				return
			}
		}
		c.in("from").add("no listener of the site has proxyProtocol: set it there, or take the address from a header")
	case a.From != "" && !headerName.MatchString(a.From):
		c.in("from").add(`%q is neither the name of a header (letters, digits and dashes) nor "proxy_protocol"`, a.From)
	}
}

func checkNetwork(c checker, s string) {
	if !strings.Contains(s, "/") {
		if addr, err := netip.ParseAddr(s); err != nil || addr.Zone() != "" {
			c.add("%q is neither an address nor a network: write it as 10.0.0.0/8 or 10.1.2.3", s)
		}
		return
	}
	prefix, err := netip.ParsePrefix(s)
	if err != nil {
		c.add("%q is not a network: write it as 10.0.0.0/8 or fd00::/8", s)
		return
	}
	if masked := prefix.Masked(); masked != prefix {
		c.add("%q has bits set beyond its length, of which nginx warns: write %s", s, masked)
	}
}

// Underscores are not in the DNS rules for hosts, but names in containers have them.
var hostLabel = regexp.MustCompile(`^[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?$`)

func checkHost(c checker, host string) {
	if host == AnyHost {
		return
	}
	bare, _ := strings.CutPrefix(host, "*.")
	switch {
	case strings.ToLower(host) != host:
		c.add("%q has capitals: names are compared in lower case, write %q", host, strings.ToLower(host))
		return
	case strings.HasSuffix(host, "."):
		c.add("%q ends with a dot: leave it out", host)
		return
	case strings.Contains(host, ":"):
		c.add("%q has a colon: ports belong to the listeners, and IPv6 addresses cannot be hosts", host)
		return
	case strings.Contains(bare, "*"):
		c.add(`%q: a "*" is only possible as the whole first label, as in "*.example.com", or alone`, host)
		return
	}
	if len(host) <= 253 {
		bad := false
		for label := range strings.SplitSeq(bare, ".") {
			bad = bad || !hostLabel.MatchString(label)
		}
		if !bad {
			return
		}
	}
	c.add("%q is not a host name: use labels of letters, digits and dashes, international names as xn--…", host)
}

// unique adds an error at each value that was there before.
func unique(c checker, values []string) {
	seen := map[string]bool{}
	for i, v := range values {
		if seen[v] {
			c.in(i).add("%q is there twice: leave one out", v)
		}
		seen[v] = true
	}
}
