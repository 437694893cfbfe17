package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"

	"sluice/api"
	"sluice/controlplane"
	"sluice/controlplane/spec"
	"sluice/registry"
)

// apiClient is the client that commands use.
type apiClient = *api.ClientWithResponses

// row is one thing of a list: what a table shows, and what scripts get.
type row struct {
	name  string
	cells []string
	value any
}

// resource is a kind of thing that get, describe and delete take.
type resource struct {
	name    string // plural, as in the API's paths
	aliases []string
	header  []string
	filters []string // that its list takes besides prefix
	list    func(ctx context.Context, c apiClient, f filters) ([]row, error)
	delete  func(ctx context.Context, c apiClient, name, reason string) error // nil where nothing is to be deleted
}

// resources are all of them, in the order in which help lists them.
func resources() []resource {
	return []resource{
		{
			"upstreams", []string{"upstream", "up"}, []string{"NAME", "SERVICE", "BALANCE", "CHECK", "OWNER"},
			[]string{"owner", "service"}, listUpstreams,
			func(ctx context.Context, c apiClient, name, reason string) error {
				resp, err := c.DeleteUpstreamWithResponse(ctx, name, &api.DeleteUpstreamParams{XChangeReason: reason})
				return api.Check(resp, err)
			},
		},
		{
			"sites", []string{"site"}, []string{"NAME", "HOSTS", "LISTENERS", "ROUTES", "GROUPS", "OWNER"},
			[]string{"owner", "group", "host", "upstream"}, listSites,
			func(ctx context.Context, c apiClient, name, reason string) error {
				resp, err := c.DeleteSiteWithResponse(ctx, name, &api.DeleteSiteParams{XChangeReason: reason})
				return api.Check(resp, err)
			},
		},
		{
			"certificates", []string{"certificate", "cert", "certs"}, []string{"NAME", "EXPIRES", "FROM", "OWNER"},
			[]string{"owner", "expires-before"}, listCertificates,
			func(ctx context.Context, c apiClient, name, reason string) error {
				resp, err := c.DeleteCertificateWithResponse(ctx, name, &api.DeleteCertificateParams{XChangeReason: reason})
				return api.Check(resp, err)
			},
		},
		{
			"overrides", []string{"override"}, []string{"NODE", "STATE", "WEIGHT", "NOTE"},
			[]string{"owner", "service", "state"}, listOverrides,
			func(ctx context.Context, c apiClient, name, reason string) error {
				service, id, err := splitNode(name)
				if err != nil {
					return err
				}
				resp, err := c.DeleteOverrideWithResponse(ctx, service, id, &api.DeleteOverrideParams{XChangeReason: reason})
				return api.Check(resp, err)
			},
		},
		{
			"nodes", []string{"node"}, []string{"NODE", "ADDRESS", "WEIGHT", "MAX CONNS", "ZONE", "TAGS", "STATE", "SOCKETS"},
			[]string{"service", "zone", "tag", "address", "state"}, listNodes,
			func(ctx context.Context, c apiClient, name, _ string) error {
				service, id, err := splitNode(name)
				if err != nil {
					return err
				}
				resp, err := c.DeleteNodeWithResponse(ctx, service, id, &api.DeleteNodeParams{})
				return api.Check(resp, err)
			},
		},
		{"services", []string{"service", "svc"}, []string{"NAME", "NODES"}, nil, listServices, nil},
		{
			"gateways", []string{"gateway", "gw"}, []string{"NAME", "GROUP", "STATE", "SEQ LIVE", "REVISION", "GENERATIONS", "SOCKETS", "NGINX", "SLUICE"},
			[]string{"group", "phase"}, listGateways, nil,
		},
	}
}

// findResource returns the resource of a name or an alias.
func findResource(word string) (resource, error) {
	for _, r := range resources() {
		if r.name == word || slices.Contains(r.aliases, word) {
			return r, nil
		}
	}
	var names []string
	for _, r := range resources() {
		names = append(names, r.name)
	}
	return resource{}, usageError(fmt.Errorf("%q is no kind: choose of %s", word, strings.Join(names, ", ")))
}

// target is what arguments name: a kind, and one of it or (empty) all.
type target struct {
	resource
	object string
}

// parseTarget reads "site chat", "site/chat", "sites", "node/io/n1".
func parseTarget(args []string) (target, error) {
	word, name, _ := strings.Cut(args[0], "/")
	for _, more := range args[1:] {
		if name != "" {
			return target{}, usageError(fmt.Errorf("%q names an object already: leave out %q", args[0], more))
		}
		name = more
	}
	r, err := findResource(word)
	return target{r, name}, err
}

func splitNode(name string) (service, id string, err error) {
	service, id, err = spec.SplitNode(name)
	if err != nil {
		return "", "", usageError(fmt.Errorf(`%q is no node: write it as service/id, as "io/n1"`, name))
	}
	return service, id, nil
}

