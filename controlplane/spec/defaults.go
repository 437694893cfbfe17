package spec

import (
	"slices"
	"time"
)

// DefaultGroup is the group of gateways that serves a site which names none.
const DefaultGroup = "default"

// The defaults, with their reasons.
const (
	defaultMaxFails         = 3 // nginx's 1 flaps: one lost packet takes a node out
	defaultFailTimeout      = Duration(5 * time.Second)
	defaultGuardShare       = 30 // percent: a rack, or one zone of three or four, may go at once
	defaultGuardWindow      = Duration(10 * time.Minute)
	defaultKeepalive        = 32
	defaultKeepaliveTimeout = Duration(4 * time.Second) // Node.js closes after 5 s; a longer one gives 502 on POST
	defaultConnectTimeout   = Duration(2 * time.Second)
	defaultSocketIOTimeout  = Duration(75 * time.Second)   // above SocketIOSilence, with room
	defaultWebSocketTimeout = Duration(3600 * time.Second) // plain WebSocket has no ping of its own
	defaultHTTPTimeout      = Duration(60 * time.Second)
	defaultTries            = 2
	defaultTriesTimeout     = Duration(4 * time.Second)
	defaultMaxBodySize      = Size(1 << 20) // covers Socket.IO's maxHttpBufferSize of 1e6
	defaultBufferSize       = Size(4 << 10) // 1k gives 502 from 1.2 KB of response headers
	defaultForwardedHeader  = "X-Forwarded-For"
	defaultTLSMinVersion    = "1.2"
	defaultSocketIOPath     = "/socket.io/"

	defaultCheckInterval     = Duration(5 * time.Second)
	defaultHandshakeInterval = Duration(30 * time.Second) // each handshake makes a session, which costs a node more than a connection
	defaultCheckTimeout      = Duration(2 * time.Second)
	defaultCheckFall         = 3 // one lost packet, or a pause of a garbage collector, is no failure
	defaultCheckRise         = 2
	defaultCheckCodes        = "200-399"
)

// WithDefaults returns u with everything set that was left out. name is the upstream's own.
func (u Upstream) WithDefaults(name string) Upstream {
	if u.Service == "" && u.Endpoints == "" {
		u.Service = name
	}
	u.Balance = new(orZero(u.Balance).withDefaults())
	u.Passive = new(orZero(u.Passive).withDefaults())
	u.Keepalive = new(orZero(u.Keepalive).withDefaults())
	u.Guard = new(orZero(u.Guard).withDefaults())
	u.Check = new(orZero(u.Check).withDefaults())
	return u
}

func (b Balance) withDefaults() Balance {
	setDefault(&b.Method, IPHash)
	b.Consistent = orDefault(b.Consistent, b.Method == Hash)
	return b
}

func (p Passive) withDefaults() Passive {
	p.MaxFails = orDefault(p.MaxFails, defaultMaxFails)
	p.FailTimeout = orDefault(p.FailTimeout, defaultFailTimeout)
	return p
}

func (k Check) withDefaults() Check {
	setDefault(&k.Type, CheckTCP)
	interval := defaultCheckInterval
	switch k.Type {
	case CheckHTTP:
		if len(k.Codes) == 0 {
			k.Codes = []string{defaultCheckCodes}
		}
	case CheckEngineIO:
		interval = defaultHandshakeInterval
		setDefault(&k.Path, defaultSocketIOPath)
	}
	k.Interval = orDefault(k.Interval, interval)
	k.Timeout = orDefault(k.Timeout, min(defaultCheckTimeout, *k.Interval))
	k.Fall = orDefault(k.Fall, defaultCheckFall)
	k.Rise = orDefault(k.Rise, defaultCheckRise)
	if k.TLS != nil {
		k.TLS = &CheckTLS{Verify: orDefault(k.TLS.Verify, true), ServerName: k.TLS.ServerName}
	}
	return k
}

func (k Keepalive) withDefaults() Keepalive {
	k.Connections = orDefault(k.Connections, defaultKeepalive)
	k.Timeout = orDefault(k.Timeout, defaultKeepaliveTimeout)
	return k
}

func (g Guard) withDefaults() Guard {
	g.Enabled = orDefault(g.Enabled, true)
	g.Share = orDefault(g.Share, defaultGuardShare)
	g.Window = orDefault(g.Window, defaultGuardWindow)
	return g
}

// WithDefaults returns s with everything set that was left out, in its routes too.
func (s Site) WithDefaults() Site {
	if len(s.Groups) == 0 {
		s.Groups = []string{DefaultGroup}
	}
	s.TLS = new(orZero(s.TLS).withDefaults())
	s.ClientAddress = new(orZero(s.ClientAddress).withDefaults())
	s.AccessLog = orDefault(s.AccessLog, true)
	s.Routes = slices.Clone(s.Routes)
	for i, r := range s.Routes {
		s.Routes[i] = r.WithDefaults()
	}
	return s
}

func (p TLSPolicy) withDefaults() TLSPolicy {
	setDefault(&p.MinVersion, defaultTLSMinVersion)
	return p
}

func (c ClientAddress) withDefaults() ClientAddress {
	setDefault(&c.From, defaultForwardedHeader)
	return c
}

// WithDefaults returns r with everything set that was left out; its kind decides the time-outs.
func (r Route) WithDefaults() Route {
	setDefault(&r.Kind, SocketIO)
	setDefault(&r.Match, MatchPrefix)
	path, silence := "/", defaultHTTPTimeout
	switch r.Kind {
	case SocketIO:
		path, silence = defaultSocketIOPath, defaultSocketIOTimeout
	case WebSocket:
		silence = defaultWebSocketTimeout
	}
	setDefault(&r.Path, path)
	r.ConnectTimeout = orDefault(r.ConnectTimeout, defaultConnectTimeout)
	r.ReadTimeout = orDefault(r.ReadTimeout, silence)
	r.SendTimeout = orDefault(r.SendTimeout, silence)
	r.Retries = new(orZero(r.Retries).withDefaults())
	r.MaxBodySize = orDefault(r.MaxBodySize, defaultMaxBodySize)
	r.BufferSize = orDefault(r.BufferSize, defaultBufferSize)
	r.Buffering = orDefault(r.Buffering, r.Kind == HTTP)
	return r
}

func (r Retries) withDefaults() Retries {
	r.Tries = orDefault(r.Tries, defaultTries)
	r.Timeout = orDefault(r.Timeout, defaultTriesTimeout)
	return r
}

// WithDefaults returns o with its state set. A nil Weight stays: it means the node's own.
func (o Override) WithDefaults() Override {
	setDefault(&o.State, Active)
	return o
}

// WithDefaults returns a: an approval has no defaults of its own.
func (a Approval) WithDefaults() Approval { return a }

// WithDefaults returns c: a certificate has no defaults.
func (c Certificate) WithDefaults() Certificate { return c }

func orZero[T any](p *T) T {
	if p == nil {
		var zero T
		return zero
	}
	return *p
}

func orDefault[T any](p *T, v T) *T {
	if p == nil {
		return &v
	}
	return p
}

func setDefault[T comparable](p *T, v T) {
	var zero T
	if *p == zero {
		*p = v
	}
}
