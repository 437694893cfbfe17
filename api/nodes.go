package api

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"time"

	"sluice/controlplane"
	"sluice/controlplane/spec"
	"sluice/registry"
)

// The range of a node's ttl. A registry may raise it to the shortest that it keeps to.
const (
	minTTL = time.Second
	maxTTL = time.Hour
)

// ListServices implements StrictServerInterface. All nodes are counted, from the first service of the page on.
func (s *Server) ListServices(ctx context.Context, r ListServicesRequestObject) (ListServicesResponseObject, error) {
	l := newListing(r.Params.From, r.Params.Prefix, r.Params.Limit)
	page, err := s.registry.ListNodes(ctx, "", l.begin(), 0)
	if err != nil {
		return nil, s.fault(err)
	}
	counts := map[string]int{}
	for _, n := range page.Nodes {
		counts[n.Service]++
	}
	all := make([]ServiceSummary, 0, len(counts))
	for _, name := range slices.Sorted(maps.Keys(counts)) {
		all = append(all, ServiceSummary{Name: name, Nodes: counts[name]})
	}
	items, next := pageOf(l, nil, each(all, func(v ServiceSummary) string { return v.Name }), "")
	return ListServices200JSONResponse{Items: items, Next: next}, nil
}

// ListNodes implements StrictServerInterface.
func (s *Server) ListNodes(ctx context.Context, r ListNodesRequestObject) (ListNodesResponseObject, error) {
	p := r.Params
	l := newListing(p.From, p.Prefix, p.Limit)
	if err := checkServiceParameter(p.Service); err != nil {
		return nil, err
	}
	var f filters[Node]
	f.add(p.Zone != "", func(n Node) bool { return n.Zone == p.Zone })
	f.add(p.Tag != "", func(n Node) bool { return slices.Contains(n.Tags, p.Tag) })
	if p.Address != "" {
		at, err := atAddress(p.Address)
		if err != nil {
			return nil, err
		}
		f.add(true, at)
	}
	if p.State != "" {
		in, err := s.inState(ctx, p.State)
		if err != nil {
			return nil, err
		}
		f.add(true, in)
	}
	page, err := s.registry.ListNodes(ctx, p.Service, l.begin(), f.look(l))
	if err != nil {
		return nil, s.fault(err)
	}
	items, next := pageOf(l, f, each(page.Nodes, func(n Node) string { return n.Ref().String() }), page.Next)
	return ListNodes200JSONResponse{Items: items, Next: next}, nil
}

// atAddress returns the filter of the nodes at an address, or in a network.
func atAddress(text string) (func(Node) bool, error) {
	if strings.HasPrefix(text, "unix:/") {
		return func(n Node) bool { return n.Address == text }, nil
	}
	network, err := netip.ParsePrefix(text)
	if addr, e := netip.ParseAddr(text); e == nil {
		network, err = netip.PrefixFrom(addr.Unmap(), addr.Unmap().BitLen()), nil
	}
	if err != nil {
		return nil, problemf(http.StatusBadRequest, "address: %q is no address and no network: give one without a port, as 10.0.0.7, fd00::/8 or unix:/run/io.sock", text)
	}
	return func(n Node) bool {
		addr, err := netip.ParseAddr(n.Address)
		return err == nil && network.Contains(addr.Unmap())
	}, nil
}

// inState returns the filter of the nodes that a gateway reports in a state; those are up of which none reports another.
func (s *Server) inState(ctx context.Context, state controlplane.NodeState) (func(Node) bool, error) {
	fleet, err := s.gateways(ctx)
	if err != nil {
		return nil, err
	}
	reported := map[registry.NodeRef][]controlplane.NodeState{}
	for _, g := range fleet {
		for _, n := range g.Exceptions {
			ref := registry.NodeRef{Service: n.Service, ID: n.ID}
			reported[ref] = append(reported[ref], n.State)
		}
	}
	return func(n Node) bool {
		states := reported[registry.NodeRef{Service: n.Service, ID: n.ID}]
		return slices.Contains(states, state) || state == controlplane.NodeUp && len(states) == 0
	}, nil
}

// checkServiceParameter says what is wrong with the service that a request selects by.
func checkServiceParameter(service string) error {
	if err := checkService(service); service != "" && err != nil {
		return newProblem(http.StatusBadRequest, err.Error())
	}
	return nil
}

// checkService keeps what is no name away from the registry, which would take it for a part of a key.
func checkService(service string) error {
	if _, ok := registry.EndpointsTarget(service); ok {
		_, _, err := spec.SplitNode(service + "/x")
		return err
	}
	if !registry.ValidName(service) {
		return fmt.Errorf("service %q is not a name", service)
	}
	return nil
}

