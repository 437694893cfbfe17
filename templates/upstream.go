package templates

import (
	"strconv"
	"strings"
	"time"
)

// upstreamView is the data of upstream.conf.tmpl.
type upstreamView struct {
	Name             token // with the prefix
	Zone             token
	Method           token // a whole directive; empty for round robin
	Servers          []token
	Keepalive        token // empty leaves the directive out
	KeepaliveTimeout token
}

// upstreamName returns nginx's name for an upstream.
func upstreamName(name string) token { return token("sluice_" + name) }

func (b *builder) upstreamPages() []page {
	pages := make([]page, 0, len(b.cfg.Upstreams))
	for i := range b.cfg.Upstreams {
		u := &b.cfg.Upstreams[i]
		object := "upstream/" + u.Name
		value(b, object, "name", name, u.Name)
		if b.upstreams[u.Name] {
			b.refuse(object, "is there twice")
		}
		b.upstreams[u.Name] = true
		pages = append(pages, page{"http/upstream-" + u.Name + ".conf", "upstream.conf.tmpl", b.upstream(object, u)})
	}
	return pages
}

func (b *builder) upstream(object string, u *Upstream) upstreamView {
	v := upstreamView{
		Name:    upstreamName(u.Name),
		Zone:    value(b, object, "zone", size, u.Zone),
		Method:  b.method(object, u),
		Servers: b.servers(object, u.Servers),
	}
	if u.Zone == 0 {
		v.Zone = ""
	}
	switch {
	case u.Keepalive < 0:
		b.refuse(object, "keepalive: %d is negative", u.Keepalive)
	case u.Keepalive > 0:
		v.Keepalive = token(strconv.Itoa(u.Keepalive))
		v.KeepaliveTimeout = value(b, object, "keepalive timeout", duration, u.KeepaliveTimeout)
	case b.cfg.Capabilities.KeepaliveDefault:
		v.Keepalive = "0"
	}
	return v
}

func (b *builder) method(object string, u *Upstream) token {
	if u.Method != "hash" && (u.HashKey != "" || u.Ketama) {
		b.refuse(object, "has a hash key, and the method %q takes none", u.Method)
	}
	switch u.Method {
	case "":
		return ""
	case "least_conn", "ip_hash":
		return token(u.Method)
	case "random":
		return "random two least_conn"
	case "hash":
		if !hashKey.MatchString(u.HashKey) {
			b.refuse(object, "%q is no hash key: use $remote_addr, $uri, $host, $arg_NAME, $cookie_NAME or $http_NAME", u.HashKey)
		}
		if u.Ketama {
			return token("hash " + u.HashKey + " consistent")
		}
		return token("hash " + u.HashKey)
	default:
		b.refuse(object, "%q is no balancing method", u.Method)
		return ""
	}
}

// servers writes the arguments of the server directives. There are thousands of them: the templates get whole lines, which
// share one string.
func (b *builder) servers(object string, servers []Server) []token {
	if len(servers) == 0 {
		b.refuse(object, "has no server, which nginx does not take: leave it out, and the Upstream of its routes empty")
		return nil
	}
	text := make([]byte, 0, 72*len(servers))
	ends := make([]int, len(servers))
	for i := range servers {
		var problem string
		if text, problem = appendServer(text, &servers[i]); problem != "" {
			b.refuse(object, "server %d (node %q): %s", i, servers[i].Node, problem)
		}
		ends[i] = len(text)
	}
	all := token(text)
	tokens := make([]token, len(servers))
	start := 0
	for i, end := range ends {
		tokens[i] = all[start:end]
		start = end
	}
	return tokens
}

// appendServer also returns what is wrong with s, or nothing.
func appendServer(to []byte, s *Server) ([]byte, string) {
	if path, ok := strings.CutPrefix(s.Address, "unix:"); ok {
		if !unixPath.MatchString(path) {
			return to, strconv.Quote(s.Address) + " is not a unix socket with an absolute path of at most 107 plain characters"
		}
		to = append(to, s.Address...)
	} else {
		a, err := addressOf(s.Address)
		if err != nil {
			return to, err.Error()
		}
		to = a.AppendTo(to)
	}
	switch {
	case s.Weight < 1 || s.Weight > maxCount:
		return to, "weight " + strconv.Itoa(s.Weight) + " is not between 1 and a million"
	case s.MaxConns < 0 || s.MaxConns > maxCount:
		return to, "max conns " + strconv.Itoa(s.MaxConns) + " is not between 0 and a million"
	case s.MaxFails < 0 || s.MaxFails > maxCount:
		return to, "max fails " + strconv.Itoa(s.MaxFails) + " is not between 0 and a million"
	case s.FailTimeout < 0 || s.FailTimeout%time.Second != 0 || s.FailTimeout > 365*24*time.Hour:
		return to, "fail timeout " + s.FailTimeout.String() + " is not a number of whole seconds up to a year"
	}
	number := func(name string, n int64) {
		to = append(to, name...)
		to = strconv.AppendInt(to, n, 10)
	}
	if s.Weight > 1 {
		number(" weight=", int64(s.Weight))
	}
	if s.MaxConns > 0 {
		number(" max_conns=", int64(s.MaxConns))
	}
	number(" max_fails=", int64(s.MaxFails))
	if s.FailTimeout > 0 {
		number(" fail_timeout=", int64(s.FailTimeout/time.Second))
		to = append(to, 's')
	}
	if s.Down {
		to = append(to, " down"...)
	}
	return to, ""
}

// maxCount bounds counts well inside nginx's own integers.
const maxCount = 1_000_000
