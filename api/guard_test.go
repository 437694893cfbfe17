package api_test

import (
	"context"
	"errors"
	"strings"
	"testing"

	"sluice/controlplane"
	"sluice/registry"
)

func TestTokenIsDemanded(t *testing.T) {
	t.Parallel()
	in := startWith(t, newRegistry(t), "s3cret")
	for _, header := range []string{"", "Bearer", "Bearer ", "Bearer wrong", "Bearer s3cret2", "Bearer s3cre", "Basic s3cret", "s3cret"} {
		got := in.do("GET", "/v1/upstreams", "", "Authorization: "+header)
		got.wantDetail(401, "send the header Authorization: Bearer TOKEN")
		if got.header.Get("WWW-Authenticate") == "" || strings.Contains(got.body, "s3cret") {
			t.Errorf("%v: %s", got.header, got.body)
		}
	}
	in.do("PUT", "/v1/upstreams/io", `{}`).want(401)
	in.do("GET", "/v1", "").want(401)
	in.do("GET", "/v1/upstreams", "", "Authorization: Bearer s3cret").want(200)
	in.do("GET", "/v1/upstreams", "", "Authorization: bearer s3cret", "Host: sluice.example").want(200)
	in.do("GET", "/healthz", "").want(200)
	in.do("GET", "/readyz", "").want(200)
	in.do("GET", "/openapi.yaml", "").want(200)
}

func TestWithoutTokenOnlyLoopbackIsAnswered(t *testing.T) {
	t.Parallel()
	in := start(t)
	for host, status := range map[string]int{
		"localhost": 200, "localhost:7070": 200, "127.0.0.1": 200, "127.9.9.9:80": 200, "[::1]:7070": 200, "[::1]": 200, "[::ffff:127.0.0.1]:1": 200,
		"evil.example": 403, "evil.example:7070": 403, "10.0.0.1": 403, "localhost.evil.example": 403, "127.0.0.1.evil.example": 403, "[fd00::1]:7070": 403,
	} {
		for _, path := range []string{"/v1/upstreams", "/healthz"} {
			if got := in.do("GET", path, "", "Host: "+host); got.status != status {
				t.Errorf("%s at %s: %d, want %d", path, host, got.status, status)
			}
		}
	}
}

func TestPagesOfOtherOriginsAreRefused(t *testing.T) {
	t.Parallel()
	in := start(t)
	for _, header := range []string{"Sec-Fetch-Site: cross-site", "Sec-Fetch-Site: same-site", "Origin: https://evil.example"} {
		in.do("POST", "/v1/gateways/edge-1/retry", "", header).wantDetail(403, "the request comes from a page of another origin")
	}
	if in.local.retries.Load() != 0 {
		t.Error("a page of another origin made it retry")
	}
	in.do("POST", "/v1/gateways/edge-1/retry", "", "Sec-Fetch-Site: same-origin").want(202)
}

func TestHeadersOfAnswers(t *testing.T) {
	t.Parallel()
	in := start(t)
	for _, path := range []string{"/v1/upstreams", "/v1/nothing", "/healthz"} {
		h := in.do("GET", path, "").header
		if h.Get("X-Content-Type-Options") != "nosniff" || h.Get("Cache-Control") != "no-store" || !strings.Contains(h.Get("Content-Security-Policy"), "default-src 'none'") {
			t.Errorf("%s: %v", path, h)
		}
	}
}

func TestRegistryAway(t *testing.T) {
	t.Parallel()
	in := startWith(t, brokenRegistry{err: errors.New("etcd: no answer from 127.0.0.1:2379")}, "")
	for _, r := range [][3]string{
		{"GET", "/v1/upstreams"}, {"GET", "/v1/upstreams/io"}, {"PUT", "/v1/upstreams/io", `{}`}, {"DELETE", "/v1/upstreams/io"},
		{"POST", "/v1/apply", `{"upstreams":{"io":{}}}`}, {"GET", "/v1/nodes"}, {"GET", "/v1/services"}, {"GET", "/v1/gateways"},
		{"GET", "/v1/gateways/x"}, {"PUT", "/v1/services/io/nodes/n1", `{"address":"10.0.0.1","port":80}`},
	} {
		got := in.do(r[0], r[1], r[2])
		got.wantDetail(503, "the registry did not answer")
		if got.header.Get("Retry-After") != "2" {
			t.Errorf("%v: %v", r, got.header)
		}
	}
	// What needs no registry works.
	in.do("GET", "/v1/gateways/edge-1", "").want(200)
	in.do("GET", "/v1/self", "").want(200)
	in.do("POST", "/v1/gateways/edge-1/retry", "").want(202)
}

func TestErrorsOfTheRegistry(t *testing.T) {
	t.Parallel()
	in := startWith(t, brokenRegistry{err: errors.New("etcd: the database is full"), connected: true}, "")
	in.do("GET", "/v1/upstreams", "").wantDetail(500, "the registry refused: etcd: the database is full")
	in = startWith(t, brokenRegistry{err: context.DeadlineExceeded, connected: true}, "")
	in.do("GET", "/v1/upstreams", "").want(503)
	in = startWith(t, brokenRegistry{err: registry.ErrNotFound, connected: true}, "")
	in.do("GET", "/v1/upstreams/io", "").want(404)
}

// panicking is a gateway with a bug.
type panicking struct{ *fakeLocal }

func (panicking) Status(context.Context) controlplane.Status { panic("a bug with a s3cret") }

func TestPanicsShowNothing(t *testing.T) {
	t.Parallel()
	in := startLocal(t, brokenRegistry{}, panicking{newLocal("x")}, "")
	got := in.do("GET", "/readyz", "")
	got.wantDetail(500, "something went wrong inside sluice; its log says what")
	if strings.Contains(got.body, "s3cret") || !strings.Contains(in.log.String(), "a bug with a s3cret") {
		t.Errorf("answer %s\nlog %s", got.body, in.log)
	}
}