// GetNode implements StrictServerInterface.
func (s *Server) GetNode(ctx context.Context, r GetNodeRequestObject) (GetNodeResponseObject, error) {
	if err := permitService(callerOf(ctx), r.Service); err != nil {
		return nil, err
	}
	n, err := s.findNode(ctx, registry.NodeRef{Service: r.Service, ID: r.ID})
	if err != nil {
		return nil, err
	}
	return GetNode200JSONResponse(n), nil
}

// findNode returns the node that is registered, of whichever incarnation.
func (s *Server) findNode(ctx context.Context, ref registry.NodeRef) (registry.Node, error) {
	err := registry.ErrNotFound
	if checkService(ref.Service) == nil {
		var n registry.Node
		if n, err = s.registry.GetNode(ctx, ref); err == nil {
			return n, nil
		}
	}
	if errors.Is(err, registry.ErrNotFound) {
		err = problemf(http.StatusNotFound, "node %s is not registered", ref)
	}
	return registry.Node{}, s.fault(err)
}

// PutNode implements StrictServerInterface.
func (s *Server) PutNode(ctx context.Context, r PutNodeRequestObject) (PutNodeResponseObject, error) {
	n := r.Body.node(r.Service, r.ID)
	noteBeat(ctx, n)
	who := callerOf(ctx)
	if err := s.permitSuccessor(who, n); err != nil {
		return nil, err
	}
	errs := append(nodeErrors(n), s.checkAddress(who, n)...)
	ttl := time.Duration(r.Body.TTL)
	if ttl == 0 {
		ttl = registry.DefaultTTL
	}
	if ttl < minTTL || ttl > maxTTL {
		errs = append(errs, spec.FieldError{Field: "/ttl", Message: fmt.Sprintf("%s is not between %s and %s", ttl, minTTL, maxTTL)})
	}
	if err := invalid(errs); err != nil {
		return nil, err
	}
	if err := s.registry.Put(ctx, n, ttl); err != nil {
		return nil, s.fault(err)
	}
	return PutNode200JSONResponse{Node: n, TTL: spec.Duration(max(ttl, s.registry.MinTTL()))}, nil
}

func (r Registration) node(service, id string) registry.Node {
	return registry.Node{
		Service: service, ID: id, Address: r.Address, Port: r.Port, Weight: r.Weight, MaxConns: r.MaxConns,
		Zone: r.Zone, Tags: r.Tags, Meta: r.Meta, Incarnation: r.Incarnation,
	}
}

// newRegistration is the inverse of Registration.node.
func newRegistration(n registry.Node, ttl time.Duration) Registration {
	return Registration{
		Address: n.Address, Port: n.Port, Weight: n.Weight, MaxConns: n.MaxConns,
		Zone: n.Zone, Tags: n.Tags, Meta: n.Meta, Incarnation: n.Incarnation, TTL: spec.Duration(ttl),
	}
}

// nodeErrors are what is wrong with n, by field of the body; service and id are not in it.
func nodeErrors(n registry.Node) []spec.FieldError {
	if _, ok := registry.EndpointsTarget(n.Service); ok {
		return []spec.FieldError{{Message: "the nodes of this service are kept by those who write them with etcd's naming/endpoints: register under a service of its own"}}
	}
	err := n.Validate()
	if err == nil {
		return nil
	}
	all := []error{err}
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		all = joined.Unwrap()
	}
	var out []spec.FieldError
	for _, e := range all {
		field, message, ok := strings.Cut(e.Error(), ": ")
		if !ok || field == "service" || field == "id" {
			out = append(out, spec.FieldError{Message: e.Error()})
			continue
		}
		out = append(out, spec.FieldError{Field: "/" + field, Message: message})
	}
	return out
}

// DeleteNode implements StrictServerInterface.
func (s *Server) DeleteNode(ctx context.Context, r DeleteNodeRequestObject) (DeleteNodeResponseObject, error) {
	ref := registry.NodeRef{Service: r.Service, ID: r.ID, Incarnation: r.Params.Incarnation}
	if !registry.ValidName(r.Service) {
		return nil, problemf(http.StatusNotFound, "node %s is not registered", ref)
	}
	if err := s.permitRemoval(ctx, callerOf(ctx), ref); err != nil {
		return nil, err
	}
	if err := s.registry.Remove(ctx, ref); err != nil {
		return nil, s.fault(err)
	}
	s.beats.forget(ref.Service, ref.ID)
	return DeleteNode204Response{}, nil
}
