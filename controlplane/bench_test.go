package controlplane_test

import (
	"fmt"
	"testing"

	"sluice/controlplane"
	"sluice/registry"
	"sluice/templates"
)

// BenchmarkCompile compiles and renders 10,000 nodes in 1,000 upstreams, of which one node changed.
func BenchmarkCompile(b *testing.B) {
	var s registry.Snapshot
	routes := ""
	for u := range 1000 {
		name := fmt.Sprintf("s%03d", u)
		s.Objects = append(s.Objects, registry.Object{Kind: registry.KindUpstream, Name: name, Seq: 1, Value: []byte(`{"balance":{"method":"round_robin"}}`)})
		routes += fmt.Sprintf(`,{"path":"/%s/","kind":"websocket","upstream":%q}`, name, name)
		for n := range 10 {
			s.Nodes = append(s.Nodes, registry.Node{Service: name, ID: fmt.Sprintf("n%d", n), Address: fmt.Sprintf("10.%d.%d.%d", u/250, u%250, n), Port: 6001})
		}
	}
	s.Objects = append(s.Objects, registry.Object{Kind: registry.KindSite, Name: "churn", Seq: 1,
		Value: []byte(`{"hosts":["*"],"listeners":[{"port":8080}],"routes":[` + routes[1:] + `]}`)})
	set, err := templates.New("")
	if err != nil {
		b.Fatal(err)
	}
	facts := controlplane.Facts{Group: "default", Rendering: controlplane.Rendering{
		AccessLog: "logs/access.log", Capabilities: templates.Capabilities{Realip: true, SSL: true},
	}}
	b.Run("compile", func(b *testing.B) {
		b.ReportAllocs()
		for i := 0; b.Loop(); i++ {
			s.Nodes[0].Weight = 1 + i%100
			if c := controlplane.Compile(s, controlplane.Good{}, facts); c.Nodes != 10_000 {
				b.Fatal(c.Problems)
			}
		}
	})
	b.Run("render", func(b *testing.B) {
		b.ReportAllocs()
		for i := 0; b.Loop(); i++ {
			b.StopTimer()
			s.Nodes[0].Weight = 1 + i%100
			c := controlplane.Compile(s, controlplane.Good{}, facts)
			b.StartTimer()
			if _, err := set.Render(c.Config); err != nil {
				b.Fatal(err)
			}
		}
	})
}

// BenchmarkCompileElsewhere compiles 10,000 sites of another group, of which one changed: read anew, and with what was read before.
func BenchmarkCompileElsewhere(b *testing.B) {
	var s registry.Snapshot
	site := func(i, host int) registry.Object {
		value := fmt.Appendf(nil, `{"groups":["other"],"hosts":["h%d.example.com"],"listeners":[{"port":8080}],"routes":[{"path":"/socket.io/","kind":"socketio","upstream":"io"}]}`, host)
		return registry.Object{Kind: registry.KindSite, Name: fmt.Sprintf("s%05d", i), Seq: 1, Value: value}
	}
	for i := range 10_000 {
		s.Objects = append(s.Objects, site(i, i))
	}
	for name, readings := range map[string]*controlplane.Readings{"anew": nil, "again": controlplane.NewReadings()} {
		b.Run(name, func(b *testing.B) {
			for i := 0; b.Loop(); i++ {
				s.Objects[7] = site(7, 20_000+i)
				if c := controlplane.Compile(s, controlplane.Good{}, controlplane.Facts{Group: "default", Readings: readings}); len(c.Problems) > 0 {
					b.Fatal(c.Problems)
				}
			}
		})
	}
}
