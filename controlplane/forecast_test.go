package controlplane

import (
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"sluice/controlplane/health"
	"sluice/registry"
)

func TestForecast(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, "")
		defer r.stop()
		change := func(kind registry.Kind, name, value string) map[registry.Ref]*registry.Object {
			ref := registry.Ref{Kind: kind, Name: name}
			if value == "" {
				return map[registry.Ref]*registry.Object{ref: nil}
			}
			return map[registry.Ref]*registry.Object{ref: {Kind: kind, Name: name, Value: []byte(value)}}
		}
		if _, err := r.Forecast(nil, nil); !errors.Is(err, errNoTrial) {
			t.Errorf("before there is anything: %v", err)
		}
		// Three nodes of two upstreams; each group serves one of these.
		r.send(newWorld().nodes(3).
			put(registry.KindUpstream, "internal", `{"service": "io", "balance": {"method": "least_conn"}}`).
			put(registry.KindSite, "inside", `{"groups": ["internal"], "hosts": ["*"], "listeners": [{"port": 8081}], "routes": [{"upstream": "internal"}]}`).
			snapshot)
		time.Sleep(time.Second)
		r.applier.set(func(a *fakeApplier) {
			a.open.Servers = map[string]Connected{"10.0.0.1:6001": {All: 5, Old: 2}, "10.0.0.2:6001": {All: 7}, "10.0.0.3:6001": {All: 1, Old: 1}}
		})
		own := r.Status(t.Context())
		like := func(gateway, group string, more ...func(*Status)) Status {
			s := own
			s.Gateway, s.Group = gateway, group
			s.Rendering = &Rendering{Templates: own.Rendering.Templates, Capabilities: own.Rendering.Capabilities, AccessLog: own.Rendering.AccessLog}
			for _, m := range more {
				m(&s)
			}
			return s
		}
		fleet := []Status{
			own,
			like("edge-2", "default", func(s *Status) { s.Sockets = &Sockets{Total: 9, Nodes: map[string]int{"io/n000": 9}} }),
			like("edge-3", "internal", func(s *Status) {
				s.Sockets = &Sockets{Total: 20, Old: 5, Nodes: map[string]int{"io/n001": 20}, MoreNodes: 1}
			}),
			like("edge-4", "default", func(s *Status) { s.Version, s.Sockets = "other", nil }),
			like("edge-5", "default", func(s *Status) { s.Rendering = nil }),
		}
		const doubt = "it runs sluice other with templates ; this is told from sluice test with templates "
		unknown := Forecast{Gateway: "edge-5", Group: "default", Doubt: "it runs sluice test and does not tell how it renders"}
		nothing := func(f Forecast) Forecast {
			f.How, f.Sockets = Nothing, &Touched{}
			return f
		}
		newSite := func(f Forecast) Forecast {
			f.How, f.Objects, f.Listeners = Reload, []string{"site/two"}, []string{"*:8090"}
			return f
		}
		with := func(f Forecast, sockets *Touched, doubt string) Forecast {
			f.Sockets, f.Doubt = sockets, doubt
			return f
		}
		one, two, three, four := Forecast{Gateway: "edge-1", Group: "default"}, Forecast{Gateway: "edge-2", Group: "default"},
			Forecast{Gateway: "edge-3", Group: "internal"}, Forecast{Gateway: "edge-4", Group: "default"}
		leaves := func(f Forecast, upstream string) Forecast {
			f.How, f.Leave, f.Objects = Reload, 1, []string{upstream}
			return f
		}
		for name, c := range map[string]struct {
			change map[registry.Ref]*registry.Object
			want   []Forecast
		}{
			"nothing": {nil, []Forecast{nothing(one), nothing(two), nothing(three), with(nothing(four), nil, doubt), unknown}},
			"a site of one group": {
				change(registry.KindSite, "two", strings.Replace(siteWithHost("good.example"), "8080", "8090", 1)),
				[]Forecast{
					with(newSite(one), &Touched{Retiring: 10}, ""), with(newSite(two), &Touched{Retiring: 9}, ""), nothing(three),
					with(newSite(four), nil, doubt), unknown,
				},
			},
			"a node of both groups is disabled": {
				change(registry.KindOverride, "io/n000", `{"state": "disabled"}`),
				[]Forecast{
					with(leaves(one, "upstream/io"), &Touched{Leaving: 5, Retiring: 10}, ""), with(leaves(two, "upstream/io"), &Touched{Leaving: 9, Retiring: 9}, ""),
					with(leaves(three, "upstream/internal"), &Touched{Retiring: 15, AtLeast: true}, ""),
					with(leaves(four, "upstream/io"), nil, doubt), unknown,
				},
			},
			"the other group's site goes": {
				change(registry.KindSite, "inside", ""),
				[]Forecast{
					nothing(one), nothing(two),
					{Gateway: "edge-3", Group: "internal", How: Reload, Leave: 3, Objects: []string{"site/inside", "upstream/internal"}, Listeners: []string{"*:8081"},
						Sockets: &Touched{Leaving: 20, Retiring: 15, AtLeast: true}},
					with(nothing(four), nil, doubt), unknown,
				},
			},
		} {
			got, err := r.Forecast(c.change, fleet)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Errorf("%s (- want, + got):\n%s", name, diff)
			}
		}
		if attempts := r.attempts(); len(attempts) != 1 || r.applier.tried != 0 {
			t.Errorf("a forecast applies and tests nothing: %v, %d", attempts, r.applier.tried)
		}
		// What is not served anyway goes without a reload.
		r.checker.find(health.Verdict{State: health.Unhealthy, Refused: true}, "n000")
		settle(time.Minute)
		got, err := r.Forecast(change(registry.KindOverride, "io/n000", `{"state": "disabled"}`), fleet[:1])
		if want := nothing(one); err != nil || !cmp.Equal(got, []Forecast{want}) {
			t.Errorf("a node that is out already: %+v, %v", got, err)
		}
		// A bad site is no reason for another to change, and says so.
		got, err = r.Forecast(change(registry.KindSite, "two", `{"hosts": [], "listeners": []}`), fleet[:1])
		if err != nil || got[0].How != Nothing || !strings.Contains(got[0].Doubt, "site/two") {
			t.Errorf("a bad site: %+v, %v", got, err)
		}
	})
}
