package templates

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
)

// proxyProtocol is the RealIP.Header that stands for the PROXY protocol's.
const proxyProtocol = "proxy_protocol"

// realIPView is the data of a server's realip directives.
type realIPView struct {
	Trusted []token
	Header  token
}

// trustView is a set of trusted proxies, for which http.conf.tmpl has the variables that tell what to believe.
type trustView struct {
	ID      token
	Trusted []token
}

// trustID names a set of proxies: sites that trust the same share the variables, of which nginx wants few.
func trustID(trusted []token) token {
	h := sha256.New()
	for _, t := range trusted {
		_, _ = fmt.Fprintln(h, t) // a hash takes everything
	}
	return token(hex.EncodeToString(h.Sum(nil)[:5]))
}

func (b *builder) realIP(object string, r *RealIP) *realIPView {
	if r == nil {
		return nil
	}
	if !b.cfg.Capabilities.Realip {
		b.refuse(object, "trusts proxies, and this nginx was built without http_realip_module")
	}
	if len(r.Trusted) == 0 {
		b.refuse(object, "takes clients' addresses from %q and trusts nobody to tell them", r.Header)
	}
	v := &realIPView{Header: token(r.Header)}
	switch {
	case r.Header == proxyProtocol:
	case strings.EqualFold(r.Header, "X-Forwarded-For"):
		v.Header = "X-Forwarded-For" // nginx knows only this spelling as a list over several lines
	case !headerName.MatchString(r.Header):
		b.refuse(object, "%q is not the name of a header", r.Header)
	}
	for _, t := range r.Trusted {
		v.Trusted = append(v.Trusted, value(b, object, "trusted proxy", network, t))
	}
	slices.Sort(v.Trusted)
	v.Trusted = slices.Compact(v.Trusted)
	return v
}

// forwardedView is the values of the X-Forwarded headers.
type forwardedView struct {
	For, Proto, Host, Port token
}

// At the edge the headers are set anew: what a client sends of them is never passed on.
var edge = forwardedView{
	For:   "$remote_addr",
	Proto: "$scheme",
	Host:  "$host$sluice_host_port",
	Port:  "$server_port",
}

// forwarded returns the headers of a route. Behind trusted proxies they continue what these say; a client that comes past
// the proxies is at the edge.
func (b *builder) forwarded(object string, r *RealIP, appends bool) forwardedView {
	if !appends {
		return edge
	}
	if r == nil || r.Header == proxyProtocol {
		b.refuse(object, "appends to X-Forwarded-For, and no trusted proxy writes it")
		return edge
	}
	trusted := b.realIP(object, r).Trusted
	id := trustID(trusted)
	b.trusts[id] = trustView{ID: id, Trusted: trusted}
	return forwardedView{
		For:   "$sluice_for_" + id,
		Proto: "$sluice_proto_" + id,
		Host:  "$sluice_host_" + id,
		Port:  "$sluice_port_" + id,
	}
}
