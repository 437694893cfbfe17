// Package registrytest is the conformance suite of registry.Registry: what every implementation has to do, whatever it
// stands on. An implementation's tests call Run.
package registrytest

import (
	"context"
	"encoding/json"
	"fmt"
	"testing"
	"time"

	"sluice/registry"
)

// Harness is one empty registry under test.
type Harness struct {
	// One and Two are handles to the same fleet, as two instances have them. Run closes neither.
	One, Two registry.Registry
	// Open returns a further handle and the function that closes it.
	Open func(t *testing.T) (r registry.Registry, closeIt func())
	// PutRawNode stores value, whatever it is, where the node would be.
	PutRawNode func(t *testing.T, service, id, value string)
	// PutRawObject stores value, whatever it is, where the object would be.
	PutRawObject func(t *testing.T, ref registry.Ref, value string)
}

// Traits are what implementations may differ in.
type Traits struct {
	// ExpirySlack is how long after its ttl a node may still be there.
	ExpirySlack time.Duration
	// Settle is how long a change may take until a Watch has sent it.
	Settle time.Duration
}

// Run tests the registries that newRegistry makes: each call an empty one.
func Run(t *testing.T, newRegistry func(t *testing.T) Harness, traits Traits) {
	suite := &suite{open: newRegistry, traits: traits}
	// First and by itself: it counts goroutines.
	t.Run("watch leaves no goroutine", suite.watchLeavesNothing)
	groups := []struct {
		name  string
		tests []test
	}{
		{"watch", watchTests()},
		{"commit", commitTests()},
		{"history", historyTests()},
		{"list", listTests()},
		{"nodes", nodeTests()},
		{"slots", slotTests()},
		{"rollouts", rolloutTests()},
		{"hold", holdTests()},
	}
	for _, group := range groups {
		t.Run(group.name, func(t *testing.T) {
			t.Parallel()
			for _, tc := range group.tests {
				t.Run(tc.name, func(t *testing.T) {
					t.Parallel()
					tc.run(t, suite.start(t))
				})
			}
		})
	}
}

type suite struct {
	open   func(t *testing.T) Harness
	traits Traits
}

type test struct {
	name string
	run  func(t *testing.T, e *env)
}

// env is what one test works with.
type env struct {
	Harness
	Traits
	ctx context.Context
}

// testLimit is for one test; a suite that hangs is worse than one that fails.
const testLimit = 50 * time.Second

func (s *suite) start(t *testing.T) *env {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), testLimit)
	t.Cleanup(cancel)
	return &env{Harness: s.open(t), Traits: s.traits, ctx: ctx}
}

func (e *env) commit(t *testing.T, ops ...registry.Op) registry.Committed {
	t.Helper()
	done, err := e.One.Commit(e.ctx, registry.Tx{Ops: ops, Author: "tester", Reason: t.Name()})
	if err != nil {
		t.Fatalf("commit %v: %v", ops, err)
	}
	return done
}

func (e *env) put(t *testing.T, n registry.Node, ttl time.Duration) {
	t.Helper()
	if err := e.One.Put(e.ctx, n, ttl); err != nil {
		t.Fatalf("put %s: %v", n.Ref(), err)
	}
}

func (e *env) nodes(t *testing.T) []registry.Node {
	t.Helper()
	page, err := e.Two.ListNodes(e.ctx, "", "", 0)
	if err != nil {
		t.Fatalf("list nodes: %v", err)
	}
	return page.Nodes
}

func (e *env) get(t *testing.T, ref registry.Ref) registry.Object {
	t.Helper()
	o, err := e.Two.Get(e.ctx, ref)
	if err != nil {
		t.Fatalf("get %s: %v", ref, err)
	}
	return o
}

func (e *env) list(t *testing.T, kind registry.Kind) []registry.Object {
	t.Helper()
	page, err := e.Two.List(e.ctx, kind, "", 0)
	if err != nil {
		t.Fatalf("list %s: %v", kind, err)
	}
	return page.Objects
}

// eventually polls until ok, for what is not announced by a Watch.
func (e *env) eventually(t *testing.T, limit time.Duration, what string, ok func() bool) {
	t.Helper()
	deadline := time.After(limit)
	for !ok() {
		select {
		case <-deadline:
			t.Fatalf("not within %s: %s", limit, what)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

func site(name string) registry.Ref { return registry.Ref{Kind: registry.KindSite, Name: name} }

func upstream(name string) registry.Ref { return registry.Ref{Kind: registry.KindUpstream, Name: name} }

func secret(name string) registry.Ref { return registry.Ref{Kind: registry.KindSecret, Name: name} }

func write(ref registry.Ref, format string, args ...any) registry.Op {
	return registry.Op{Ref: ref, Value: json.RawMessage(fmt.Sprintf(format, args...))}
}

func erase(ref registry.Ref) registry.Op { return registry.Op{Ref: ref} }

func ifSeq(op registry.Op, seq registry.Seq) registry.Op {
	op.IfSeq = &seq
	return op
}

func node(service, id string) registry.Node {
	return registry.Node{Service: service, ID: id, Address: "127.0.0.1", Port: 6001}
}

// calm is how long nothing must come for a test to believe that nothing will.
const calm = 500 * time.Millisecond

// long is a ttl that does not end during a test.
const long = 2 * time.Minute
