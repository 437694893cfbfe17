package controlplane

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"sluice/controlplane/spec"
	"sluice/registry"
	"sluice/templates"
)

// socket is a listening socket with the names that are taken on it.
type socket struct {
	config templates.Socket
	owner  string            // the site that brought it
	hosts  map[string]string // host name -> site
}

// addSites compiles the sites of the gateway's group. Of two that want the same name on the same socket, the one that was
// there first keeps it.
func (c *compiler) addSites() {
	var refs []registry.Object
	for _, o := range c.snapshot.Objects {
		if o.Kind == registry.KindSite {
			refs = append(refs, o)
		}
	}
	slices.SortStableFunc(refs, func(a, b registry.Object) int { return cmp.Compare(a.Seq, b.Seq) })
	for _, o := range refs {
		c.choose(o.Ref(), func(o registry.Object) []fault {
			site, faults := read[spec.Site](o)
			if len(faults) > 0 {
				return faults
			}
			site = site.WithDefaults()
			if !slices.Contains(site.Groups, c.facts.Group) {
				return nil
			}
			return c.addSite(o.Ref(), site)
		})
	}
}

// listening is a socket that a site asks for.
type listening struct {
	templates.Socket
	field string // JSON pointer to the listener
}

// addSite adds a site, or changes nothing and returns why not.
func (c *compiler) addSite(ref registry.Ref, site spec.Site) []fault {
	wanted := c.listening(site)
	if faults := c.conflicts(ref.Name, site, wanted); len(faults) > 0 {
		return faults
	}
	config := templates.Site{Name: ref.Name, TLS13Only: site.TLS.MinVersion == "1.3"}
	if slices.ContainsFunc(wanted, func(l listening) bool { return l.TLS }) {
		if !c.facts.Capabilities.SSL {
			return []fault{{"/listeners", "this gateway's nginx was built without TLS (http_ssl_module)"}}
		}
		cert := c.certificate(site.Certificate)
		if cert == nil {
			return []fault{{"/certificate", fmt.Sprintf("certificate %q does not exist or can't be used", site.Certificate)}}
		}
		cert.used = true
		config.Certificate = site.Certificate
	}
	if *site.AccessLog {
		config.AccessLog = c.facts.AccessLog
	}
	for _, host := range site.Hosts {
		if host == "*" {
			config.CatchAll = true
		} else {
			config.Hosts = append(config.Hosts, host)
		}
	}
	for _, l := range wanted {
		s := c.sockets[l.Address]
		if s == nil {
			s = &socket{config: l.Socket, owner: ref.Name, hosts: map[string]string{}}
			c.sockets[l.Address] = s
		}
		s.config.CatchAll = s.config.CatchAll || config.CatchAll
		for _, host := range site.Hosts {
			s.hosts[host] = ref.Name
		}
		config.Sockets = append(config.Sockets, l.Address)
	}
	if site.RedirectToHTTPS {
		for _, l := range site.Listeners {
			if l.TLS {
				config.RedirectPort = l.Port
				break
			}
		}
	}
	config.RealIP = c.realIP(ref, site)
	for i, r := range site.Routes {
		config.Routes = append(config.Routes, c.route(ref, i, r, config.RealIP))
	}
	c.sites = append(c.sites, config)
	return nil
}

// listening returns the sockets of a site, in the order of its listeners.
func (c *compiler) listening(site spec.Site) []listening {
	var list []listening
	for i, l := range site.Listeners {
		for _, address := range c.addresses(l) {
			list = append(list, listening{
				Socket: templates.Socket{
					Address: address, TLS: l.TLS, ProxyProtocol: l.ProxyProtocol,
					HTTP2: l.HTTP2 && c.facts.Capabilities.HTTP2,
				},
				field: "/listeners/" + strconv.Itoa(i),
			})
		}
	}
	return list
}

func (c *compiler) addresses(l spec.Listener) []string {
	port := strconv.Itoa(l.Port)
	if l.Address == "" {
		if c.facts.Capabilities.IPv6 {
			return []string{"*:" + port, "[::]:" + port}
		}
		return []string{"*:" + port}
	}
	addr, err := netip.ParseAddr(l.Address)
	if err != nil { // validated before
		return nil
	}
	if addr == netip.IPv4Unspecified() {
		return []string{"*:" + port} // one spelling, so that sites which share the socket agree on it
	}
	return []string{netip.AddrPortFrom(addr.Unmap(), uint16(l.Port)).String()}
}

// conflicts returns what a site can't share with those that are there already.
func (c *compiler) conflicts(name string, site spec.Site, wanted []listening) []fault {
	var faults []fault
	for _, l := range wanted {
		s := c.sockets[l.Address]
		if s == nil {
			continue
		}
		options := l.Socket
		options.CatchAll = s.config.CatchAll
		if options != s.config {
			faults = append(faults, fault{l.field, fmt.Sprintf(
				"%s is also a listener of site %q, with other options: tls, http2 and proxyProtocol must be the same", l.Address, s.owner)})
		}
		for i, host := range site.Hosts {
			if other, taken := s.hosts[host]; taken && other != name {
				faults = append(faults, fault{"/hosts/" + strconv.Itoa(i), fmt.Sprintf(
					"%q on %s belongs to site %q already", host, l.Address, other)})
			}
		}
	}
	return faults
}

func (c *compiler) realIP(ref registry.Ref, site spec.Site) *templates.RealIP {
	if site.ClientAddress == nil || len(site.ClientAddress.TrustedProxies) == 0 {
		return nil
	}
	if !c.facts.Capabilities.Realip {
		c.problem(ref, "/clientAddress", "this gateway's nginx was built without http_realip_module: the proxies' addresses are taken for the clients'")
		return nil
	}
	return &templates.RealIP{Trusted: site.ClientAddress.TrustedProxies, Header: site.ClientAddress.From}
}

func (c *compiler) route(ref registry.Ref, i int, r spec.Route, realIP *templates.RealIP) templates.Route {
	route := templates.Route{
		Path:               r.Path,
		Exact:              r.Match == "exact",
		Sessions:           r.Kind == spec.SocketIO,
		Upgrade:            r.Kind != spec.HTTP,
		ConnectTimeout:     time.Duration(*r.ConnectTimeout),
		ReadTimeout:        time.Duration(*r.ReadTimeout),
		SendTimeout:        time.Duration(*r.SendTimeout),
		Tries:              *r.Retries.Tries,
		TriesTimeout:       time.Duration(*r.Retries.Timeout),
		MaxBodySize:        int64(*r.MaxBodySize),
		BufferSize:         int64(*r.BufferSize),
		Buffering:          *r.Buffering,
		RequestBuffering:   true,
		AppendForwardedFor: realIP != nil && strings.EqualFold(realIP.Header, "X-Forwarded-For"),
	}
	switch u := c.upstream(r.Upstream); {
	case u == nil:
		c.problem(ref, fmt.Sprintf("/routes/%d/upstream", i), "upstream %q does not exist or can't be used: the route answers 503", r.Upstream)
	case u.up > 0:
		route.Upstream = r.Upstream
	}
	return route
}
