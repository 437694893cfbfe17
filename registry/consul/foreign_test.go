package consul

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/consul/api"

	"sluice/registry"
)

// hasTombstones says of which nodes the Snapshot has a tombstone.
func hasTombstones(want string) func(registry.Snapshot) bool {
	return func(s registry.Snapshot) bool {
		var out []string
		for _, t := range s.Tombstones {
			out = append(out, t.ID)
		}
		return strings.Join(out, " ") == want
	}
}

func both(a, b func(registry.Snapshot) bool) func(registry.Snapshot) bool {
	return func(s registry.Snapshot) bool { return a(s) && b(s) }
}

// ttlService is a service with a check that the test sets.
func ttlService(name, id string, port int) *api.AgentServiceRegistration {
	return &api.AgentServiceRegistration{
		ID: id, Name: name, Address: "10.0.0.1", Port: port,
		Check: &api.AgentServiceCheck{TTL: "10m", Status: api.HealthPassing},
	}
}

func TestServicesOfOthers(t *testing.T) {
	t.Parallel()
	r := open(t, shared, Config{Fleet: newFleet()}, impatient)
	const service = "legacy"
	commit(t, r, service)
	shared.define(t, &api.AgentServiceRegistration{
		ID: "legacy-a", Name: service, Port: 6001, Tags: []string{"v1", "", "tab\t"}, Meta: map[string]string{"zone": "b", "version": "7"},
		Weights: &api.AgentWeights{Passing: 5, Warning: 1},
	})
	shared.define(t, &api.AgentServiceRegistration{Name: service, Address: "10.0.0.2", Port: 6002})
	shared.define(t, &api.AgentServiceRegistration{ID: "legacy-name", Name: service, Address: "legacy.example", Port: 6003})
	shared.define(t, &api.AgentServiceRegistration{ID: "legacy-unix", Name: service, SocketPath: "/run/legacy.sock"})

	s := watch(t, r).until("the three that can be reached", func(s registry.Snapshot) bool { return len(s.Nodes) == 3 })
	want := map[string]string{"legacy-a": "127.0.0.1:6001", "here": "10.0.0.2:6002", "legacy-unix": "unix:/run/legacy.sock"}
	for _, n := range s.Nodes {
		if n.HostPort() != want[n.ID] || n.Incarnation == "" || n.Service != service {
			t.Errorf("got %+v at %s", n, n.HostPort())
		}
	}
	if a := s.Nodes[1]; a.ID != "legacy-a" || a.Weight != 5 || a.Zone != "b" || a.Meta["version"] != "7" || strings.Join(a.Tags, " ") != "v1" {
		t.Errorf("got %+v", a)
	}
	if len(s.Problems) != 1 || s.Problems[0].Object != "node/legacy/legacy-name" || !strings.Contains(s.Problems[0].Message, "host name") {
		t.Errorf("problems: %v", s.Problems)
	}
	if page, err := r.ListNodes(t.Context(), service, "", 0); err != nil || len(page.Nodes) != 3 {
		t.Errorf("listed: %+v, %v", page, err)
	}
	if n, err := r.GetNode(t.Context(), registry.NodeRef{Service: service, ID: "legacy-a"}); err != nil || n.Weight != 5 {
		t.Errorf("got %+v, %v", n, err)
	}
	if err := r.Remove(t.Context(), registry.NodeRef{Service: service, ID: "legacy-a"}); err == nil || !strings.Contains(err.Error(), "not registered with sluice") {
		t.Errorf("removal of somebody else's: %v", err)
	}
}

