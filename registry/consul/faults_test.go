package consul

import (
	"fmt"
	"net/url"
	"os"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/hashicorp/consul/api"

	"sluice/registry"
	"sluice/registry/keyspace"
)

func TestWatchSurvivesRestartOfConsul(t *testing.T) {
	t.Parallel()
	a := newAgent(t, false, nil)
	r := open(t, a, Config{}, impatient)
	var names []string
	for i := range 5 {
		names = append(names, fmt.Sprintf("s%d", i))
	}
	commit(t, r, names...)
	for _, name := range names {
		putNode(t, r, name, "n")
	}
	w := watch(t, r)
	w.each = func(s registry.Snapshot) {
		if len(s.Objects) < 5 || len(s.Nodes) < 5 || len(s.Tombstones) > 0 {
			t.Errorf("a Snapshot is not complete: %d objects, %d nodes, tombstones %v", len(s.Objects), len(s.Nodes), s.Tombstones)
		}
	}
	w.until("all", func(s registry.Snapshot) bool { return len(s.Nodes) == 5 })
	for round := range 2 {
		a.kill()
		eventually(t, "Health is down", func() bool { return !r.Health().Connected })
		w.silent(300*time.Millisecond, "an outage is no news")
		if err := r.Put(t.Context(), registry.Node{Service: "io", ID: "x", Address: "127.0.0.1", Port: 1}, time.Minute); err == nil {
			t.Error("a node was put though nobody is there")
		}
		a.start(false)
		eventually(t, "Health is up", func() bool { return r.Health().Connected })
		seq := commit(t, r, fmt.Sprintf("later-%d", round))
		w.until("a change after it", hasSeq(seq))
		putNode(t, r, "s1", fmt.Sprintf("n%d", round))
		w.until("a node after it", func(s registry.Snapshot) bool { return len(s.Nodes) == 6+round })
	}
}

// TestOutageExpiresNobody: who could not beat while Consul was away has its ttl to do so.
func TestOutageExpiresNobody(t *testing.T) {
	t.Parallel()
	a := newAgent(t, false, nil)
	r := open(t, a, Config{}, impatient)
	commit(t, r, "io")
	const ttl = 12 * time.Second // much longer than a busy machine takes to notice that Consul is back
	beats, dies := registry.Node{Service: "io", ID: "beats", Address: "127.0.0.1", Port: 1}, registry.Node{Service: "io", ID: "dies", Address: "127.0.0.1", Port: 2}
	for _, n := range []registry.Node{beats, dies} {
		if err := r.Put(t.Context(), n, ttl); err != nil {
			t.Fatal(err)
		}
	}
	w := watch(t, r)
	w.until("both", hasIDs("beats dies"))
	a.kill()
	w.silent(ttl+500*time.Millisecond, "an outage")
	a.start(false)
	eventually(t, "Health is up", func() bool { return r.Health().Connected })
	if err := r.Put(t.Context(), beats, ttl); err != nil {
		t.Fatal(err)
	}
	w.silent(ttl/4, "they have time to beat") // Consul was back somewhat earlier than start noticed
	go func() {
		for t.Context().Err() == nil {
			_ = r.Put(t.Context(), beats, ttl)
			select {
			case <-t.Context().Done():
			case <-time.After(ttl / 3):
			}
		}
	}()
	w.until("the one that did not", both(hasIDs("beats"), hasTombstones("")))
}

// TestMissing: what was alive and is missing was taken away on purpose, unless nobody saw it go.
func TestMissing(t *testing.T) {
	t.Parallel()
	here := registry.Node{Service: "io", ID: "n", Address: "127.0.0.1", Port: 1, Incarnation: "i"}
	was := instance{node: here, ours: true, ttl: time.Minute, where: "agent"}
	adrift := was
	adrift.condition, adrift.adrift = critical, true
	for _, tc := range []struct {
		name              string
		after             news
		nodes, tombstones int
	}{
		{"all was seen", news{whole: true}, 0, 1},
		{"consul was away", news{}, 0, 0},
		{"it may not be read", news{whole: true, filtered: true}, 1, 0},
		{"it was critical", news{whole: true, instances: []instance{{node: here, condition: critical}}}, 0, 0},
		{"its agent left", news{whole: true, left: map[string]bool{"agent": true}}, 1, 0},
		{"its agent died", news{whole: true, instances: []instance{adrift}}, 1, 0},
		{"it rests", news{whole: true, instances: []instance{{node: here, condition: resting}}}, 0, 1},
	} {
		s := newState(keyspace.New("sluice/f/"))
		s.takeService("io", news{instances: []instance{was}})
		s.flush()
		s.takeService("io", tc.after)
		s.flush()
		snapshot := s.Snapshot()
		if len(snapshot.Nodes) != tc.nodes || len(snapshot.Tombstones) != tc.tombstones {
			t.Errorf("%s: %+v", tc.name, snapshot)
		}
		// Its time to beat with another agent ends.
		s.takeService("io", tc.after)
		s.endGrace(time.Now().Add(2 * time.Minute))
		s.flush()
		if n := len(s.Snapshot().Nodes); n == 1 != tc.after.filtered {
			t.Errorf("%s: %d nodes after its ttl", tc.name, n)
		}
		// What is known here only is forgotten after a while, but for what still rests.
		s.oldTombstones(time.Now().Add(time.Second))
		s.flush()
		rests := tc.name == "it rests"
		if n := len(s.Snapshot().Tombstones); n == 1 != rests {
			t.Errorf("%s: %d tombstones later", tc.name, n)
		}
	}
}

