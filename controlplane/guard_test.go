package controlplane

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"sluice/controlplane/health"
	"sluice/controlplane/spec"
	"sluice/registry"
)

// The verdicts of the tests.
var (
	answers  = health.Verdict{State: health.Healthy}
	proves   = health.Verdict{State: health.Healthy, Proven: true}
	refuses  = health.Verdict{State: health.Healthy, Refused: true} // its last check, that is
	hangs    = health.Verdict{State: health.Unhealthy, Reason: "no answer in time"}
	dead     = health.Verdict{State: health.Unhealthy, Refused: true}
	stranger = health.Verdict{State: health.Healthy, Stranger: true}
)

// stage plays an upstream of nodes n00, n01, … through the guard, in a time of its own.
type stage struct {
	t        *testing.T
	world    *world
	verdicts map[string]health.Verdict
	wards    Wards
	emptied  time.Time
	upstream string // its spec
	now      time.Time
	last     Ruling
}

func newStage(t *testing.T, nodes int) *stage {
	s := &stage{t: t, world: newWorld(), verdicts: map[string]health.Verdict{}, upstream: `{}`, now: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)}
	for i := range nodes {
		s.join(fmt.Sprintf("n%02d", i))
	}
	return s
}

func (s *stage) node(id string) registry.Node {
	var n int
	if _, err := fmt.Sscanf(id, "n%d", &n); err != nil {
		s.t.Fatal(err)
	}
	return registry.Node{Service: "io", ID: id, Address: fmt.Sprintf("10.0.0.%d", n+1), Port: 6001, Incarnation: "a"}
}

func (s *stage) join(ids ...string) {
	for _, id := range ids {
		s.put(s.node(id))
	}
}

func (s *stage) put(n registry.Node) {
	nodes := slices.DeleteFunc(slices.Clone(s.world.snapshot.Nodes), func(o registry.Node) bool { return o.ID == n.ID && o.Service == n.Service })
	nodes = append(nodes, n)
	slices.SortFunc(nodes, func(a, b registry.Node) int { return strings.Compare(a.Service+" "+a.ID, b.Service+" "+b.ID) })
	s.world.snapshot.Nodes = nodes
}

// expire lets registrations run out.
func (s *stage) expire(ids ...string) {
	s.world.snapshot.Nodes = slices.DeleteFunc(slices.Clone(s.world.snapshot.Nodes), func(n registry.Node) bool { return slices.Contains(ids, n.ID) })
}

func (s *stage) verdict(v health.Verdict, ids ...string) {
	for _, id := range ids {
		s.verdicts[id] = v
	}
}

// after judges when some time has passed, and at every moment in between at which the guard wants to.
func (s *stage) after(d time.Duration) Ruling {
	s.t.Helper()
	end := s.now.Add(d)
	for {
		u := readSpec(s.t, s.upstream)
		e := Evidence{Emptied: s.emptied, Verdict: func(k health.Key) (health.Verdict, bool) { v, ok := s.verdicts[k.ID]; return v, ok }}
		j := Judge(s.wards, s.world.snapshot, map[string]spec.Upstream{"io": u}, e, s.now)
		s.wards, s.last = j.Wards, j.Rulings["io"]
		if !j.Next.IsZero() && !j.Next.After(s.now) {
			s.t.Fatalf("the guard wants to be asked again at %s, which is past", j.Next)
		}
		if s.now.Equal(end) {
			return s.last
		}
		if s.now = end; !j.Next.IsZero() && j.Next.Before(end) {
			s.now = j.Next
		}
	}
}

func readSpec(t *testing.T, text string) spec.Upstream {
	t.Helper()
	u, faults := read[spec.Upstream](registry.Object{Value: []byte(text)})
	if len(faults) > 0 {
		t.Fatal(faults)
	}
	return u.WithDefaults("io")
}

// serving are the ids in the rotation.
func (s *stage) serving() []string {
	var ids []string
	for _, n := range s.last.Nodes {
		if !s.last.Down[n.ID] {
			ids = append(ids, n.ID)
		}
	}
	return ids
}

func (s *stage) want(n int) {
	s.t.Helper()
	if got := s.serving(); len(got) != n {
		s.t.Errorf("%d nodes serve, want %d: %v; %+v", len(got), n, got, s.last.Exceptions)
	}
}

// wantHeld also wants an alarm while nodes are held, and none else.
func (s *stage) wantHeld(n int) {
	s.t.Helper()
	if s.last.Held != n || (n > 0) != strings.Contains(s.last.Alarm, "held") {
		s.t.Errorf("%d are held, want %d; alarm %q", s.last.Held, n, s.last.Alarm)
	}
}

