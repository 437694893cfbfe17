package spec

import (
	"fmt"
	"net/netip"
	"slices"
)

// Reference is one object that a site names.
type Reference struct {
	Field       string // a JSON pointer into the site
	Certificate bool   // else it is an upstream
	Name        string
}

// References returns the objects that s names, in the order of the fields.
func (s Site) References() []Reference {
	var out []Reference
	if s.Certificate != "" {
		out = append(out, Reference{"/certificate", true, s.Certificate})
	}
	for i, r := range s.Routes {
		if r.Upstream != "" {
			out = append(out, Reference{fmt.Sprintf("/routes/%d/upstream", i), false, r.Upstream})
		}
	}
	return out
}

// Missing returns the error that says that there is no such object.
func (r Reference) Missing() FieldError {
	kind := "upstream"
	if r.Certificate {
		kind = "certificate"
	}
	return FieldError{r.Field, fmt.Sprintf("there is no %s %q: create it first, or in the same change", kind, r.Name)}
}

// Sockets notes which site listens where, and finds the contradictions between sites that a gateway serves together.
// The zero value is ready to use.
type Sockets struct {
	uses  map[socket]use
	hosts map[hostOn]string
}

type (
	socket struct {
		group string
		netip.AddrPort
	}
	use struct {
		site     string
		listener Listener
	}
	hostOn struct {
		socket
		host string
	}
)

// Add notes a site, unless it contradicts those that were noted before: then it returns where, options of a listener that
// they share or a host that both have on it, and notes nothing.
func (s *Sockets) Add(name string, site Site) []FieldError {
	site = site.WithDefaults()
	if errs := s.contradictions(name, site); len(errs) > 0 {
		return errs
	}
	if s.uses == nil {
		s.uses, s.hosts = map[socket]use{}, map[hostOn]string{}
	}
	for _, l := range site.Listeners {
		for _, at := range site.on(l) {
			if _, shared := s.uses[at]; !shared {
				s.uses[at] = use{name, l}
			}
			for _, h := range site.Hosts {
				s.hosts[hostOn{at, h}] = name
			}
		}
	}
	return nil
}

func (s *Sockets) contradictions(name string, site Site) []FieldError {
	c := newChecker()
	taken := map[string]bool{} // one error for each host, however many sockets it shares
	for i, l := range site.Listeners {
		clash := "" // and one for each listener
		for _, at := range site.on(l) {
			if first, shared := s.uses[at]; shared && first.site != name {
				if option := first.listener.differs(l); option != "" && clash == "" {
					clash = fmt.Sprintf("%s is a listener of site %q too, there with another value of %s: make them agree", at.AddrPort, first.site, option)
				}
			}
			for j, h := range site.Hosts {
				if other, ok := s.hosts[hostOn{at, h}]; ok && other != name && !taken[h] {
					c.in("hosts", j).add("site %q has %q on %s too: give it to one of them", other, h, at.AddrPort)
					taken[h] = true
				}
			}
		}
		if clash != "" {
			c.in("listeners", i).add("%s", clash)
		}
	}
	return *c.errs
}

// SharesHost reports whether both sites have a host, on whatever socket: without one, neither takes it from the other.
func (s Site) SharesHost(o Site) bool {
	return slices.ContainsFunc(s.Hosts, func(h string) bool { return slices.Contains(o.Hosts, h) })
}

// DiffersOnPort reports whether the sites have listeners with other options on one port, of whatever address.
func (s Site) DiffersOnPort(o Site) bool {
	return slices.ContainsFunc(s.Listeners, func(l Listener) bool {
		return slices.ContainsFunc(o.Listeners, func(m Listener) bool { return l.Port == m.Port && l.differs(m) != "" })
	})
}

// on returns the sockets of a listener, for each group of the site.
func (s Site) on(l Listener) []socket {
	var out []socket
	for _, group := range s.Groups {
		for _, addr := range l.sockets() {
			out = append(out, socket{group, addr})
		}
	}
	return out
}

// differs names an option in which two listeners of one socket differ, or returns "".
func (l Listener) differs(o Listener) string {
	switch {
	case l.TLS != o.TLS:
		return "tls"
	case l.HTTP2 != o.HTTP2:
		return "http2"
	case l.ProxyProtocol != o.ProxyProtocol:
		return "proxyProtocol"
	default:
		return ""
	}
}