// TestConsulThatComesBackEmpty: the index goes back, and what is there now is taken as it is.
func TestConsulThatComesBackEmpty(t *testing.T) {
	t.Parallel()
	a := newAgent(t, true, nil)
	r := open(t, a, Config{}, impatient)
	for i := range 30 {
		commit(t, r, fmt.Sprintf("u%d", i))
	}
	commit(t, r, "io")
	putNode(t, r, "io", "a")
	w := watch(t, r)
	w.until("the node", hasIDs("a"))
	a.kill()
	a.start(true)
	s := w.until("nothing", func(s registry.Snapshot) bool { return len(s.Objects) == 0 && len(s.Nodes) == 0 })
	if s.Seq != 0 || len(s.Tombstones) != 0 {
		t.Errorf("after the loss of all: %+v", s)
	}
	commit(t, r, "io")
	putNode(t, r, "io", "a")
	w.until("all is well again", both(hasIDs("a"), hasSeq(1)))
}

// secured is a server that lets nobody do anything without a token.
func secured(t *testing.T) *agent {
	a := newAgent(t, true, map[string]any{"acl": map[string]any{
		"enabled": true, "default_policy": "deny",
		"tokens": map[string]string{"initial_management": "11111111-2222-3333-4444-555555555555", "agent": "11111111-2222-3333-4444-555555555555"},
	}})
	a.token = "11111111-2222-3333-4444-555555555555"
	eventually(t, "its tokens are there", func() bool {
		_, _, err := a.client().ACL().TokenReadSelf(nil)
		return err == nil
	})
	return a
}

const allRules = `key_prefix "sluice/default/" { policy = "write" }
service_prefix "" { policy = "write" }
node_prefix "" { policy = "read" }
agent_prefix "" { policy = "read" }
session_prefix "" { policy = "write" }`

