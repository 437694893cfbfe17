package api

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"time"

	"sluice/controlplane/spec"
	"sluice/registry"
)

// The range of a node's ttl. A registry may raise it to the shortest that it keeps to.
const (
	minTTL = time.Second
	maxTTL = time.Hour
)

// ListServices implements StrictServerInterface.
func (s *Server) ListServices(ctx context.Context, _ ListServicesRequestObject) (ListServicesResponseObject, error) {
	nodes, err := s.registry.ListNodes(ctx, "")
	if err != nil {
		return nil, s.fault(err)
	}
	items := []ServiceSummary{}
	for _, n := range nodes { // sorted by service
		if last := len(items) - 1; last >= 0 && items[last].Name == n.Service {
			items[last].Nodes++
		} else {
			items = append(items, ServiceSummary{Name: n.Service, Nodes: 1})
		}
	}
	return ListServices200JSONResponse{Items: items}, nil
}

// ListNodes implements StrictServerInterface.
func (s *Server) ListNodes(ctx context.Context, r ListNodesRequestObject) (ListNodesResponseObject, error) {
	if err := checkService(r.Params.Service); r.Params.Service != "" && err != nil {
		return nil, newProblem(http.StatusBadRequest, err.Error())
	}
	nodes, err := s.registry.ListNodes(ctx, r.Params.Service)
	if err != nil {
		return nil, s.fault(err)
	}
	return ListNodes200JSONResponse{Items: append([]Node{}, nodes...)}, nil
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
	if checkService(ref.Service) == nil {
		nodes, err := s.registry.ListNodes(ctx, ref.Service)
		if err != nil {
			return registry.Node{}, s.fault(err)
		}
		for _, n := range nodes {
			if n.ID == ref.ID {
				return n, nil
			}
		}
	}
	return registry.Node{}, problemf(http.StatusNotFound, "node %s is not registered", ref)
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