// rows returns what the target names, and of all, what the filters select. That there is no such thing is an error.
func (t target) rows(ctx context.Context, c apiClient, f filters) ([]row, error) {
	if t.object != "" {
		f = filters{"prefix": t.object}
	}
	all, err := t.list(ctx, c, f)
	if err != nil {
		return nil, fmt.Errorf("list %s: %w", t.name, err)
	}
	if t.object == "" {
		return all, nil
	}
	found := slices.DeleteFunc(all, func(r row) bool { return r.name != t.object })
	if len(found) == 0 {
		return nil, &exitError{exitNotFound, fmt.Errorf("there is no %s: sluice get %s lists what there is", t, t.name)}
	}
	return found, nil
}

func (t target) String() string { return t.aliases[0] + "/" + t.object }

// pages gathers all pages of a list.
func pages[I any](fetch func(from string) (items []I, next string, err error)) ([]I, error) {
	all := []I{}
	for from := ""; ; {
		items, next, err := fetch(from)
		if err != nil {
			return nil, err
		}
		all = append(all, items...)
		if from = next; from == "" {
			return all, nil
		}
	}
}

func listUpstreams(ctx context.Context, c apiClient, f filters) ([]row, error) {
	items, err := pages(func(from string) ([]api.NamedUpstream, string, error) {
		resp, err := c.ListUpstreamsWithResponse(ctx, &api.ListUpstreamsParams{From: from, Prefix: f["prefix"], Owner: f["owner"], Service: f["service"]})
		if err := api.Check(resp, err); err != nil {
			return nil, "", err
		}
		return resp.JSON200.Items, resp.JSON200.Next, nil
	})
	var rows []row
	for _, i := range items {
		u := i.Spec.WithDefaults(i.Name)
		balance := string(u.Balance.Method)
		if u.Balance.Key != "" {
			balance += " " + u.Balance.Key
		}
		rows = append(rows, row{i.Name, []string{i.Name, controlplane.UpstreamService(u), balance, string(u.Check.Type), orDash(u.Owner)}, i})
	}
	return rows, err
}

func listSites(ctx context.Context, c apiClient, f filters) ([]row, error) {
	items, err := pages(func(from string) ([]api.NamedSite, string, error) {
		resp, err := c.ListSitesWithResponse(ctx, &api.ListSitesParams{
			From: from, Prefix: f["prefix"], Owner: f["owner"], Group: f["group"], Host: f["host"], Upstream: f["upstream"],
		})
		if err := api.Check(resp, err); err != nil {
			return nil, "", err
		}
		return resp.JSON200.Items, resp.JSON200.Next, nil
	})
	var rows []row
	for _, i := range items {
		s := i.Spec.WithDefaults()
		var listeners, routes []string
		for _, l := range s.Listeners {
			text := fmt.Sprint(l.Port)
			if l.TLS {
				text += "/tls"
			}
			listeners = append(listeners, text)
		}
		for _, r := range s.Routes {
			routes = append(routes, r.Path+" "+r.Upstream)
		}
		rows = append(rows, row{i.Name, []string{
			i.Name, strings.Join(s.Hosts, ","), strings.Join(listeners, ","), strings.Join(routes, ", "), strings.Join(s.Groups, ","), orDash(s.Owner),
		}, i})
	}
	return rows, err
}

func listCertificates(ctx context.Context, c apiClient, f filters) ([]row, error) {
	items, err := pages(func(from string) ([]api.NamedCertificate, string, error) {
		resp, err := c.ListCertificatesWithResponse(ctx, &api.ListCertificatesParams{
			From: from, Prefix: f["prefix"], Owner: f["owner"], ExpiresBefore: f["expires-before"],
		})
		if err := api.Check(resp, err); err != nil {
			return nil, "", err
		}
		return resp.JSON200.Items, resp.JSON200.Next, nil
	})
	var rows []row
	for _, i := range items {
		expires, from := "-", "registry"
		if !i.NotAfter.IsZero() {
			expires = i.NotAfter.UTC().Format(time.DateTime)
		}
		if i.Spec.ChainFile != "" {
			from = i.Spec.ChainFile
		}
		rows = append(rows, row{i.Name, []string{i.Name, expires, from, orDash(i.Spec.Owner)}, i})
	}
	return rows, err
}

func listOverrides(ctx context.Context, c apiClient, f filters) ([]row, error) {
	items, err := pages(func(from string) ([]api.NamedOverride, string, error) {
		resp, err := c.ListOverridesWithResponse(ctx, &api.ListOverridesParams{
			From: from, Prefix: f["prefix"], Owner: f["owner"], Service: f["service"], State: spec.State(f["state"]),
		})
		if err := api.Check(resp, err); err != nil {
			return nil, "", err
		}
		return resp.JSON200.Items, resp.JSON200.Next, nil
	})
	var rows []row
	for _, i := range items {
		weight := "-"
		if i.Spec.Weight != nil {
			weight = fmt.Sprint(*i.Spec.Weight)
		}
		rows = append(rows, row{i.Name, []string{i.Name, string(i.Spec.WithDefaults().State), weight, orDash(i.Spec.Note)}, i})
	}
	return rows, err
}