func TestConditions(t *testing.T) {
	t.Parallel()
	r := open(t, shared, Config{Fleet: newFleet()}, impatient)
	const service = "conditions"
	commit(t, r, service)
	agent := shared.client().Agent()
	for i, id := range []string{"a", "b", "c"} {
		shared.define(t, ttlService(service, "conditions-"+id, 6001+i))
	}
	all := "conditions-a conditions-b conditions-c"
	w := watch(t, r)
	w.until("all", hasIDs(all))
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	check := func(id string) string { return "service:conditions-" + id }

	must(agent.UpdateTTL(check("a"), "hm", api.HealthWarning))
	for i := range 5 {
		must(agent.UpdateTTL(check("b"), fmt.Sprintf("took %d ms", i), api.HealthPassing))
	}
	w.silent(500*time.Millisecond, "warning is in service, and an output is no news")

	must(agent.EnableServiceMaintenance("conditions-c", "upgrade"))
	w.until("c at rest, on purpose", both(hasIDs("conditions-a conditions-b"), hasTombstones("conditions-c")))
	must(agent.DisableServiceMaintenance("conditions-c"))
	w.until("c in service", both(hasIDs(all), hasTombstones("")))

	must(agent.UpdateTTL(check("a"), "dead", api.HealthCritical))
	w.until("a expired", both(hasIDs("conditions-b conditions-c"), hasTombstones("")))
	must(agent.ServiceDeregister("conditions-a"))
	w.silent(300*time.Millisecond, "what had expired is gone")
	must(agent.ServiceDeregister("conditions-b"))
	w.until("b removed on purpose", both(hasIDs("conditions-c"), hasTombstones("conditions-b")))
	shared.define(t, ttlService(service, "conditions-b", 6002))
	w.until("b is back", both(hasIDs("conditions-b conditions-c"), hasTombstones("")))
}

// external registers a service of a Consul node that has no agent.
func external(t *testing.T, where, service, id, address string, port int, status string) {
	t.Helper()
	_, err := shared.client().Catalog().Register(&api.CatalogRegistration{
		Node: where, Address: "10.9.9.9",
		Service: &api.AgentService{ID: id, Service: service, Address: address, Port: port},
		Checks: api.HealthChecks{{
			Node: where, CheckID: "service:" + id, Name: "check", Status: status, ServiceID: id, ServiceName: service,
		}},
	}, nil)
	if err != nil {
		t.Fatal(err)
	}
}

func TestSameIDOnSeveralConsulNodes(t *testing.T) {
	t.Parallel()
	r := open(t, shared, Config{Fleet: newFleet()}, impatient)
	commit(t, r, "twins", "same", "nameless")
	external(t, "far-1", "twins", "t", "10.0.0.1", 80, api.HealthPassing)
	external(t, "far-2", "twins", "t", "10.0.0.2", 80, api.HealthPassing)
	external(t, "far-1", "same", "s", "10.0.0.1", 81, api.HealthCritical)
	external(t, "far-2", "same", "s", "10.0.0.1", 81, api.HealthPassing)
	external(t, "far-1", "nameless", "nameless", "10.0.0.1", 82, api.HealthPassing)
	external(t, "far-2", "nameless", "nameless", "10.0.0.2", 82, api.HealthPassing)
	watch(t, r).until("different servers apart, the same one once", hasIDs("far-1 far-2 s t t@far-2"))
}

func TestObjectThatBreaksKeepsItsNodes(t *testing.T) {
	t.Parallel()
	r := open(t, shared, Config{Fleet: newFleet()}, impatient)
	commit(t, r, "io")
	putNode(t, r, "io", "n")
	w := watch(t, r)
	w.until("the node", hasIDs("n"))
	done, err := r.Commit(t.Context(), registry.Tx{Ops: []registry.Op{{
		Ref: registry.Ref{Kind: registry.KindUpstream, Name: "io"}, Value: []byte(`{"broken":true}`),
	}}})
	if err != nil {
		t.Fatal(err)
	}
	if s := w.until("the change", hasSeq(done.Seq)); ids(s) != "n" {
		t.Errorf("nodes are %q", ids(s))
	}
	done, err = r.Commit(t.Context(), registry.Tx{Ops: []registry.Op{{Ref: registry.Ref{Kind: registry.KindUpstream, Name: "io"}}}})
	if err != nil {
		t.Fatal(err)
	}
	w.until("nothing that uses it", func(s registry.Snapshot) bool { return s.Seq >= done.Seq && len(s.Nodes) == 0 })
}

func TestEndpointsAreOfEtcd(t *testing.T) {
	t.Parallel()
	r := open(t, shared, Config{Fleet: newFleet()}, impatient)
	commit(t, r, registry.EndpointsService("services/chat"), "io")
	putNode(t, r, "io", "n")
	s := watch(t, r).until("the other service", hasIDs("n"))
	if len(s.Problems) != 1 || !strings.Contains(s.Problems[0].Message, "name a service") {
		t.Errorf("problems: %v", s.Problems)
	}
}