func ids(n int) []string {
	var out []string
	for i := range n {
		out = append(out, fmt.Sprintf("n%02d", i))
	}
	return out
}

func TestGuard(t *testing.T) {
	t.Parallel()
	tests := map[string]func(s *stage){
		"a node that is lost goes after the gathering": func(s *stage) {
			s.expire("n03")
			s.after(gather - time.Second)
			s.want(10)
			s.after(time.Second)
			s.want(9)
			s.wantHeld(0)
		},
		"at once when nobody listens": func(s *stage) {
			s.expire("n03")
			s.verdict(refuses, "n03")
			s.after(0)
			s.want(9)
		},
		"at once when it was meant": func(s *stage) {
			s.expire(ids(9)...)
			for _, id := range ids(9) {
				s.world.snapshot.Tombstones = append(s.world.snapshot.Tombstones, registry.Tombstone{NodeRef: s.node(id).Ref(), At: s.now})
			}
			s.after(0)
			s.want(1)
			s.expire("n09") // the last one is not lost on purpose
			s.after(time.Hour)
			s.want(1)
		},
		"a tombstone of an earlier life": func(s *stage) {
			s.world.snapshot.Tombstones = []registry.Tombstone{{NodeRef: registry.NodeRef{Service: "io", ID: "n03", Incarnation: "before"}}}
			s.expire("n03")
			s.after(0)
			s.want(10)
		},
		"all registrations run out, and the nodes answer": func(s *stage) {
			s.verdict(answers, ids(10)...)
			s.expire(ids(10)...)
			s.after(tcpProof - time.Second)
			s.want(10)
			s.wantHeld(10)
			s.join(ids(10)...)
			s.after(0)
			s.want(10)
			s.wantHeld(0)
		},
		"an open port proves little for long": func(s *stage) {
			s.verdict(answers, ids(10)...)
			s.verdict(proves, "n05")
			s.expire(ids(10)...)
			s.after(2 * tcpProof)
			s.want(1)
			if got := s.serving(); got[0] != "n05" {
				s.t.Errorf("%v serves, want the one that proved itself", got)
			}
		},
		"who proves himself stays for as long": func(s *stage) {
			s.verdict(proves, ids(10)...)
			s.expire(ids(10)...)
			s.after(24 * time.Hour)
			s.want(10)
			s.wantHeld(10)
		},
		"one check that fails undoes no proof": func(s *stage) {
			s.verdict(proves, ids(10)...)
			s.expire(ids(10)...)
			s.after(gather)
			s.now = s.now.Add(time.Hour) // nobody judges while all stays as it is
			s.verdict(answers, "n02")
			s.after(30 * time.Second)
			s.want(10)
			s.verdict(proves, "n02")
			s.after(tcpProof)
			s.want(10)
			s.verdict(answers, "n02")
			s.after(tcpProof - time.Second)
			s.want(10)
			s.after(time.Second)
			s.want(9)
		},
		"the empty registry ends the limit": func(s *stage) {
			s.verdict(answers, ids(10)...)
			s.emptied = s.now
			s.expire(ids(2)...)
			s.after(time.Hour)
			s.want(10)
			s.wantHeld(2)
			s.verdict(refuses, "n00")
			s.after(0)
			s.want(9)
		},
		"all are dead": func(s *stage) {
			s.expire(ids(10)...)
			s.after(time.Second)
			s.want(10)
			s.verdict(refuses, ids(10)...)
			s.after(0)
			s.want(0)
		},
		"those that do not answer at all go, but the last": func(s *stage) {
			s.verdict(proves, ids(10)...)
			s.expire(ids(4)...)
			s.after(gather)
			s.wantHeld(4)
			s.verdict(hangs, ids(4)...)
			s.after(0)
			s.want(6)
		},
		"a stranger": func(s *stage) {
			s.verdict(proves, ids(10)...)
			s.expire(ids(4)...)
			s.after(gather)
			s.verdict(stranger, "n02")
			s.after(0)
			s.want(9)
		},
		"strangers all of them": func(s *stage) {
			s.expire(ids(10)...)
			s.verdict(stranger, ids(10)...)
			s.after(gather)
			s.want(10)
			if !strings.Contains(s.last.Alarm, "identity") {
				s.t.Errorf("alarm %q", s.last.Alarm)
			}
		},
		"another service has the address": func(s *stage) {
			n := s.node("n02")
			n.Service, n.ID = "web", "w"
			s.put(n)
			s.expire(ids(4)...)
			s.after(0)
			s.want(9)
		},
		"started anew under another id": func(s *stage) {
			for _, id := range ids(10) {
				n := s.node(id)
				n.ID += "-new"
				s.put(n)
			}
			s.expire(ids(10)...)
			s.after(0)
			s.want(10)
			s.wantHeld(0)
		},
		"a hung node": func(s *stage) {
			s.verdict(hangs, "n01")
			s.after(gather)
			s.want(9)
			s.verdict(answers, "n01")
			s.after(0)
			s.want(10)
		},
		"dead, and registered still": func(s *stage) {
			s.verdict(dead, ids(10)...)
			s.after(0)
			s.want(0)
		},
		"a third is unhealthy": func(s *stage) {
			s.verdict(hangs, ids(4)...)
			s.after(time.Hour)
			s.want(10)
			s.wantHeld(4)
			s.verdict(dead, "n01")
			s.after(0)
			s.want(9)
		},
		"all turn red, some before the others": func(s *stage) {
			s.verdict(hangs, ids(2)...)
			s.after(gather)
			s.want(8)
			s.verdict(hangs, ids(9)...)
			s.verdict(dead, "n09")
			s.after(0)
			s.want(9)
			if !strings.Contains(s.last.Alarm, "ignored") || s.last.Exceptions[0].State != NodeIgnored {
				s.t.Errorf("alarm %q, %+v", s.last.Alarm, s.last.Exceptions)
			}
			s.verdict(answers, ids(10)...)
			s.after(0)
			s.want(10)
			if s.last.Alarm != "" || len(s.last.Exceptions) > 0 {
				s.t.Errorf("alarm %q, %+v", s.last.Alarm, s.last.Exceptions)
			}
		},
		"unhealthy, then expired: counted once": func(s *stage) {
			s.verdict(hangs, ids(3)...)
			s.after(gather)
			s.want(7)
			s.expire(ids(3)...)
			s.after(0)
			s.want(7)
			if n := len(s.wards["io"].Gone); n != 3 {
				s.t.Errorf("%d count as gone, want 3", n)
			}
		},
		"a slow bleed": func(s *stage) {
			s.verdict(proves, ids(10)...)
			for _, id := range ids(10) {
				s.expire(id)
				s.after(20 * time.Second)
			}
			s.want(7)
			s.wantHeld(7)
			s.after(time.Hour) // the hold does not end with the window
			s.want(7)
		},
		"who comes back does not count": func(s *stage) {
			for range 20 {
				s.expire("n04")
				s.after(2 * gather)
				s.want(9)
				s.join("n04")
				s.after(gather)
				s.want(10)
			}
			s.wantHeld(0)
		},
		"scaled down on purpose, the window follows": func(s *stage) {
			s.verdict(proves, ids(10)...)
			s.expire(ids(6)...)
			for _, id := range ids(6) {
				s.world.snapshot.Tombstones = append(s.world.snapshot.Tombstones, registry.Tombstone{NodeRef: s.node(id).Ref(), At: s.now})
			}
			s.after(time.Second)
			s.expire("n06", "n07")
			s.after(time.Minute)
			s.want(4)
			s.wantHeld(2)
		},
		"draining nodes are none of its business": func(s *stage) {
			for _, id := range ids(9) {
				s.world.put(registry.KindOverride, "io/"+id, `{"state":"draining"}`)
			}
			s.verdict(hangs, ids(9)...)
			s.after(time.Minute)
			s.expire(ids(9)...)
			s.after(0)
			s.want(1)
			s.wantHeld(0)
		},
		"approved": func(s *stage) {
			s.verdict(proves, ids(10)...)
			s.expire(ids(5)...)
			s.after(time.Minute)
			s.want(10)
			s.world.put(registry.KindApproval, "io", `{"note":"moved"}`)
			s.after(0)
			s.want(5)
			s.expire("n05", "n06", "n07") // one approval, one hold
			s.after(time.Hour)
			s.want(5)
			s.wantHeld(3)
		},
		"approved for a while": func(s *stage) {
			s.verdict(proves, ids(10)...)
			s.world.put(registry.KindApproval, "io", fmt.Sprintf(`{"until":%q}`, s.now.Add(time.Minute).Format(time.RFC3339)))
			s.after(30 * time.Second)
			s.expire(ids(5)...)
			s.after(0)
			s.want(5)
			s.after(40 * time.Second)
			s.expire(ids(8)...)
			s.after(time.Minute)
			s.want(5)
		},
		"switched off": func(s *stage) {
			s.upstream = `{"guard":{"enabled":false}}`
			s.expire(ids(10)...)
			s.after(0)
			s.want(0)
		},
		"another share and window": func(s *stage) {
			s.upstream = `{"guard":{"share":50,"window":"1m"}}`
			s.expire(ids(5)...)
			s.after(gather)
			s.want(5)
			s.after(time.Minute)
			s.expire(ids(7)...)
			s.after(gather)
			s.want(3)
		},
		"ops choose another service": func(s *stage) {
			s.upstream = `{"service":"web"}`
			s.after(0)
			s.want(0)
			s.wantHeld(0)
		},
		"a node that is chosen no more": func(s *stage) {
			s.upstream = `{"tags":["blue"]}`
			s.after(0)
			s.want(0)
			s.wantHeld(0)
		},
	}
	for name, play := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newStage(t, 10)
			s.after(0)
			s.want(10)
			play(s)
		})
	}
}

