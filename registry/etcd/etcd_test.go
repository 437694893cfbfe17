package etcd

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"sync/atomic"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"sluice/registry"
	"sluice/registry/registrytest"
)

// shared is the server of those tests that do not stop it; each has a fleet of its own.
var shared *Embedded

func TestMain(m *testing.M) {
	os.Exit(run(m))
}

func run(m *testing.M) int {
	dir, err := os.MkdirTemp("", "sluice-etcd-test-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	shared, err = StartEmbedded(EmbeddedConfig{Dir: dir, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer shared.Close()
	return m.Run()
}

var fleets atomic.Int64

func newFleet() string { return fmt.Sprintf("fleet-%d", fleets.Add(1)) }

// impatient makes faults show within a test.
var impatient = timing{
	call:      2 * time.Second,
	patience:  time.Second,
	list:      5 * time.Second,
	progress:  100 * time.Millisecond,
	silence:   500 * time.Millisecond,
	reconcile: time.Minute,
	alarms:    time.Minute,
	retryMin:  20 * time.Millisecond,
	retryMax:  200 * time.Millisecond,
}

// open returns a handle that is closed when the test ends.
func open(t *testing.T, url, fleet string, timing timing) *Registry {
	t.Helper()
	r, err := newRegistry(t.Context(), Config{Endpoints: []string{url}, Fleet: fleet, Logger: quietLog(t)}, timing)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = r.Close() })
	return r
}

// quietLog shows what sluice itself logs when a test fails.
func quietLog(t *testing.T) *slog.Logger {
	return slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelInfo}))
}

func (r *Registry) rawPut(t *testing.T, key, value string, opts ...clientv3.OpOption) {
	t.Helper()
	client, err := r.connect(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := client.Put(t.Context(), key, value, opts...); err != nil {
		t.Fatal(err)
	}
}

func TestConformance(t *testing.T) {
	registrytest.Run(t, func(t *testing.T) registrytest.Harness {
		fleet := newFleet()
		one := open(t, shared.ClientURL(), fleet, defaultTiming)
		return registrytest.Harness{
			One: one,
			Two: open(t, shared.ClientURL(), fleet, defaultTiming),
			Open: func(t *testing.T) (registry.Registry, func()) {
				r, err := New(context.Background(), Config{Server: shared, Fleet: fleet, Logger: quietLog(t)})
				if err != nil {
					t.Fatal(err)
				}
				return r, func() { _ = r.Close() }
			},
			PutRawNode: func(t *testing.T, service, id, value string) {
				one.rawPut(t, one.keys.Node(service, id), value)
			},
			PutRawObject: func(t *testing.T, ref registry.Ref, value string) {
				one.rawPut(t, one.keys.Object(ref), value)
			},
		}
	}, registrytest.Traits{
		ExpirySlack: 3 * time.Second, // measured: 0.2 to 1.2 s; the rest is for a busy machine
		Settle:      10 * time.Second,
	})
}
