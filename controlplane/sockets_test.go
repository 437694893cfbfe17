package controlplane

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestSockets(t *testing.T) {
	t.Parallel()
	members := []Member{
		{Upstream: "chat", Node: "io/n1", Address: "10.0.0.1:80"},
		{Upstream: "chat", Node: "io/n2", Address: "unix:/n2.sock"},
		{Upstream: "io", Node: "io/n1", Address: "10.0.0.1:80"},
		{Upstream: "io", Node: "io/n3", Address: "10.0.0.3:80"},
	}
	servers := map[string]Connected{"10.0.0.1:80": {All: 5, Old: 2}, "unix:/n2.sock": {All: 1, Old: 1}, "10.9.9.9:80": {All: 7, Old: 7}}
	s := Status{Upstreams: []UpstreamStatus{{Name: "chat"}, {Name: "io"}}, Nginx: Live{Connections: Connections{Servers: servers}}}
	loops := s.Upstreams
	s.count(members)
	want := Sockets{Total: 6, Old: 3, Nodes: map[string]int{"io/n1": 5, "io/n2": 1}}
	if diff := cmp.Diff(&want, s.Sockets); diff != "" {
		t.Error(diff)
	}
	if s.Upstreams[0].Sockets != 6 || s.Upstreams[1].Sockets != 5 || loops[0].Sockets != 0 {
		t.Errorf("upstreams %+v, the loop's %+v", s.Upstreams, loops)
	}
	for node, want := range map[string]int{"io/n1": 5, "io/n3": 0} {
		if n, ok := s.Sockets.Of(node); n != want || !ok {
			t.Errorf("%s has %d, %v", node, n, ok)
		}
	}
	s.Nginx.Connections.NoUnix = "no module"
	s.count(members)
	if _, ok := s.Sockets.Of("io/n3"); ok || s.Sockets.Uncounted != "no module" {
		t.Errorf("what is not counted: %+v", s.Sockets)
	}
	if s.count(members[2:]); s.Sockets.Uncounted != "" {
		t.Errorf("nobody has a unix socket: %+v", s.Sockets)
	}
	if _, ok := (*Sockets)(nil).Of("io/n1"); ok {
		t.Error("a gateway of an older version does not tell")
	}
}

func TestSocketsOfManyNodes(t *testing.T) {
	t.Parallel()
	var members []Member
	c := Connections{Servers: map[string]Connected{}}
	for i := range MaxCounted + 100 {
		m := Member{Node: fmt.Sprintf("io/n%03d", i), Address: fmt.Sprintf("10.0.0.1:%d", i)}
		members, c.Servers[m.Address] = append(members, m), Connected{All: i}
	}
	s := c.sockets(members)
	total := (MaxCounted + 100) * (MaxCounted + 99) / 2
	if s.Total != total || len(s.Nodes) != MaxCounted || s.MoreNodes != 99 { // one has none
		t.Errorf("%d in all, want %d; %d nodes and %d more", s.Total, total, len(s.Nodes), s.MoreNodes)
	}
	if _, ok := s.Of("io/n050"); ok || s.Nodes["io/n100"] != 100 {
		t.Errorf("the quietest are left out: %v", s.Nodes)
	}
}

// Sockets come and go all the time: they are told when asked for, and reported with the next report, not with one of their own.
func TestSocketsMakeNoReport(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, "")
		defer r.stop()
		r.send(newWorld().nodes(2).snapshot)
		time.Sleep(reportMin + time.Second)
		synctest.Wait()
		before := len(r.registry.reported())
		for i := range 50 {
			r.applier.set(func(a *fakeApplier) { a.open.Servers = map[string]Connected{"10.0.0.1:6001": {All: i}} })
			time.Sleep(100 * time.Millisecond)
			if n, ok := r.Status(t.Context()).Sockets.Of("io/n000"); n != i || !ok {
				t.Fatalf("it has %d sockets, want %d", n, i)
			}
		}
		if reports := r.registry.reported(); len(reports) != before {
			t.Errorf("%d reports in 5 s for nothing but sockets", len(reports)-before)
		}
		time.Sleep(reportEvery)
		reports := r.registry.reported()
		if last := reports[len(reports)-1]; len(reports) != before+1 || last.Sockets.Total != 49 || last.Upstreams[0].Sockets != 49 {
			t.Errorf("%d reports, the last with %+v", len(reports)-before, last.Sockets)
		}
	})
}
