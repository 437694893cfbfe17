package api_test

import (
	"strings"
	"testing"
	"time"

	"sluice/api"
	"sluice/controlplane"
	"sluice/registry"
)

// hold puts the report of another gateway into the registry.
func (in *instance) hold(s controlplane.Status) {
	in.t.Helper()
	value, err := registry.MarshalJSON(s)
	if err == nil {
		err = in.registry.Hold(in.t.Context(), registry.Object{Kind: registry.KindGateway, Name: s.Gateway, Value: value}, time.Minute)
	}
	if err != nil {
		in.t.Fatal(err)
	}
}

func TestWritesWait(t *testing.T) {
	t.Parallel()
	in := start(t)
	become := func(change func(*controlplane.Status)) {
		s := *in.local.status.Load()
		change(&s)
		in.local.status.Store(&s)
	}
	other := controlplane.Status{Gateway: "edge-2", Group: "default", Phase: controlplane.InStep, Registry: controlplane.RegistryHealth{Connected: true}}
	other.SeqWanted, other.SeqLive = 1, 1
	in.hold(other)
	become(func(s *controlplane.Status) { s.SeqWanted, s.SeqLive = 1, 1 })

	var result api.ChangeResult
	in.do("PUT", "/v1/upstreams/io?wait=20s", `{}`).want(201).json(&result)
	if result.Live == nil || !*result.Live || len(result.Gateways) != 2 {
		t.Errorf("live: %+v", result)
	}
	// One of two does not get there in time, and says why.
	become(func(s *controlplane.Status) { s.SeqWanted, s.SeqLive = 2, 2 })
	in.do("PUT", "/v1/upstreams/web?wait=300ms", `{}`).want(202).json(&result)
	if result.Live == nil || *result.Live || !result.Gateways[0].Live || result.Gateways[1].Live || !strings.Contains(result.Gateways[1].Why, "at seq 1") {
		t.Errorf("not live: %+v", result)
	}
	// One that refuses is not waited for.
	other.SeqWanted, other.Failure = 9, &controlplane.Failure{At: time.Now().Add(time.Hour), Message: "[emerg] bogus"}
	in.hold(other)
	become(func(s *controlplane.Status) { s.SeqWanted, s.SeqLive = 9, 9 })
	began := time.Now()
	done := make(chan answer, 1)
	go func() { done <- in.do("DELETE", "/v1/upstreams/web?wait=5m", "") }()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for hours := time.Duration(2); ; hours++ { // it must fail after the wait began, whenever that is
		select {
		case a := <-done:
			a.json(&result)
		case <-tick.C:
			other.Failure = &controlplane.Failure{At: time.Now().Add(hours * time.Hour), Message: "[emerg] bogus"}
			in.hold(other)
			continue
		}
		break
	}
	if took := time.Since(began); took > 4*time.Minute || *result.Live || !strings.Contains(result.Gateways[1].Why, "[emerg] bogus") {
		t.Errorf("refused: %+v after %s", result, took)
	}
	for _, wait := range []string{"0", "-1s", "6m", "0s", "soon"} {
		in.do("PUT", "/v1/upstreams/io?wait="+wait, `{}`).wantDetail(400, "as 30s")
	}
	in.do("GET", "/v1/upstreams?wait=1s", "").want(400)
}