// listNodes shows how each node stands by the gateways' reports: what one of them says beside "up" counts, and the sockets are
// those of all of them.
func listNodes(ctx context.Context, c apiClient, f filters) ([]row, error) {
	nodes, err := pages(func(from string) ([]api.Node, string, error) {
		resp, err := c.ListNodesWithResponse(ctx, &api.ListNodesParams{
			From: from, Prefix: f["prefix"], Service: f["service"], Zone: f["zone"], Tag: f["tag"], Address: f["address"],
			State: controlplane.NodeState(f["state"]),
		})
		if err := api.Check(resp, err); err != nil {
			return nil, "", err
		}
		return resp.JSON200.Items, resp.JSON200.Next, nil
	})
	if err != nil {
		return nil, err
	}
	gateways, err := gatewaysOfAPI(c, api.ListGatewaysParams{})(ctx)
	if err != nil {
		return nil, err
	}
	states := nodeStates(gateways)
	var rows []row
	for _, n := range nodes {
		limit := "-"
		if n.MaxConns > 0 {
			limit = fmt.Sprint(n.MaxConns)
		}
		name := n.Service + "/" + n.ID
		rows = append(rows, row{name, []string{
			name, n.HostPort(), fmt.Sprint(max(1, n.Weight)), limit, orDash(n.Zone), orDash(strings.Join(n.Tags, ",")), cmp.Or(states[name], "up"),
			socketsOf(gateways, name),
		}, n})
	}
	return rows, nil
}

func nodeStates(gateways []controlplane.Status) map[string]string {
	states := map[string]string{}
	for _, g := range gateways {
		for _, n := range g.Exceptions {
			states[n.Service+"/"+n.ID] = string(n.State)
		}
	}
	return states
}

// socketsOf returns how many sockets the gateways have open to a node: "12", "12+" when some do not tell, "-" when none does.
func socketsOf(gateways []controlplane.Status, node string) string {
	sum, tell := 0, 0
	for _, g := range gateways {
		if n, ok := g.Sockets.Of(node); ok {
			sum += n
			tell++
		}
	}
	switch tell {
	case 0:
		return "-"
	case len(gateways):
		return fmt.Sprint(sum)
	default:
		return fmt.Sprintf("%d+", sum)
	}
}

func listServices(ctx context.Context, c apiClient, f filters) ([]row, error) {
	services, err := pages(func(from string) ([]api.ServiceSummary, string, error) {
		resp, err := c.ListServicesWithResponse(ctx, &api.ListServicesParams{From: from, Prefix: f["prefix"]})
		if err := api.Check(resp, err); err != nil {
			return nil, "", err
		}
		return resp.JSON200.Items, resp.JSON200.Next, nil
	})
	var rows []row
	for _, s := range services {
		rows = append(rows, row{s.Name, []string{s.Name, fmt.Sprint(s.Nodes)}, s})
	}
	return rows, err
}

func listGateways(ctx context.Context, c apiClient, f filters) ([]row, error) {
	gateways, err := gatewaysOfAPI(c, api.ListGatewaysParams{Prefix: f["prefix"], Group: f["group"], Phase: controlplane.Phase(f["phase"])})(ctx)
	var rows []row
	for _, g := range gateways {
		sockets := "-"
		if g.Sockets != nil {
			sockets = fmt.Sprint(g.Sockets.Total)
		}
		state := string(g.Phase)
		if len(g.Alarms) > 0 {
			state += ", " + count(len(g.Alarms), "alarm")
		}
		rows = append(rows, row{g.Gateway, []string{
			g.Gateway, g.Group, state, fmt.Sprint(g.SeqLive), orDash(short(g.RevisionLive)), fmt.Sprint(len(g.Nginx.Generations)), sockets,
			g.Nginx.Version, g.Version,
		}, g})
	}
	return rows, err
}

// problemsOf returns what the gateways say is wrong with an object, each text once.
func problemsOf(gateways []controlplane.Status, object string) []string {
	said := map[string]bool{}
	for _, g := range gateways {
		for _, p := range slices.Concat(g.Problems, g.Alarms) {
			if p.Object == object {
				said[p.String()] = true
			}
		}
	}
	return slices.Sorted(maps.Keys(said))
}

// overrideOf returns the override of a node with its ETag; without one, the zero Override and no ETag.
func overrideOf(ctx context.Context, c apiClient, service, id string) (spec.Override, string, error) {
	resp, err := c.GetOverrideWithResponse(ctx, service, id)
	if err := api.Check(resp, err); err != nil {
		if p, ok := errors.AsType[*api.Problem](err); ok && p.Status == http.StatusNotFound {
			return spec.Override{}, "", nil
		}
		return spec.Override{}, "", err
	}
	return *resp.JSON200, resp.HTTPResponse.Header.Get("ETag"), nil
}

// findNode returns a node, or an error that says that it is not registered.
func findNode(ctx context.Context, c apiClient, service, id string) (registry.Node, error) {
	resp, err := c.GetNodeWithResponse(ctx, service, id)
	if err := api.Check(resp, err); err != nil {
		return registry.Node{}, err
	}
	return *resp.JSON200, nil
}
