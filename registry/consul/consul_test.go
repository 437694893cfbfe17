package consul

import (
	"context"
	"log/slog"
	"testing"
	"time"

	"github.com/hashicorp/consul/api"

	"sluice/registry"
	"sluice/registry/registrytest"
)

func TestConformance(t *testing.T) {
	registrytest.Run(t, func(t *testing.T) registrytest.Harness {
		fleet := newFleet()
		one := open(t, shared, Config{Fleet: fleet}, defaultTiming)
		return registrytest.Harness{
			One: one,
			Two: open(t, shared, Config{Fleet: fleet}, defaultTiming),
			Open: func(t *testing.T) (registry.Registry, func()) {
				cfg := Config{Addresses: []string{shared.url}, Fleet: fleet, Logger: slog.New(slog.DiscardHandler)}
				r, err := New(context.Background(), cfg)
				if err != nil {
					t.Fatal(err)
				}
				return r, func() { _ = r.Close() }
			},
			PutRawNode: func(t *testing.T, service, id, value string) {
				shared.define(t, &api.AgentServiceRegistration{
					ID: one.serviceID(service, id), Name: service, Address: "127.0.0.1", Port: 1,
					Meta: map[string]string{metaFleet: fleet, metaNode: value},
				})
			},
			PutRawObject: func(t *testing.T, ref registry.Ref, value string) {
				if _, _, err := one.txn(t.Context(), time.Second, opSet(one.keys.Object(ref), value)); err != nil {
					t.Fatal(err)
				}
			},
		}
	}, registrytest.Traits{
		// A node is critical at once after its ttl. But what is held hangs on a session: of 10 s at least, which ends up to as
		// much later again.
		ExpirySlack: 22 * time.Second,
		Settle:      10 * time.Second,
	})
}
