package api

import (
	"fmt"
	"net"
	"net/netip"
	"strings"

	"sluice/controlplane/spec"
	"sluice/registry"
)

// reserved are addresses that no node can have: the API's own and the registry's. Through nginx, they would be open to
// everyone.
type reserved map[netip.AddrPort]bool

// newReserved takes "host:port"; a host that stands for all addresses is each of this machine's. Names are left out: a node
// is registered by its address.
func newReserved(addresses []string) (reserved, error) {
	r := reserved{}
	for _, address := range addresses {
		host, port, err := net.SplitHostPort(address)
		if err != nil {
			return nil, fmt.Errorf("reserved address: %w", err)
		}
		if host == "localhost" {
			host = "127.0.0.1"
		}
		at, err := netip.ParseAddrPort(net.JoinHostPort(strings.Trim(orAny(host), "[]"), port))
		if err != nil {
			continue
		}
		if !at.Addr().IsUnspecified() {
			r[netip.AddrPortFrom(at.Addr().Unmap(), at.Port())] = true
			continue
		}
		own, err := net.InterfaceAddrs()
		if err != nil {
			return nil, fmt.Errorf("list the addresses of this machine: %w", err)
		}
		for _, a := range own {
			if prefix, err := netip.ParsePrefix(a.String()); err == nil {
				r[netip.AddrPortFrom(prefix.Addr().Unmap(), at.Port())] = true
			}
		}
	}
	return r, nil
}

func orAny(host string) string {
	if host == "" {
		return "::"
	}
	return host
}

// checkAddress returns what speaks against a node at this address, registered by this caller.
func (s *Server) checkAddress(c caller, n registry.Node) []spec.FieldError {
	var errs []spec.FieldError
	bad := func(format string, args ...any) {
		errs = append(errs, spec.FieldError{Field: "/address", Message: fmt.Sprintf(format, args...)})
	}
	addr, err := netip.ParseAddr(n.Address)
	addr = addr.Unmap()
	unix := strings.HasPrefix(n.Address, "unix:")
	switch {
	case err != nil && !unix:
		return nil // Validate says what is wrong with it
	case unix || addr.IsLoopback():
		if !c.remote.IsLoopback() {
			bad("%q is another process on each gateway: register the address by which the gateways reach the node", n.Address)
		}
	case addr.IsLinkLocalUnicast():
		bad("%q is a link-local address, which other machines do not reach, or take for their own: register another one", n.Address)
	}
	if !unix && s.reserved[netip.AddrPortFrom(addr, uint16(n.Port))] {
		bad("%s is an address of sluice's own API or registry: no node can be there", n.HostPort())
	}
	if c.limits != nil {
		errs = append(errs, c.limits.AllowsAddress(n.Address, n.Port)...)
	}
	return errs
}
