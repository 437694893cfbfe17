package consul

import (
	"testing"
	"time"

	"sluice/registry"
)

func TestHoldTakesOver(t *testing.T) {
	t.Parallel()
	fleet := newFleet()
	one, two := open(t, shared, Config{Fleet: fleet}, impatient), open(t, shared, Config{Fleet: fleet}, impatient)
	hold := func(r *Registry, value string, ttl time.Duration) string {
		t.Helper()
		o := registry.Object{Kind: registry.KindGateway, Name: "g", Value: []byte(value)}
		if err := r.Hold(t.Context(), o, ttl); err != nil {
			t.Fatal(err)
		}
		pair, err := r.getKey(t.Context(), r.keys.Object(o.Ref()))
		if err != nil || pair == nil || pair.Session == "" {
			t.Fatalf("after Hold the key is %+v, %v", pair, err)
		}
		return pair.Session
	}
	first := hold(one, `{"a":1}`, time.Minute)
	if again := hold(two, `{"a":1}`, time.Minute); again != first {
		t.Error("another handle took another session for the same")
	}
	if changed := hold(two, `{"a":2}`, time.Minute); changed != first {
		t.Error("another value took another session")
	}
	longer := hold(two, `{"a":2}`, 2*time.Minute)
	if longer == first {
		t.Error("the session of another ttl is the same")
	}
	if session, _, err := shared.client().Session().Info(first, nil); err != nil || session != nil {
		t.Errorf("the old session is still there: %+v, %v", session, err)
	}
	// A session that somebody ended takes the key with it, and the next Hold is there at once.
	if _, err := shared.client().Session().Destroy(longer, nil); err != nil {
		t.Fatal(err)
	}
	if o, err := one.Get(t.Context(), registry.Ref{Kind: registry.KindGateway, Name: "g"}); err == nil {
		t.Errorf("without its session it is still there: %+v", o)
	}
	hold(one, `{"a":3}`, time.Minute)
}
