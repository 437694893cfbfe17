package api

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"sluice/controlplane"
	"sluice/controlplane/spec"
	"sluice/registry"
)

// Trace implements StrictServerInterface: it follows a node from its registration to each gateway, and says where it stops.
func (s *Server) Trace(ctx context.Context, r TraceRequestObject) (TraceResponseObject, error) {
	service, id, errs := spec.SplitNode(r.Params.Node)
	if errs != nil || checkService(service) != nil {
		return nil, newProblem(http.StatusBadRequest, `name the node as service/id, as "io/n1"`)
	}
	t := &tracer{service: service, id: id, out: TraceResult{Node: r.Params.Node, Steps: []TraceStep{}, Gateways: []TraceGateway{}}}
	if err := t.run(ctx, s); err != nil {
		return nil, err
	}
	return Trace200JSONResponse(t.out), nil
}

// tracer is the state of one trace.
type tracer struct {
	service, id string
	node        *registry.Node // as it is registered
	upstreams   map[string]bool
	groups      map[string]bool
	out         TraceResult
}

func (t *tracer) step(name string, ok bool, format string, args ...any) {
	t.out.Steps = append(t.out.Steps, TraceStep{Step: name, Ok: ok, Message: fmt.Sprintf(format, args...)})
}

func (t *tracer) run(ctx context.Context, s *Server) error {
	page, err := s.registry.ListNodes(ctx, t.service, "", 0)
	if err != nil {
		return s.fault(err)
	}
	for _, n := range page.Nodes {
		if n.ID == t.id {
			t.node = &n
		}
	}
	gateways, err := s.gateways(ctx)
	if err != nil {
		return err
	}
	snapshot, _ := s.local.Snapshot()
	t.registered(snapshot, gateways)
	t.address(page.Nodes)
	if err := t.used(ctx, s); err != nil {
		return err
	}
	if err := t.override(ctx, s); err != nil {
		return err
	}
	t.out.Live = t.node != nil && len(t.out.Steps) > 0 && !slices.ContainsFunc(t.out.Steps, func(s TraceStep) bool { return !s.Ok })
	reached := false
	for _, g := range gateways {
		if t.groups[g.Group] {
			at := t.at(g)
			reached = reached || at.Live
			t.out.Live = t.out.Live && at.Live
			t.out.Gateways = append(t.out.Gateways, at)
		}
	}
	if len(t.out.Gateways) == 0 {
		t.out.Live = false
		if len(t.groups) > 0 {
			t.step("gateways", false, "no gateway of the groups %s has reported lately: start one with --group", strings.Join(sorted(t.groups), ", "))
		}
	}
	t.out.Serving = reached
	return nil
}

// registered says whether the registry has the node, and if not, why.
func (t *tracer) registered(snapshot registry.Snapshot, gateways []Status) {
	if t.node != nil {
		t.step("registered", true, "%s, weight %d, incarnation %q", t.node.HostPort(), max(t.node.Weight, 1), t.node.Incarnation)
		return
	}
	for _, tomb := range snapshot.Tombstones {
		if tomb.Service == t.service && tomb.ID == t.id {
			t.step("registered", false, "it was removed on purpose at %s; it comes back when it registers again", tomb.At.UTC().Format(time.RFC3339))
			return
		}
	}
	object := "node/" + t.service + "/" + t.id
	for _, g := range gateways {
		for _, p := range g.Problems {
			if p.Object == object {
				t.step("registered", false, "the registry has it, but it cannot be used: %s", p.Message)
				return
			}
		}
	}
	t.step("registered", false, "the registry does not have it: it never registered, or its lease ran out because it stopped beating")
}

// address says whether another node has the same address: then only the first one is used.
func (t *tracer) address(nodes []registry.Node) {
	if t.node == nil {
		return
	}
	for _, n := range nodes {
		if n.ID < t.id && n.HostPort() == t.node.HostPort() {
			t.step("address", false, "node %s has the same address, and only that one is used: let one of them deregister", n.Ref())
			return
		}
	}
}

