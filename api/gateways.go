package api

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"strings"

	"sluice/controlplane"
	"sluice/registry"
)

// ListGateways implements StrictServerInterface.
func (s *Server) ListGateways(ctx context.Context, r ListGatewaysRequestObject) (ListGatewaysResponseObject, error) {
	p := r.Params
	all, err := s.gateways(ctx)
	if err != nil {
		return nil, err
	}
	var f filters[Status]
	f.add(p.Group != "", func(st Status) bool { return st.Group == p.Group })
	f.add(p.Phase != "", func(st Status) bool { return st.Phase == p.Phase })
	items, next := pageOf(newListing(p.From, p.Prefix, p.Limit), f, each(all, func(st Status) string { return st.Gateway }), "")
	return ListGateways200JSONResponse{Items: items, Next: next}, nil
}

// gateways returns the status of every gateway that has reported lately, sorted by name.
func (s *Server) gateways(ctx context.Context) ([]Status, error) {
	others, err := s.reports(ctx)
	if err != nil {
		return nil, err
	}
	items := slices.Concat(others, []Status{s.local.Status(ctx)}) // fresher than its report
	slices.SortFunc(items, func(a, b Status) int { return strings.Compare(a.Gateway, b.Gateway) })
	return items, nil
}

// GetGateway implements StrictServerInterface.
func (s *Server) GetGateway(ctx context.Context, r GetGatewayRequestObject) (GetGatewayResponseObject, error) {
	if own := s.local.Status(ctx); own.Gateway == r.Name {
		return GetGateway200JSONResponse(own), nil
	}
	status, _, err := get[controlplane.Status](ctx, s, registry.Ref{Kind: registry.KindGateway, Name: r.Name})
	if errors.Is(err, registry.ErrNotFound) {
		return nil, problemf(http.StatusNotFound, "gateway %q has not reported lately: GET /v1/gateways lists those that have", r.Name)
	}
	return GetGateway200JSONResponse(status), err
}

// GetSelf implements StrictServerInterface.
func (s *Server) GetSelf(ctx context.Context, _ GetSelfRequestObject) (GetSelfResponseObject, error) {
	return GetSelf200JSONResponse(s.local.Status(ctx)), nil
}

// RetryGateway implements StrictServerInterface.
func (s *Server) RetryGateway(ctx context.Context, r RetryGatewayRequestObject) (RetryGatewayResponseObject, error) {
	if own := s.local.Status(ctx).Gateway; own != r.Name {
		if _, err := s.GetGateway(ctx, GetGatewayRequestObject(r)); err != nil {
			return nil, err
		}
		return nil, problemf(http.StatusConflict, "this instance keeps gateway %q: ask the instance beside gateway %q", own, r.Name)
	}
	s.local.Retry()
	return RetryGateway202Response{}, nil
}
