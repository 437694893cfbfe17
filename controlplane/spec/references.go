package spec

import (
	"fmt"
	"maps"
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

// Conflicts returns where sites that a gateway serves together contradict each other: options of a listener that they
// share, or a host that both have on it. The error is at the site that comes later by name.
func Conflicts(sites map[string]Site) []FieldError {
	c := newChecker()
	type socket struct {
		group string
		netip.AddrPort
	}
	type use struct {
		site     string
		listener Listener
	}
	type host struct {
		socket
		name string
	}
	sockets, hosts := map[socket]use{}, map[host]string{}
	for _, name := range slices.Sorted(maps.Keys(sites)) {
		site := sites[name].WithDefaults()
		taken := map[string]bool{} // one error for each host, however many sockets it shares
		for i, l := range site.Listeners {
			c := c.in(name)
			reported := false
			for _, group := range site.Groups {
				for _, addr := range l.sockets() {
					s := socket{group, addr}
					first, shared := sockets[s]
					if !shared {
						sockets[s] = use{name, l}
					} else if option := first.listener.differs(l); option != "" && first.site != name && !reported {
						c.in("listeners", i).add("%s is a listener of site %q too, there with another value of %s: make them agree", addr, first.site, option)
						reported = true
					}
					for j, h := range site.Hosts {
						k := host{s, h}
						if other, ok := hosts[k]; !ok {
							hosts[k] = name
						} else if other != name && !taken[h] {
							c.in("hosts", j).add("site %q has %q on %s too: give it to one of them", other, h, addr)
							taken[h] = true
						}
					}
				}
			}
		}
	}
	return *c.errs
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
