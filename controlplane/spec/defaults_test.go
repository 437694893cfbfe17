package spec_test

import (
	"encoding/json"
	"testing"

	"github.com/google/go-cmp/cmp"
	"sluice/controlplane/spec"
)

// asJSON shows values with their pointers followed and units written out.
func asJSON(t *testing.T, v any) string {
	t.Helper()
	data, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func TestWithDefaults(t *testing.T) {
	t.Parallel()
	d := parse(t, `
upstreams:
  io: {}
  web: {service: www, balance: {method: hash, key: uri}, passive: {maxFails: 0}, keepalive: {timeout: 1s}, check: {type: engineio}}
  old: {endpoints: services/old, balance: {method: least_conn}, check: {type: http, path: /h, interval: 2s, fall: 1, tls: {serverName: n}}}
overrides:
  io/n1: {}
  io/n2: {state: draining, weight: 3}
`)
	tests := []struct {
		name string
		give any
		want string
	}{
		{"upstream", d.Upstreams["io"].WithDefaults("io"), `{"service":"io","balance":{"method":"ip_hash","consistent":false},"passive":{"maxFails":3,"failTimeout":"5s"},"keepalive":{"connections":32,"timeout":"4s"},"guard":{"enabled":true,"share":30,"window":"10m0s"},"check":{"type":"tcp","interval":"5s","timeout":"2s","fall":3,"rise":2}}`},
		{"upstream with values", d.Upstreams["web"].WithDefaults("web"), `{"service":"www","balance":{"method":"hash","key":"uri","consistent":true},"passive":{"maxFails":0,"failTimeout":"5s"},"keepalive":{"connections":32,"timeout":"1s"},"guard":{"enabled":true,"share":30,"window":"10m0s"},"check":{"type":"engineio","interval":"30s","timeout":"2s","fall":3,"rise":2,"path":"/socket.io/"}}`},
		{"endpoints", d.Upstreams["old"].WithDefaults("old"), `{"endpoints":"services/old","balance":{"method":"least_conn","consistent":false},"passive":{"maxFails":3,"failTimeout":"5s"},"keepalive":{"connections":32,"timeout":"4s"},"guard":{"enabled":true,"share":30,"window":"10m0s"},"check":{"type":"http","interval":"2s","timeout":"2s","fall":1,"rise":2,"path":"/h","codes":["200-399"],"tls":{"verify":true,"serverName":"n"}}}`},
		{"route", spec.Route{Upstream: "io"}.WithDefaults(), `{"path":"/socket.io/","match":"prefix","kind":"socketio","upstream":"io","connectTimeout":"2s","readTimeout":"1m15s","sendTimeout":"1m15s","retries":{"tries":2,"timeout":"4s"},"maxBodySize":"1m","bufferSize":"4k","buffering":false}`},
		{"websocket", spec.Route{Upstream: "io", Kind: spec.WebSocket}.WithDefaults(), `{"path":"/","match":"prefix","kind":"websocket","upstream":"io","connectTimeout":"2s","readTimeout":"1h0m0s","sendTimeout":"1h0m0s","retries":{"tries":2,"timeout":"4s"},"maxBodySize":"1m","bufferSize":"4k","buffering":false}`},
		{"http", spec.Route{Upstream: "io", Kind: spec.HTTP}.WithDefaults(), `{"path":"/","match":"prefix","kind":"http","upstream":"io","connectTimeout":"2s","readTimeout":"1m0s","sendTimeout":"1m0s","retries":{"tries":2,"timeout":"4s"},"maxBodySize":"1m","bufferSize":"4k","buffering":true}`},
		{"site", spec.Site{}.WithDefaults(), `{"groups":["default"],"tls":{"minVersion":"1.2"},"clientAddress":{"from":"X-Forwarded-For"},"accessLog":true}`},
		{"override", d.Overrides["io/n1"].WithDefaults(), `{"state":"active"}`},
		{"override with values", d.Overrides["io/n2"].WithDefaults(), `{"state":"draining","weight":3}`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			if diff := cmp.Diff(tt.want, asJSON(t, tt.give)); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestWithDefaultsLeavesItsReceiver(t *testing.T) {
	t.Parallel()
	u := parse(t, `upstreams: {u: {balance: {method: hash, key: uri}}}`).Upstreams["u"]
	s := spec.Site{Routes: []spec.Route{{Upstream: "u"}}}
	before := asJSON(t, u) + asJSON(t, s)
	u.WithDefaults("u")
	s.WithDefaults()
	if after := asJSON(t, u) + asJSON(t, s); after != before {
		t.Errorf("before %s\nafter  %s", before, after)
	}
}

// TestDefaultsAreValid holds for what WithDefaults makes of the least that an object can be.
func TestDefaultsAreValid(t *testing.T) {
	t.Parallel()
	for _, kind := range []spec.RouteKind{spec.SocketIO, spec.WebSocket, spec.HTTP} {
		if errs := (spec.Route{Upstream: "io", Kind: kind}).WithDefaults().Validate(); errs != nil {
			t.Errorf("%s: %v", kind, errs)
		}
	}
	if errs := (spec.Override{}).WithDefaults().Validate(); errs != nil {
		t.Error(errs)
	}
}
