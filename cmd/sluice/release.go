package main

import (
	"context"
	"fmt"
	"time"

	"sluice/api"
	"sluice/controlplane"
	"sluice/controlplane/spec"
	"sluice/registry"
)

// gatewayLister lists what the gateways of the fleet say of themselves.
type gatewayLister func(ctx context.Context) ([]controlplane.Status, error)

const (
	// noticeTime is how long a gateway may take until its status shows that a node left: it gathers changes for up to a
	// second, and reports at most once a second.
	noticeTime = 2 * time.Second
	askEvery   = 250 * time.Millisecond
)

// released returns a channel that is closed when no gateway sends new connections to a node that has left just now: each had
// the time to notice, and is in step. It is closed at the limit, whatever the gateways say, or when ctx ends.
func (m *membership) released(ctx context.Context, limit time.Duration) <-chan struct{} {
	done := make(chan struct{})
	go func() {
		defer close(done)
		ctx, cancel := context.WithTimeout(ctx, limit)
		defer cancel()
		for wait := noticeTime; ; wait = askEvery {
			select {
			case <-ctx.Done():
				return
			case <-time.After(wait):
			}
			if statuses, err := m.gateways(ctx); err == nil && inStep(statuses) {
				return
			}
		}
	}()
	return done
}

func inStep(statuses []controlplane.Status) bool {
	for _, s := range statuses {
		if s.Phase != controlplane.InStep {
			return false
		}
	}
	return true
}

// gatewaysOfAPI asks an instance for those that params select.
func gatewaysOfAPI(client api.ClientWithResponsesInterface, params api.ListGatewaysParams) gatewayLister {
	return func(ctx context.Context) ([]controlplane.Status, error) {
		return pages(func(from string) ([]controlplane.Status, string, error) {
			params := params
			params.From = from
			resp, err := client.ListGatewaysWithResponse(ctx, &params)
			if err := api.Check(resp, err); err != nil {
				return nil, "", err
			}
			return resp.JSON200.Items, resp.JSON200.Next, nil
		})
	}
}

// gatewaysOfRegistry reads the reports.
func gatewaysOfRegistry(store registry.Store) gatewayLister {
	return func(ctx context.Context) ([]controlplane.Status, error) {
		page, err := store.List(ctx, registry.KindGateway, "", 0)
		if err != nil {
			return nil, err
		}
		var statuses []controlplane.Status
		for _, o := range page.Objects {
			status, err := spec.Decode[controlplane.Status](o.Value)
			if err != nil {
				return nil, fmt.Errorf("decode the report of gateway %s: %w", o.Name, err)
			}
			statuses = append(statuses, status)
		}
		return statuses, nil
	}
}
