package api

import (
	"fmt"
	"net"
	"net/netip"
	"path/filepath"
	"strings"

	"sluice/controlplane/spec"
	"sluice/registry"
)

// reserved are addresses that no node can have: the API's own and the registry's. Through nginx, they would be open to
// everyone.
type reserved struct {
	at       map[netip.AddrPort]bool
	loopback map[int]bool // ports on which each of the many loopback addresses leads there
	below    []string     // unix sockets, and directories of them
}

// newReserved takes "host:port", where a host that stands for all addresses is each of this machine's, and "unix:/path".
// Other names are left out: a node is registered by its address.
func newReserved(addresses []string) (reserved, error) {
	r := reserved{at: map[netip.AddrPort]bool{}, loopback: map[int]bool{}}
	for _, address := range addresses {
		if path, ok := strings.CutPrefix(address, "unix:"); ok {
			r.below = append(r.below, filepath.Clean(path), realPath(path))
			continue
		}
		host, port, err := net.SplitHostPort(address)
		if err != nil {
			return r, fmt.Errorf("reserved address: %w", err)
		}
		hosts := []string{host}
		switch host {
		case "":
			hosts = []string{"::"}
		case "localhost":
			hosts = []string{"127.0.0.1", "::1"}
		}
		for _, host := range hosts {
			at, err := netip.ParseAddrPort(net.JoinHostPort(host, port))
			if err != nil {
				continue
			}
			if err := r.add(at); err != nil {
				return r, err
			}
		}
	}
	return r, nil
}

func (r reserved) add(at netip.AddrPort) error {
	r.at[netip.AddrPortFrom(at.Addr().Unmap(), at.Port())] = true
	if !at.Addr().IsUnspecified() {
		return nil
	}
	r.loopback[int(at.Port())] = true
	own, err := net.InterfaceAddrs()
	if err != nil {
		return fmt.Errorf("list the addresses of this machine: %w", err)
	}
	for _, a := range own {
		if prefix, err := netip.ParsePrefix(a.String()); err == nil {
			r.at[netip.AddrPortFrom(prefix.Addr().Unmap(), at.Port())] = true
		}
	}
	return nil
}

// has says whether a node at this address would be the API or the registry. addr is unmapped.
func (r reserved) has(addr netip.Addr, port int) bool {
	return r.at[netip.AddrPortFrom(addr, uint16(port))] || addr.IsLoopback() && r.loopback[port]
}

// hasPath says the same of a unix socket.
func (r reserved) hasPath(path string) bool {
	for _, p := range []string{filepath.Clean(path), realPath(path)} {
		for _, dir := range r.below {
			if p == dir || strings.HasPrefix(p, strings.TrimSuffix(dir, "/")+"/") {
				return true
			}
		}
	}
	return false
}

// realPath is the path without symbolic links, as far as it exists.
func realPath(path string) string {
	path = filepath.Clean(path)
	if is, err := filepath.EvalSymlinks(path); err == nil {
		return is
	}
	if dir := filepath.Dir(path); dir != path {
		return filepath.Join(realPath(dir), filepath.Base(path))
	}
	return path
}

// checkAddress returns what speaks against a node at this address, registered by this caller.
func (s *Server) checkAddress(c caller, n registry.Node) []spec.FieldError {
	var errs []spec.FieldError
	bad := func(format string, args ...any) {
		errs = append(errs, spec.FieldError{Field: "/address", Message: fmt.Sprintf(format, args...)})
	}
	addr, err := netip.ParseAddr(n.Address)
	addr = addr.Unmap()
	path, unix := strings.CutPrefix(n.Address, "unix:")
	switch {
	case err != nil && !unix:
		return nil // Validate says what is wrong with it
	case unix || addr.IsLoopback():
		if !c.here {
			bad("%q is another process on each gateway: register the address by which the gateways reach the node", n.Address)
		}
	case addr.IsLinkLocalUnicast():
		bad("%q is a link-local address, which other machines do not reach, or take for their own: register another one", n.Address)
	}
	if unix && s.reserved.hasPath(path) || !unix && s.reserved.has(addr, n.Port) {
		bad("%s is an address of sluice's own API or registry: no node can be there", n.HostPort())
	}
	if c.limits != nil {
		errs = append(errs, c.limits.AllowsAddress(n.Address, n.Port)...)
	}
	return errs
}
