package api_test

import (
	"context"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"sluice/api"
	"sluice/controlplane/spec"
)

// dead is an address at which nobody listens: port 1 is below all that tests listen on.
const dead = "127.0.0.1:1"

// server starts a server that counts its requests, and runs f for each of them.
func server(t *testing.T, f http.HandlerFunc) (address string, requests *atomic.Int32) {
	t.Helper()
	requests = new(atomic.Int32)
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		requests.Add(1)
		f(w, r)
	}))
	t.Cleanup(s.Close)
	return s.URL, requests
}

func client(t *testing.T, addresses ...string) *api.ClientWithResponses {
	t.Helper()
	transport := &http.Transport{}
	t.Cleanup(transport.CloseIdleConnections)
	c, err := api.NewFailoverClient(api.ClientOptions{Addresses: addresses, Token: "s3cret", Transport: transport})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func healthy(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write([]byte(`{"status":"ok"}`))
}

func TestClientAsksTheNextInstance(t *testing.T) {
	t.Parallel()
	away, asked := server(t, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusServiceUnavailable) })
	good, answered := server(t, healthy)
	c := client(t, dead, away, good)
	for range 3 {
		resp, err := c.GetHealthWithResponse(t.Context())
		if err != nil || resp.JSON200 == nil {
			t.Fatalf("%+v, %v", resp, err)
		}
	}
	if asked.Load() != 1 || answered.Load() != 3 {
		t.Errorf("the one that is away was asked %d times, the good one %d", asked.Load(), answered.Load())
	}
}

func TestClientSendsTheBodyAgain(t *testing.T) {
	t.Parallel()
	var bodies atomic.Value
	bad, _ := server(t, func(w http.ResponseWriter, r *http.Request) {
		_, _ = r.Body.Read(make([]byte, 5))
		w.WriteHeader(http.StatusBadGateway)
	})
	good, _ := server(t, func(w http.ResponseWriter, r *http.Request) {
		data := make([]byte, 100)
		n, _ := r.Body.Read(data)
		bodies.Store(string(data[:n]) + " " + r.Header.Get("Authorization") + " " + r.URL.EscapedPath())
		healthy(w, r)
	})
	c := client(t, bad, good+"/below/")
	if _, err := c.PutUpstreamWithResponse(t.Context(), "io", nil, api.Upstream{Service: "a"}); err != nil {
		t.Fatal(err)
	}
	if got := bodies.Load(); got != `{"service":"a"} Bearer s3cret /below/v1/upstreams/io` {
		t.Error(got)
	}
}

func TestClientGivesEachInstanceItsShareOfTheTime(t *testing.T) {
	t.Parallel()
	hangs, _ := server(t, func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	good, _ := server(t, healthy)
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	defer cancel()
	resp, err := client(t, hangs, good).GetHealthWithResponse(ctx)
	if err != nil || resp.JSON200 == nil {
		t.Errorf("%+v, %v", resp, err)
	}
}

func TestClientNamesWhatFailed(t *testing.T) {
	t.Parallel()
	_, err := client(t, dead, "127.0.0.2:1").GetHealthWithResponse(t.Context())
	if err == nil || !strings.Contains(err.Error(), "ask http://127.0.0.1:1: ") || !strings.Contains(err.Error(), "ask http://127.0.0.2:1: ") {
		t.Error(err)
	}
	// The last answer is shown as it is, so that its problem can be read.
	away, _ := server(t, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusServiceUnavailable) })
	resp, err := client(t, dead, away).GetHealthWithResponse(t.Context())
	if err != nil || resp.StatusCode() != http.StatusServiceUnavailable {
		t.Errorf("%+v, %v", resp, err)
	}
	if err := api.Check(resp, nil); err == nil || err.Error() != "the answer is 503 Service Unavailable: is there a sluice at this address?" {
		t.Error(err)
	}
}

func TestClientRefusesAddresses(t *testing.T) {
	t.Parallel()
	for _, address := range []string{"", "ftp://a", "http://", "http://a?b=c", "http://u:p@a", "::"} {
		if _, err := api.NewFailoverClient(api.ClientOptions{Addresses: []string{address}}); err == nil ||
			!strings.Contains(err.Error(), "write it as http://127.0.0.1:7070") {
			t.Errorf("%q: %v", address, err)
		}
	}
	if _, err := api.NewFailoverClient(api.ClientOptions{}); err == nil {
		t.Error("no address was taken")
	}
}

// The zero value of a parameter is one that was left out.
func TestClientLeavesOut(t *testing.T) {
	t.Parallel()
	in := start(t)
	ctx := t.Context()
	put, err := in.client.PutUpstreamWithResponse(ctx, "io", &api.PutUpstreamParams{}, spec.Upstream{})
	if err := api.Check(put, err); err != nil {
		t.Error(err)
	}
	list, err := in.client.ListUpstreamsWithResponse(ctx, &api.ListUpstreamsParams{})
	if err := api.Check(list, err); err != nil {
		t.Error(err)
	}
	history, err := in.client.ListHistoryWithResponse(ctx, &api.ListHistoryParams{})
	if err := api.Check(history, err); err != nil || len(history.JSON200.Items) != 1 {
		t.Errorf("%v, %+v", err, history)
	}
	diff, err := in.client.DiffHistoryWithResponse(ctx, &api.DiffHistoryParams{From: 0, To: 1})
	if err := api.Check(diff, err); err != nil || len(diff.JSON200.Changes) != 1 {
		t.Errorf("%v, %+v", err, diff)
	}
}