// used finds the upstreams that have the node, and the sites that lead to them.
func (t *tracer) used(ctx context.Context, s *Server) error {
	t.upstreams, t.groups = map[string]bool{}, map[string]bool{}
	page, err := s.registry.List(ctx, registry.KindUpstream, "", 0)
	if err != nil {
		return s.fault(err)
	}
	ofService := false
	for _, o := range page.Objects {
		u, err := spec.Decode[spec.Upstream](o.Value)
		if err != nil {
			continue
		}
		if controlplane.UpstreamService(u.WithDefaults(o.Name)) != t.service {
			continue
		}
		ofService = true
		if t.node != nil && !controlplane.Selects(u, *t.node) {
			t.step("upstream "+o.Name, false, "it asks for tags %v and metadata %v, which the node does not have", u.Tags, u.Meta)
			continue
		}
		t.upstreams[o.Name] = true
	}
	switch {
	case len(t.upstreams) > 0:
		t.step("upstream", true, "it is in %s", strings.Join(sorted(t.upstreams), ", "))
	case !ofService:
		t.step("upstream", false, "no upstream has the service %q: create one, {service: %s}", t.service, t.service)
	}
	if len(t.upstreams) == 0 {
		return nil
	}
	page, err = s.registry.List(ctx, registry.KindSite, "", 0)
	if err != nil {
		return s.fault(err)
	}
	sites := map[string]bool{}
	for _, o := range page.Objects {
		site, err := spec.Decode[spec.Site](o.Value)
		if err != nil {
			continue
		}
		for _, ref := range site.References() {
			if !ref.Certificate && t.upstreams[ref.Name] {
				sites[o.Name] = true
				for _, g := range site.WithDefaults().Groups {
					t.groups[g] = true
				}
			}
		}
	}
	if len(sites) == 0 {
		t.step("site", false, "no site has a route to %s: add one", strings.Join(sorted(t.upstreams), ", "))
		return nil
	}
	t.step("site", true, "%s, on the gateways of %s", strings.Join(sorted(sites), ", "), strings.Join(sorted(t.groups), ", "))
	return nil
}

// override says whether ops took the node out.
func (t *tracer) override(ctx context.Context, s *Server) error {
	o, _, err := s.find(ctx, registry.Ref{Kind: registry.KindOverride, Name: t.service + "/" + t.id})
	if err != nil {
		return err
	}
	override, err := spec.Decode[spec.Override](o.Value)
	if o.Seq == 0 || err != nil {
		return nil //nolint:nilerr // one that can't be decoded is not followed
	}
	state := override.WithDefaults().State
	t.step("override", state == spec.Active, "ops set it to %s in change %d %s", state, o.Seq, override.Note)
	return nil
}

// at says whether a gateway serves the node, as far as its report tells.
func (t *tracer) at(g Status) TraceGateway {
	at := TraceGateway{Gateway: g.Gateway, Group: g.Group, Phase: g.Phase, SeqLive: g.SeqLive, SeqWanted: g.SeqWanted}
	if n, ok := g.Sockets.Of(t.service + "/" + t.id); ok {
		at.Sockets = &n
	}
	why := func(format string, args ...any) { at.Reasons = append(at.Reasons, fmt.Sprintf(format, args...)) }
	for _, n := range g.Exceptions {
		if n.Service == t.service && n.ID == t.id && t.upstreams[n.Upstream] {
			at.State = n.State
			why("in %s it is %s since %s: %s", n.Upstream, n.State, n.Since.UTC().Format(time.RFC3339), n.Reason)
		}
	}
	rotated := at.State == "" || at.State == controlplane.NodeSuspect || at.State == controlplane.NodeHeld || at.State == controlplane.NodeIgnored
	if !g.Registry.Connected {
		why("the registry is away from it since %s: it serves what it last knew", g.Registry.Since.UTC().Format(time.RFC3339))
	}
	if g.Wait != nil {
		why("a change waits until %s (%s): %s", g.Wait.Until.UTC().Format(time.RFC3339), g.Wait.What, g.Wait.Why)
	}
	if g.Failure != nil {
		why("nginx, or sluice, refused the newest configuration: %s", g.Failure.Message)
	}
	if g.Phase == controlplane.Applying {
		why("a change is being made live")
	}
	if !g.Nginx.Running {
		why("nginx does not run")
	}
	at.Live = rotated && g.Nginx.Running && g.Phase == controlplane.InStep && g.Registry.Connected && t.node != nil
	return at
}

func sorted(set map[string]bool) []string {
	var out []string
	for name := range set {
		out = append(out, name)
	}
	slices.Sort(out)
	return out
}
