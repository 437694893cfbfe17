package api

import (
	"cmp"
	"context"
	"net/http"
	"slices"
	"strings"

	"sluice/registry"
)

// permitService refuses a registrar whose limits do not name the service.
func permitService(c caller, service string) error {
	if c.limits != nil && !c.limits.AllowsService(service) {
		return problemf(http.StatusForbidden, "%s is for nodes of the services %s, not of %q", c.name, strings.Join(c.limits.Services, ", "), service)
	}
	return nil
}

// permitSuccessor refuses a registrar who would take the place of a node that is not his. That node is looked up in memory:
// beats are many.
func (s *Server) permitSuccessor(c caller, n registry.Node) error {
	if err := permitService(c, n.Service); err != nil || c.limits == nil {
		return err
	}
	snapshot, _ := s.local.Snapshot()
	i, ok := slices.BinarySearchFunc(snapshot.Nodes, n, func(a, b registry.Node) int {
		return cmp.Or(cmp.Compare(a.Service, b.Service), cmp.Compare(a.ID, b.ID))
	})
	if !ok {
		return nil
	}
	return permitNode(c, snapshot.Nodes[i])
}

// permitRemoval refuses a registrar who would remove a node that is not his.
func (s *Server) permitRemoval(ctx context.Context, c caller, ref registry.NodeRef) error {
	if err := permitService(c, ref.Service); err != nil || c.limits == nil {
		return err
	}
	n, err := s.findNode(ctx, ref)
	if err != nil {
		return err
	}
	return permitNode(c, n)
}

// permitNode refuses a node that the registrar could not have registered himself.
func permitNode(c caller, n registry.Node) error {
	if errs := c.limits.AllowsAddress(n.Address, n.Port); len(errs) > 0 {
		return problemf(http.StatusForbidden, "node %s is at %s, and is not one of %s: %s", n.Ref(), n.HostPort(), c.name, errs[0].Message)
	}
	return nil
}
