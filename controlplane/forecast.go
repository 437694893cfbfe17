package controlplane

import (
	"cmp"
	"fmt"
	"reflect"
	"slices"
	"strings"

	"sluice/registry"
	"sluice/templates"
)

// Forecast is what a change would do at one gateway.
type Forecast struct {
	Gateway string   `json:"gateway"`
	Group   string   `json:"group"`
	How     How      `json:"how,omitempty"`     // Nothing, or Reload; empty when it can't be told
	Tested  bool     `json:"tested"`            // by the gateway's own nginx: that of the instance which is asked alone
	Doubt   string   `json:"doubt,omitempty"`   // why it may go otherwise there, or why it can't be told
	Join    int      `json:"join,omitempty"`    // nodes that begin to take connections, in some upstream
	Leave   int      `json:"leave,omitempty"`   // nodes that cease to
	Objects []string `json:"objects,omitempty"` // sites and upstreams that would be written otherwise; sorted
	// Listeners are the addresses that nginx would begin or cease to listen on, or would in another way; sorted.
	Listeners []string `json:"listeners,omitempty"`
	Sockets   *Touched `json:"sockets,omitempty"` // nil when the gateway does not tell its sockets
}

// Touched is the live sockets that a change touches. It ends none of them. One may be in both numbers.
type Touched struct {
	// Leaving are those to nodes that would take no more connections: the node leaves an upstream, or is drained or disabled. A node
	// of two upstreams that leaves one of them is among them with all that it has.
	Leaving int `json:"leaving"`
	// Retiring are all of the current generation, when the change needs a reload: they go on in the workers that it makes old, for as
	// long as those may live.
	Retiring int `json:"retiring"`
	// AtLeast says that there may be more, since not all could be counted.
	AtLeast bool `json:"atLeast,omitempty"`
}

// outlook is what a change would do at all gateways that write down the same in the same way.
type outlook struct {
	Forecast
	leaving []string // nodes that cease to take connections, in some upstream
}

// Forecast tells what changes of objects (nil deletes) would do at each gateway of a fleet, of which there are the reports. It is told
// from this gateway's templates, its judgement of the nodes, and its certificate files; nothing is tested.
func (c *Controller) Forecast(changes map[registry.Ref]*registry.Object, fleet []Status) ([]Forecast, error) {
	g := c.ground.Load()
	if g == nil || g.stale {
		return nil, errNoTrial
	}
	next := withChanges(g.snapshot, changes)
	facts := g.facts
	facts.Files = ReadFiles(CertificateFiles(next, g.good))
	type way struct {
		Rendering
		group string
	}
	known := map[way]outlook{}
	forecasts := make([]Forecast, len(fleet))
	for i, s := range fleet {
		if s.Rendering == nil {
			forecasts[i] = Forecast{Gateway: s.Gateway, Group: s.Group, Doubt: fmt.Sprintf("it runs sluice %s and does not tell how it renders", s.Version)}
			continue
		}
		w := way{*s.Rendering, s.Group}
		o, ok := known[w]
		if !ok {
			facts.Rendering, facts.Group = w.Rendering, w.group
			o = c.outlook(Compile(g.snapshot, g.good, facts), Compile(next, g.good, facts), changes)
			known[w] = o
		}
		f := o.Forecast
		f.Gateway, f.Group, f.Sockets = s.Gateway, s.Group, o.touched(s.Sockets)
		if s.Version != c.Version || s.Rendering.Templates != g.facts.Templates {
			if f.Doubt != "" {
				f.Doubt += "; "
			}
			f.Doubt += fmt.Sprintf("it runs sluice %s with templates %s; this is told from sluice %s with templates %s",
				s.Version, s.Rendering.Templates, c.Version, g.facts.Templates)
		}
		forecasts[i] = f
	}
	return forecasts, nil
}

func (c *Controller) outlook(was, is Compiled, changes map[registry.Ref]*registry.Object) outlook {
	nodes := compare(was.Config, is.Config)
	o := outlook{Forecast: Forecast{Join: nodes.join, Leave: nodes.leave}, leaving: leaving(was.Members, is.Members)}
	for _, p := range is.Problems {
		if mine(p.Object, changes) && !slices.Contains(was.Problems, p) {
			o.Doubt = p.String()
		}
	}
	o.differ(was.Config, is.Config)
	before, err := c.Renderer.Render(was.Config)
	if err == nil {
		var after templates.Bundle
		if after, err = c.Renderer.Render(is.Config); err == nil {
			o.How = Nothing
			if after.Revision != before.Revision {
				o.How = Reload
			}
			return o
		}
	}
	o.Doubt = err.Error()
	return o
}

// differ notes what would be written otherwise.
func (o *outlook) differ(was, is templates.Config) {
	merge(was.Sites, is.Sites, func(a, b *templates.Site) int { return strings.Compare(a.Name, b.Name) }, func(a, b *templates.Site) {
		if !reflect.DeepEqual(a, b) {
			o.Objects = append(o.Objects, "site/"+cmp.Or(a, b).Name)
		}
	})
	merge(was.Upstreams, is.Upstreams, func(a, b *templates.Upstream) int { return strings.Compare(a.Name, b.Name) }, func(a, b *templates.Upstream) {
		if !reflect.DeepEqual(a, b) {
			o.Objects = append(o.Objects, "upstream/"+cmp.Or(a, b).Name)
		}
	})
	merge(was.Sockets, is.Sockets, func(a, b *templates.Socket) int { return strings.Compare(a.Address, b.Address) }, func(a, b *templates.Socket) {
		if !reflect.DeepEqual(a, b) {
			o.Listeners = append(o.Listeners, cmp.Or(a, b).Address)
		}
	})
}

// leaving returns the nodes that take connections of an upstream and would not any more, sorted.
func leaving(was, is []Member) []string {
	type place struct{ upstream, node string }
	stay := map[place]bool{}
	for _, m := range is {
		stay[place{m.Upstream, m.Node}] = m.Up
	}
	var nodes []string
	for _, m := range was {
		if m.Up && !stay[place{m.Upstream, m.Node}] {
			nodes = append(nodes, m.Node)
		}
	}
	slices.Sort(nodes)
	return slices.Compact(nodes)
}

// touched counts the sockets of a gateway; nil when it does not tell them.
func (o *outlook) touched(sockets *Sockets) *Touched {
	if sockets == nil {
		return nil
	}
	var t Touched
	for _, node := range o.leaving {
		n, ok := sockets.Of(node)
		t.Leaving += n
		t.AtLeast = t.AtLeast || !ok
	}
	if o.How == Reload {
		t.Retiring = sockets.Total - sockets.Old
		t.AtLeast = t.AtLeast || sockets.Uncounted != ""
	}
	return &t
}