// Whatever happens to nodes that answer and prove themselves: no window loses more than its share, and the last one stays.
func TestGuardKeepsItsPromise(t *testing.T) {
	t.Parallel()
	for seed := range uint64(60) {
		random := rand.New(rand.NewPCG(seed, 1))
		n := 1 + random.IntN(40)
		s := newStage(t, n)
		s.verdict(proves, ids(n)...)
		s.after(0)
		type lost struct {
			at time.Time
			id string
		}
		var gone []lost
		before := s.serving()
		for range 200 {
			id := ids(n)[random.IntN(n)]
			switch random.IntN(6) {
			case 0, 1, 2:
				s.expire(id)
			case 3:
				s.join(id)
			case 4:
				s.verdict(hangs, id)
			case 5:
				s.verdict(proves, id)
			}
			s.after(time.Duration(random.IntN(60)) * time.Second)
			now := s.serving()
			for _, id := range before {
				// Beyond the budget, an unregistered node that does not answer may go.
				if !slices.Contains(now, id) && s.verdicts[id] != hangs {
					gone = append(gone, lost{s.now, id})
				}
			}
			gone = slices.DeleteFunc(gone, func(l lost) bool { return s.now.Sub(l.at) >= 10*time.Minute || slices.Contains(now, l.id) })
			if limit := max(1, n*30/100); len(gone) > limit {
				t.Fatalf("seed %d: %d of %d nodes went within 10 minutes, %d may: %v", seed, len(gone), n, limit, gone)
			}
			if len(now) == 0 {
				t.Fatalf("seed %d: none of %d nodes is left", seed, n)
			}
			before = now
		}
	}
}

