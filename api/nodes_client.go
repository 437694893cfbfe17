package api

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"sluice/registry"
)

// NodesClient registers nodes through the API.
type NodesClient struct {
	client ClientWithResponsesInterface
}

// NewNodesClient returns a NodesClient that uses c.
func NewNodesClient(c ClientWithResponsesInterface) *NodesClient { return &NodesClient{c} }

// Put registers n for ttl, or refreshes it. It implements registry.Putter.
func (c *NodesClient) Put(ctx context.Context, n registry.Node, ttl time.Duration) error {
	if err := addressable(n.ID); err != nil {
		return fmt.Errorf("register %s: %w", n.Ref(), err)
	}
	resp, err := c.client.PutNodeWithResponse(ctx, n.Service, n.ID, newRegistration(n, ttl))
	if err := Check(resp, err); err != nil {
		return fmt.Errorf("register %s: %w", n.Ref(), err)
	}
	return nil
}

// Remove takes a node away on purpose; a node that is not there is registry.ErrNotFound.
func (c *NodesClient) Remove(ctx context.Context, ref registry.NodeRef) error {
	if err := addressable(ref.ID); err != nil {
		return fmt.Errorf("remove %s: %w", ref, err)
	}
	resp, err := c.client.DeleteNodeWithResponse(ctx, ref.Service, ref.ID, &DeleteNodeParams{Incarnation: ref.Incarnation})
	err = Check(resp, err)
	if p, ok := errors.AsType[*Problem](err); ok && p.Status == http.StatusNotFound {
		err = registry.ErrNotFound
	}
	if err != nil {
		return fmt.Errorf("remove %s: %w", ref, err)
	}
	return nil
}

// addressable refuses the ids that URLs resolve as steps of the path.
func addressable(id string) error {
	if id == "." || id == ".." {
		return fmt.Errorf("the id %q cannot be part of a URL: choose another", id)
	}
	return nil
}
