package templates

import (
	"slices"
	"strconv"
	"strings"
)

// siteView is the data of site.conf.tmpl.
type siteView struct {
	Servers []serverView
}

// serverView is one server block. A site has more than one when its sockets differ in what a listen directive cannot say:
// some redirect, or some speak HTTP/2 by directive.
type serverView struct {
	Site                token
	Listens             []token
	Names               []token
	HTTP2               bool     // by directive
	TLS                 *tlsView // nil without
	RequireTLS13        bool     // refuse requests that came over less
	KeepaliveMinTimeout bool
	GzipOff             bool // in an http block that is not ours
	RealIP              *realIPView
	AccessLog           token // the arguments; "off" for none
	Redirect            bool
	RedirectPort        token // with a colon; empty for 443
	Routes              []routeView
	NotFound            bool // no route takes the paths that the others leave
}

func (b *builder) sitePages() []page {
	seen := map[string]bool{}
	for i := range b.cfg.Sites {
		s := &b.cfg.Sites[i]
		object := "site/" + s.Name
		value(b, object, "name", name, s.Name)
		if seen[s.Name] {
			b.refuse(object, "is there twice")
		}
		seen[s.Name] = true
		b.join(object, s)
	}
	// Now every socket knows its sites, which decide on what its default server has to allow.
	pages := make([]page, 0, len(b.cfg.Sites))
	for i := range b.cfg.Sites {
		s := &b.cfg.Sites[i]
		pages = append(pages, page{"http/site-" + s.Name + ".conf", "site.conf.tmpl", b.site("site/"+s.Name, s)})
	}
	return pages
}

// join tells the sockets of a site about it.
func (b *builder) join(object string, s *Site) {
	if len(s.Hosts) == 0 && !s.CatchAll {
		b.refuse(object, "has no host")
	}
	if len(s.Sockets) == 0 {
		b.refuse(object, "has no socket")
	}
	for i, address := range s.Sockets {
		p := b.sockets[address]
		if p == nil || slices.Contains(s.Sockets[:i], address) {
			b.refuse(object, "socket %q is not in the configuration, or twice in the site", address)
			continue
		}
		if p.TLS {
			if s.Certificate == "" {
				b.refuse(object, "has no certificate for the TLS socket %s", address)
			}
			p.tls13Only = p.tls13Only && s.TLS13Only
			if p.certificate == "" {
				p.certificate = s.Certificate
			}
		}
		for _, h := range s.Hosts {
			h = strings.ToLower(h)
			if other, taken := p.hosts[h]; taken {
				b.refuse(object, "host %q on %s belongs to site/%s already", h, address, other)
			}
			p.hosts[h] = s.Name
		}
		if s.CatchAll {
			if p.catchAll != "" {
				b.refuse(object, "site/%s takes all names on %s already", p.catchAll, address)
			}
			p.catchAll = s.Name
		}
	}
}

func (b *builder) site(object string, s *Site) siteView {
	if s.Certificate != "" && !b.certificates[s.Certificate] {
		b.refuse(object, "certificate %q is not in the configuration", s.Certificate)
	}
	if s.RedirectPort < 0 || s.RedirectPort > 65535 {
		b.refuse(object, "redirect port %d is not between 0 and 65535", s.RedirectPort)
	}
	common := serverView{
		Site:                token(s.Name),
		KeepaliveMinTimeout: b.cfg.Capabilities.KeepaliveMinTimeout,
		GzipOff:             b.cfg.HTTPOnly,
		RealIP:              b.realIP(object, s.RealIP),
		AccessLog:           b.accessLog(object, s.AccessLog),
	}
	for _, h := range s.Hosts {
		common.Names = append(common.Names, value(b, object, "host", host, h))
	}
	routes, rest := b.routes(object, s)
	var view siteView
	for _, g := range b.groups(s) {
		v := common
		v.HTTP2 = g.http2
		tls13Only := s.TLS13Only
		for _, p := range g.sockets {
			v.Listens = append(v.Listens, b.listen(p, s.CatchAll))
			if s.CatchAll {
				// Before 1.29 the default server of a socket decides which protocols a handshake may use.
				tls13Only = tls13Only && p.tls13Only
			}
		}
		if g.tls {
			v.TLS = b.tls(s.Certificate, tls13Only)
			v.RequireTLS13 = s.TLS13Only
		}
		if g.redirect {
			v.Redirect = true
			if s.RedirectPort != 443 {
				v.RedirectPort = token(":" + strconv.Itoa(s.RedirectPort))
			}
		} else {
			v.Routes, v.NotFound = routes, rest
		}
		view.Servers = append(view.Servers, v)
	}
	return view
}

// group is the sockets of a site that can share a server block.
type group struct {
	redirect bool
	http2    bool
	tls      bool // any of them has TLS
	sockets  []*socketPlan
}

func (b *builder) groups(s *Site) []group {
	var groups []group
	for _, address := range s.Sockets {
		p := b.sockets[address]
		if p == nil {
			continue // refused before
		}
		redirect := s.RedirectPort != 0 && !p.TLS
		http2 := p.HTTP2 && b.cfg.Capabilities.HTTP2Directive
		i := slices.IndexFunc(groups, func(g group) bool { return g.redirect == redirect && g.http2 == http2 })
		if i < 0 {
			i = len(groups)
			groups = append(groups, group{redirect: redirect, http2: http2})
		}
		groups[i].tls = groups[i].tls || p.TLS
		groups[i].sockets = append(groups[i].sockets, p)
	}
	return groups
}

// accessLog writes the arguments of access_log. Lines are gathered for up to a second: a system call for each request
// costs more than everything else in the log.
func (b *builder) accessLog(object, path string) token {
	if path == "" {
		return "off"
	}
	write := quote // relative to nginx's prefix, which is ours
	if b.cfg.HTTPOnly {
		write = absolute
	}
	return value(b, object, "access log", write, path) + " sluice_json buffer=64k flush=1s"
}