func TestTokenThatMayNot(t *testing.T) {
	t.Parallel()
	a := secured(t)
	acl := a.client().ACL()
	policy, _, err := acl.PolicyCreate(&api.ACLPolicy{Name: "sluice", Rules: allRules}, nil)
	if err != nil {
		t.Fatal(err)
	}
	token, _, err := acl.TokenCreate(&api.ACLToken{Policies: []*api.ACLTokenPolicyLink{{ID: policy.ID}}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	allow := func(rules string) {
		t.Helper()
		policy.Rules = rules
		if _, _, err := acl.PolicyUpdate(policy, nil); err != nil {
			t.Fatal(err)
		}
	}
	r := open(t, a, Config{Token: token.SecretID}, impatient)
	commit(t, r, "io", "web")
	putNode(t, r, "io", "a")
	putNode(t, r, "web", "b")
	if err := r.Hold(t.Context(), registry.Object{Kind: registry.KindGateway, Name: "g", Value: []byte(`{}`)}, time.Minute); err != nil {
		t.Fatal(err)
	}
	w := watch(t, r)
	w.until("both", hasIDs("a b"))
	w.each = func(s registry.Snapshot) {
		if !strings.HasPrefix(ids(s), "a b") || len(s.Tombstones) > 0 {
			t.Errorf("nodes %q, tombstones %v", ids(s), s.Tombstones)
		}
	}
	problem := func(object string) func(registry.Snapshot) bool {
		return func(s registry.Snapshot) bool { return len(s.Problems) == 1 && s.Problems[0].Object == object }
	}
	allow(allRules + "\nservice \"io\" { policy = \"deny\" }")
	w.until("a Problem of the service that it may not read", problem("service/io"))
	putNode(t, r, "web", "c")
	w.until("the other service goes on", hasIDs("a b c"))
	// Whoever begins now has the other one, and the Problem.
	s := watch(t, open(t, a, Config{Token: token.SecretID}, impatient)).until("a first", func(registry.Snapshot) bool { return true })
	if ids(s) != "b c" || !problem("service/io")(s) {
		t.Errorf("the first Snapshot of another: nodes %q, problems %v", ids(s), s.Problems)
	}
	allow(allRules)
	w.until("no Problem", func(s registry.Snapshot) bool { return len(s.Problems) == 0 })

	// Without its own keys, nothing is known, and what is known stands.
	if _, err := acl.TokenDelete(token.AccessorID, nil); err != nil {
		t.Fatal(err)
	}
	eventually(t, "Health is down", func() bool { return !r.Health().Connected })
	if _, err := r.List(t.Context(), registry.KindUpstream, "", 0); err == nil {
		t.Error("a token that is gone lists")
	}
}

// TestTurns: more services than may be asked at once.
func TestTurns(t *testing.T) {
	t.Parallel()
	a := newAgent(t, true, nil)
	calm := impatient
	calm.wait = time.Minute // those who wait must make place
	r := open(t, a, Config{}, calm)
	const services = maxBlocking + 30
	var names []string
	for i := range services {
		names = append(names, fmt.Sprintf("s%03d", i))
		a.define(t, ttlService(names[i], names[i]+"-a", 6001))
	}
	const many = maxBlocking - 1 // one is for the keys
	commit(t, r, names[:registry.MaxTxObjects]...)
	commit(t, r, names[registry.MaxTxObjects:many]...)
	w := watch(t, r)
	w.until("as many as may wait", func(s registry.Snapshot) bool { return len(s.Nodes) == many })
	eventually(t, "all of them wait", func() bool { return len(r.turns.free) == many })
	commit(t, r, names[many:]...)
	w.until("all", func(s registry.Snapshot) bool { return len(s.Nodes) == services })
	for _, i := range []int{0, 77, services - 1} {
		a.define(t, ttlService(names[i], names[i]+"-b", 6002))
		w.until("one more of "+names[i], func(s registry.Snapshot) bool {
			return strings.Contains(ids(s)+" ", names[i]+"-b ")
		})
	}
	if n := a.connections(t); n > maxBlocking+maxRequests {
		t.Errorf("there are %d connections, at most %d are wanted", n, maxBlocking+maxRequests)
	}
	if h := r.Health(); !h.Connected {
		t.Errorf("Health is %+v", h)
	}
	// When there are few again, each waits long.
	var ops []registry.Op
	for _, name := range names[registry.MaxTxObjects:] {
		ops = append(ops, registry.Op{Ref: registry.Ref{Kind: registry.KindUpstream, Name: name}})
	}
	done, err := r.Commit(t.Context(), registry.Tx{Ops: ops})
	if err != nil {
		t.Fatal(err)
	}
	w.until("fewer", func(s registry.Snapshot) bool { return s.Seq >= done.Seq && len(s.Nodes) == registry.MaxTxObjects+2 })
	eventually(t, "long waits", func() bool {
		wait, _ := r.turns.wait(calm.wait, calm.rotation)
		return wait == calm.wait
	})
}

// connections counts those that are open to the agent.
func (a *agent) connections(t *testing.T) (n int) {
	t.Helper()
	u, err := url.Parse(a.url)
	if err != nil {
		t.Fatal(err)
	}
	port, err := strconv.Atoi(u.Port())
	if err != nil {
		t.Fatal(err)
	}
	table, err := os.ReadFile("/proc/net/tcp")
	if err != nil {
		t.Fatal(err)
	}
	const established = "01"
	for line := range strings.Lines(string(table)) {
		if f := strings.Fields(line); strings.HasSuffix(f[2], fmt.Sprintf(":%04X", port)) && f[3] == established {
			n++
		}
	}
	if n == 0 {
		t.Error("no connection was found")
	}
	return n
}

// TestAgentLeaves: an agent that leaves the cluster takes its services out of the catalog, which nobody meant.
func TestAgentLeaves(t *testing.T) {
	t.Parallel()
	one := newAgent(t, false, map[string]any{"node_name": "one"})
	two := one.joined(t, "two")
	r := open(t, one, Config{}, impatient)
	commit(t, r, "io")
	two.define(t, ttlService("io", "foreign", 6001))
	n := registry.Node{Service: "io", ID: "ours", Address: "127.0.0.1", Port: 80, Incarnation: "i"}
	if err := open(t, two, Config{}, impatient).Put(t.Context(), n, time.Minute); err != nil {
		t.Fatal(err)
	}
	w := watch(t, r)
	w.until("both", hasIDs("foreign ours"))
	two.kill()
	// What the servers do with the node of an agent that left.
	if _, err := one.client().Catalog().Deregister(&api.CatalogDeregistration{Node: "two"}, nil); err != nil {
		t.Fatal(err)
	}
	w.until("that which cannot beat elsewhere has expired", both(hasIDs("ours"), hasTombstones("")))
	if err := r.Put(t.Context(), n, time.Minute); err != nil {
		t.Fatal(err)
	}
	w.silent(500*time.Millisecond, "it beats with another agent")
}

// joined starts another agent, a client, in the cluster of a.
func (a *agent) joined(t *testing.T, name string) *agent {
	t.Helper()
	return newAgent(t, false, map[string]any{
		"node_name": name, "server": false, "bootstrap_expect": 0, "retry_join": []string{fmt.Sprintf("127.0.0.1:%d", a.serf)}, "retry_interval": "100ms",
	})
}

// TestLeavesAnAgentThatDoesNotAnswer: the other one takes over, with queries that wait as well.
func TestLeavesAnAgentThatDoesNotAnswer(t *testing.T) {
	t.Parallel()
	one := newAgent(t, false, map[string]any{"node_name": "one"})
	two := one.joined(t, "two")
	direct := open(t, one, Config{}, impatient)
	patient := impatient
	patient.wait, patient.pulse = 10*time.Minute, 10*time.Minute
	r := open(t, two, Config{Addresses: []string{two.url, one.url}}, patient)
	commit(t, direct, "io")
	w := watch(t, r)
	w.until("the first", hasSeq(1))
	two.signal(t, syscall.SIGSTOP)
	t.Cleanup(func() { two.signal(t, syscall.SIGCONT) })
	began := time.Now()
	n := putNode(t, r, "io", "a")
	t.Logf("a node was put after %s", time.Since(began).Round(time.Millisecond))
	w.until("the node", hasIDs("a"))
	seq := commit(t, direct, "later")
	w.until("a change", hasSeq(seq))
	eventually(t, "Health is up", func() bool { return r.Health().Connected })
	if err := r.Remove(t.Context(), n.Ref()); err != nil {
		t.Error(err)
	}
}

func (a *agent) signal(t *testing.T, sig syscall.Signal) {
	t.Helper()
	if err := a.cmd.Process.Signal(sig); err != nil {
		t.Error(err)
	}
}

// TestOtherAgent: beats may go to any agent of the cluster.
func TestOtherAgent(t *testing.T) {
	t.Parallel()
	one := newAgent(t, false, map[string]any{"node_name": "one"})
	two := one.joined(t, "two")
	here, there := open(t, one, Config{}, impatient), open(t, two, Config{}, impatient)
	commit(t, here, "io")
	n := registry.Node{Service: "io", ID: "n", Address: "127.0.0.1", Port: 80, Incarnation: "i"}
	put := func(r *Registry, n registry.Node) {
		t.Helper()
		if err := r.Put(t.Context(), n, time.Minute); err != nil {
			t.Fatal(err)
		}
	}
	put(here, n)
	w := watch(t, here)
	w.until("the node", hasIDs("n"))
	put(there, n)
	put(there, n)
	w.silent(300*time.Millisecond, "the same node with another agent")
	entries, _, err := one.client().Health().Service("io", "", false, nil)
	if err != nil || len(entries) != 2 {
		t.Fatalf("Consul has %d of it, want one with each agent (%v)", len(entries), err)
	}
	n.Weight = 7
	put(there, n)
	w.until("the newer one", func(s registry.Snapshot) bool { return len(s.Nodes) == 1 && s.Nodes[0].Weight == 7 })
	if err := there.Remove(t.Context(), n.Ref()); err != nil {
		t.Fatal(err)
	}
	w.until("it is gone, whoever has it", both(hasIDs(""), hasTombstones("n")))
	put(here, n)
	w.until("it is back", both(hasIDs("n"), hasTombstones("")))

	// Who knows both takes the other when one dies.
	r := open(t, two, Config{Addresses: []string{two.url, one.url}}, impatient)
	tail := watch(t, r)
	tail.until("the node", hasIDs("n"))
	two.kill()
	seq := commit(t, here, "later")
	tail.until("a change", hasSeq(seq))
	eventually(t, "writes go on", func() bool { return r.Put(t.Context(), n, time.Minute) == nil })
}
