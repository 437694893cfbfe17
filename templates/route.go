package templates

import "strconv"

// routeView is the data of route.conf.tmpl, and of proxy.conf.tmpl, which it uses once or twice.
type routeView struct {
	Match    token // the arguments of location
	Upstream token // empty answers 503
	// Session is the named location for the requests of a session; empty when there are none.
	Session             token
	Upgrade, Connection token // headers
	Forwarded           forwardedView
	ConnectTimeout      token
	ReadTimeout         token
	SendTimeout         token
	Tries               token // empty: no further try
	TriesTimeout        token
	MaxBodySize         token
	BufferSize          token // empty leaves the three out
	Buffers             token // the arguments of proxy_buffers
	BusySize            token
	Buffering           token // on or off
	RequestBuffering    token
}

// InSession returns the view for requests that belong to a session on one node: nobody else can answer them.
func (v routeView) InSession() routeView {
	v.Match, v.Session, v.Tries, v.TriesTimeout = v.Session, "", "", ""
	return v
}

// routes also tells whether paths are left that no route takes.
func (b *builder) routes(object string, s *Site) (views []routeView, rest bool) {
	type place struct {
		path  string
		exact bool
	}
	seen := map[place]bool{}
	for i := range s.Routes {
		r := &s.Routes[i]
		at := object + ", route " + strconv.Itoa(i)
		if p := (place{r.Path, r.Exact}); seen[p] {
			b.refuse(at, "path %q is there twice", r.Path)
		} else {
			seen[p] = true
		}
		v := b.route(at, r, s.RealIP)
		if r.Sessions && v.Tries != "" {
			v.Session = token("@sluice_session_" + strconv.Itoa(i))
		}
		views = append(views, v)
	}
	return views, !seen[place{"/", false}]
}

func (b *builder) route(object string, r *Route, realIP *RealIP) routeView {
	if len(r.Path) > maxPath {
		b.refuse(object, "the path has %d bytes; at most %d make sense", len(r.Path), maxPath)
	} else if !routePath.MatchString(r.Path) {
		b.refuse(object, "%q is not a path of letters, digits and / . _ ~ ! & ( ) * + , = : @ -", r.Path)
	}
	v := routeView{Match: token(r.Path)}
	if r.Exact {
		v.Match = "= " + v.Match
	}
	if r.Upstream == "" {
		return v
	}
	if !b.upstreams[r.Upstream] {
		b.refuse(object, "upstream %q is not in the configuration", r.Upstream)
	}
	v.Upstream = upstreamName(r.Upstream)
	v.Upgrade, v.Connection = "''", "''"
	if r.Upgrade {
		v.Upgrade, v.Connection = "$sluice_upgrade", "$sluice_connection"
	}
	v.Forwarded = b.forwarded(object, realIP, r.AppendForwardedFor)
	v.ConnectTimeout = value(b, object, "connect timeout", duration, r.ConnectTimeout)
	v.ReadTimeout = value(b, object, "read timeout", duration, r.ReadTimeout)
	v.SendTimeout = value(b, object, "send timeout", duration, r.SendTimeout)
	if r.Tries > 1 {
		v.Tries = token(strconv.Itoa(r.Tries))
		v.TriesTimeout = value(b, object, "tries timeout", duration, r.TriesTimeout)
	}
	v.MaxBodySize = value(b, object, "body size", size, r.MaxBodySize)
	b.buffers(object, r.BufferSize, &v)
	v.Buffering, v.RequestBuffering = onOff(r.Buffering), onOff(r.RequestBuffering)
	return v
}

// maxPath is less than the 4096 bytes that nginx takes for one argument.
const maxPath = 1024

// Limits of a buffer: an answer's headers seldom fit into less, and nobody needs more.
const (
	minBufferSize = 512
	maxBufferSize = 16 << 20
)

// buffers sets the sizes that nginx wants consistent even where buffering is off: all of them follow the first, and the
// buffers of a body are no smaller than a page.
func (b *builder) buffers(object string, first int64, v *routeView) {
	if first == 0 {
		return
	}
	if first < minBufferSize || first > maxBufferSize {
		b.refuse(object, "buffer size %d is not between %d and %d", first, minBufferSize, maxBufferSize)
		return
	}
	body := max(first, 4<<10)
	v.BufferSize = value(b, object, "buffer size", size, first)
	v.Buffers = "8 " + value(b, object, "buffer size", size, body)
	v.BusySize = value(b, object, "buffer size", size, 2*body)
}

func onOff(on bool) token {
	if on {
		return "on"
	}
	return "off"
}
