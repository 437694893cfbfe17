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
		c.choose(o.Ref(), func(o registry.Object) []spec.FieldError {
			site, faults := Recall[spec.Site](c.facts.Readings, o)
			if len(faults) > 0 {
				return faults
			}
			if len(site.Groups) > 0 && !slices.Contains(site.Groups, c.facts.Group) {
				return nil // without the work of the defaults: most sites of a large fleet may be elsewhere
			}
			site = site.WithDefaults()
			if !slices.Contains(site.Groups, c.facts.Group) {
				return nil
			}
			site.Groups = []string{c.facts.Group} // what is elsewhere contradicts nobody here
			return c.addSite(o.Ref(), site)
		})
	}
}

// addSite adds a site, or changes nothing and returns why not.
func (c *compiler) addSite(ref registry.Ref, site spec.Site) []spec.FieldError {
	wanted := c.listening(site)
	config := templates.Site{Name: ref.Name, TLS13Only: site.TLS.MinVersion == "1.3"}
	var certificate *certificate
	if slices.ContainsFunc(wanted, func(s templates.Socket) bool { return s.TLS }) {
		if !c.facts.Capabilities.SSL {
			return []spec.FieldError{{Field: "/listeners", Message: "this gateway's nginx was built without TLS (http_ssl_module)"}}
		}
		cert := c.certificate(site.Certificate)
		if cert == nil {
			return []spec.FieldError{{Field: "/certificate", Message: fmt.Sprintf("certificate %q does not exist or can't be used", site.Certificate)}}
		}
		certificate, config.Certificate = cert, site.Certificate
	}
	if faults := c.taken.Add(ref.Name, site); len(faults) > 0 {
		return faults
	}
	if certificate != nil {
		certificate.used = true
	}
	if *site.AccessLog {
		config.AccessLog = c.facts.AccessLog
	}
	for _, host := range site.Hosts {
		if host == spec.AnyHost {
			config.CatchAll = true
		} else {
			config.Hosts = append(config.Hosts, host)
		}
	}
	for _, s := range wanted {
		s.CatchAll = config.CatchAll || c.sockets[s.Address].CatchAll
		c.sockets[s.Address] = s
		config.Sockets = append(config.Sockets, s.Address)
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
func (c *compiler) listening(site spec.Site) []templates.Socket {
	var list []templates.Socket
	for _, l := range site.Listeners {
		for _, address := range c.addresses(l) {
			list = append(list, templates.Socket{
				Address: address, TLS: l.TLS, ProxyProtocol: l.ProxyProtocol,
				HTTP2: l.HTTP2 && c.facts.Capabilities.HTTP2,
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
		Exact:              r.Match == spec.MatchExact,
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
