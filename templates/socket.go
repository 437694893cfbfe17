package templates

import (
	"net/netip"
	"slices"
	"strings"
)

// defaultServerView is one server of sockets.conf.tmpl: it refuses the names that no site has.
type defaultServerView struct {
	Listen token
	HTTP2  bool // by directive
	// TLS is set on a TLS socket. Reject ends its handshake; without it the certificate of some site is shown, and the
	// request refused.
	TLS                 *tlsView
	Reject              bool
	KeepaliveMinTimeout bool
}

// socketPlan is a socket with what its sites mean for it.
type socketPlan struct {
	Socket
	at      string // as it is listened on: "*:80" and "0.0.0.0:80" are the same
	port    uint16
	options token // of the default server's listen directive alone
	// certificate is that of the first site, and tls13Only says that all sites want no less.
	certificate string
	tls13Only   bool
	hosts       map[string]string // host name -> site
	catchAll    string            // the site that is the default server
}

func (b *builder) addSockets() {
	seen := map[string]string{} // listened address -> as the Config spells it
	for _, s := range b.cfg.Sockets {
		object := "socket/" + s.Address
		p := &socketPlan{Socket: s, tls13Only: true, hosts: map[string]string{}}
		var err error
		if p.at, p.port, err = listenAddress(s.Address); err != nil {
			b.refuse(object, "%w", err)
		}
		if other, ok := seen[p.at]; ok && err == nil {
			b.refuse(object, "is the same as socket %s", other)
		}
		seen[p.at] = s.Address
		switch caps := b.cfg.Capabilities; {
		case s.TLS && !caps.SSL:
			b.refuse(object, "has TLS, and this nginx was built without http_ssl_module")
		case s.HTTP2 && !s.TLS:
			b.refuse(object, "has HTTP/2 without TLS, which would end HTTP/1.1 on it")
		case s.HTTP2 && !caps.HTTP2:
			b.refuse(object, "has HTTP/2, and this nginx was built without http_v2_module")
		}
		b.sockets[s.Address] = p
	}
	for _, s := range b.cfg.Sockets {
		p := b.sockets[s.Address]
		// TCP keepalive finds the clients that went away without a word; a WebSocket has no other time-out. The option makes
		// nginx bind the address by itself, which fails beside a socket for all addresses of that port; there it is
		// inherited anyway.
		p.options = " default_server"
		if !b.covered(p) {
			p.options += " so_keepalive=60s:15s:4"
		}
	}
}

// listenAddress writes the address of a socket in one form.
func listenAddress(s string) (at string, port uint16, err error) {
	rest, wild := strings.CutPrefix(s, "*:")
	if wild {
		rest = "0.0.0.0:" + rest
	} else {
		rest = s
	}
	a, err := addressOf(rest)
	switch {
	case err != nil:
		return "", 0, err
	case a.Addr() == netip.IPv4Unspecified():
		return "*" + strings.TrimPrefix(a.String(), "0.0.0.0"), a.Port(), nil
	default:
		return a.String(), a.Port(), nil
	}
}

// covered tells whether a socket for all addresses of the same port and family is there too: nginx listens on that alone.
func (b *builder) covered(p *socketPlan) bool {
	for _, other := range b.sockets {
		if other == p || other.port != p.port {
			continue
		}
		if strings.HasPrefix(p.at, "[") && strings.HasPrefix(other.at, "[::]:") ||
			!strings.HasPrefix(p.at, "[") && strings.HasPrefix(other.at, "*:") {
			return true
		}
	}
	return false
}

// listen writes the arguments of a listen directive. Those of the protocol are repeated in each server, since nginx warns
// when they differ.
func (b *builder) listen(p *socketPlan, isDefault bool) token {
	t := token(p.at)
	if p.TLS {
		t += " ssl"
	}
	if p.HTTP2 && !b.cfg.Capabilities.HTTP2Directive {
		t += " http2"
	}
	if p.ProxyProtocol {
		t += " proxy_protocol"
	}
	if isDefault {
		t += p.options
	}
	return t
}

// defaultServers returns the servers of the sockets that have no site for all names.
func (b *builder) defaultServers() []defaultServerView {
	var views []defaultServerView
	for _, s := range b.cfg.Sockets {
		p := b.sockets[s.Address]
		if p.CatchAll != (p.catchAll != "") {
			b.refuse("socket/"+p.Address, `CatchAll is %t, and the site for all names is %q`, p.CatchAll, p.catchAll)
		}
		if p.CatchAll {
			continue
		}
		v := defaultServerView{
			Listen:              b.listen(p, true),
			HTTP2:               p.HTTP2 && b.cfg.Capabilities.HTTP2Directive,
			KeepaliveMinTimeout: b.cfg.Capabilities.KeepaliveMinTimeout,
		}
		if p.TLS {
			v.Reject = b.cfg.Capabilities.RejectHandshake
			certificate := p.certificate
			if v.Reject {
				certificate = ""
			} else if certificate == "" {
				b.refuse("socket/"+p.Address, "no site on it has a certificate, and this nginx cannot reject handshakes without one")
			}
			v.TLS = b.tls(certificate, p.tls13Only)
		}
		views = append(views, v)
	}
	slices.SortFunc(views, func(a, b defaultServerView) int { return strings.Compare(string(a.Listen), string(b.Listen)) })
	return views
}
