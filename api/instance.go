package api

import (
	"bytes"
	"context"
	"fmt"
	"time"

	"sluice"
	"sluice/controlplane"
)

// GetHealth implements StrictServerInterface.
func (s *Server) GetHealth(context.Context, GetHealthRequestObject) (GetHealthResponseObject, error) {
	return GetHealth200JSONResponse{Status: Ok}, nil
}

// GetReadiness implements StrictServerInterface.
func (s *Server) GetReadiness(ctx context.Context, _ GetReadinessRequestObject) (GetReadinessResponseObject, error) {
	ready, reasons := readiness(s.local.Status(ctx))
	if !ready {
		return GetReadiness503JSONResponse{Reasons: reasons}, nil
	}
	return GetReadiness200JSONResponse{Ready: true, Reasons: reasons}, nil
}

// readiness tells whether a gateway serves what was proven, and what is not in order. A gateway that serves its last good
// configuration is ready: taking it out of service would help nobody.
func readiness(st controlplane.Status) (ready bool, reasons []string) {
	reasons = []string{}
	add := func(format string, args ...any) { reasons = append(reasons, fmt.Sprintf(format, args...)) }
	if !st.Nginx.Running {
		add("nginx does not run")
	}
	if st.Nginx.Running && st.RevisionLive == "" {
		add("nothing is proven live yet")
	}
	if f := st.Failure; f != nil {
		add("the newest configuration is not live, the last good one serves: %s", f.Message)
	}
	if !st.Registry.Connected {
		add("the registry is away since %s: %s", st.Registry.Since.UTC().Format(time.RFC3339), st.Registry.Error)
	}
	if st.Stale {
		add("the registry has not answered since the start: what serves is what the disk held")
	}
	return st.Nginx.Running && st.RevisionLive != "", reasons
}

// GetOpenAPI implements StrictServerInterface.
func (s *Server) GetOpenAPI(context.Context, GetOpenAPIRequestObject) (GetOpenAPIResponseObject, error) {
	return GetOpenAPI200ApplicationOpenapiYamlResponse{Body: bytes.NewReader(sluice.OpenAPI), ContentLength: int64(len(sluice.OpenAPI))}, nil
}
