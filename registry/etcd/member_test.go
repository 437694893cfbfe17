package etcd

import (
	"fmt"
	"testing"
	"time"

	"sluice/registry"
)

// TestLeavesAMemberThatDoesNotAnswer: whether it hangs or is gone, another one takes over, with the watch as well.
func TestLeavesAMemberThatDoesNotAnswer(t *testing.T) {
	t.Parallel()
	for what, fault := range map[string]func(p *proxy, on bool){
		"it hangs": func(p *proxy, on bool) { p.freeze(on) },
		"it is gone": func(p *proxy, on bool) {
			if p.cut(); !on {
				p.open()
			}
		},
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			direct := open(t, shared.ClientURL(), newFleet(), impatient)
			one, two := newProxy(t, shared.ClientURL()), newProxy(t, shared.ClientURL())
			r, err := newRegistry(t.Context(), Config{
				Endpoints: []string{one.url(), two.url()}, Fleet: direct.cfg.Fleet, Logger: quietLog(t),
			}, impatient)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = r.Close() })
			w := watch(t, r, nil)
			w.until("the first", hasSeq(0))
			for i, p := range []*proxy{one, two, one} {
				fault(p, true)
				began := time.Now()
				putNode(t, r, fmt.Sprintf("n%d", i))
				t.Logf("a node was put after %s", time.Since(began).Round(time.Millisecond))
				seq := commit(t, direct, fmt.Sprintf("u%d", i), `{}`)
				w.until("a change", hasSeq(seq))
				eventually(t, "Health is up", func() bool { return r.Health().Connected })
				fault(p, false)
			}
			// All of them: what is known stands.
			fault(one, true)
			fault(two, true)
			eventually(t, "Health is down", func() bool { return !r.Health().Connected })
			seq := commit(t, direct, "last", `{}`)
			fault(two, false)
			w.until("the last change", hasSeq(seq))
			eventually(t, "Health is up", func() bool { return r.Health().Connected })
			if done, err := r.Commit(t.Context(), registry.Tx{Ops: nil}); err != nil || done.Seq != seq {
				t.Errorf("an empty commit: %+v, %v", done, err)
			}
			fault(one, false)
		})
	}
}