// A Ward is not changed by the judgements that follow.
func TestGuardIsPure(t *testing.T) {
	t.Parallel()
	s := newStage(t, 10)
	s.after(0)
	s.expire(ids(2)...)
	s.after(time.Second)
	w := s.wards
	before := fmt.Sprintf("%+v", w)
	s.expire(ids(9)...)
	s.verdict(hangs, "n09")
	s.after(time.Hour)
	if after := fmt.Sprintf("%+v", w); after != before {
		t.Errorf("before:\n%s\nafter:\n%s", before, after)
	}
}

func BenchmarkJudge(b *testing.B) {
	w := newWorld()
	for u := range 10 {
		for i := range 1000 {
			w.snapshot.Nodes = append(w.snapshot.Nodes, registry.Node{
				Service: fmt.Sprintf("s%02d", u), ID: fmt.Sprintf("n%04d", i), Address: fmt.Sprintf("10.%d.%d.%d", u, i/250, i%250+1), Port: 6001,
			})
		}
	}
	upstreams := map[string]spec.Upstream{}
	for u := range 10 {
		name := fmt.Sprintf("s%02d", u)
		upstreams[name] = spec.Upstream{}.WithDefaults(name)
	}
	e := Evidence{Verdict: func(health.Key) (health.Verdict, bool) { return answers, true }}
	var wards Wards
	b.ReportAllocs()
	for b.Loop() {
		j := Judge(wards, w.snapshot, upstreams, e, time.Unix(1e9, 0))
		wards = j.Wards
	}
}

// Twenty nodes are lost one by one, each long after the gathering of the one before: the window counts them all.
func TestGuardCountsASlowBleed(t *testing.T) {
	t.Parallel()
	const nodes = 20
	s := newStage(t, nodes)
	s.verdict(proves, ids(nodes)...)
	s.after(0)
	for i, id := range ids(nodes) {
		s.expire(id)
		s.after(25 * time.Second)
		s.want(max(nodes-i-1, nodes*7/10))
	}
	s.wantHeld(nodes * 7 / 10)
	s.after(24 * time.Hour)
	s.want(nodes * 7 / 10)
}
