package consul

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/consul/api"

	"sluice/registry"
	"sluice/registry/keyspace"
)

// Put implements registry.Nodes. In the ordinary case, what this agent has already, it costs a look at the agent, its TTL
// check, and a look for a tombstone.
func (r *Registry) Put(ctx context.Context, n registry.Node, ttl time.Duration) error {
	if err := r.put(ctx, n, ttl); err != nil {
		return fmt.Errorf("consul: put node %s: %w", n.Ref(), err)
	}
	return nil
}

func (r *Registry) put(ctx context.Context, n registry.Node, ttl time.Duration) error {
	if err := servable(n.Service); err != nil {
		return err
	}
	if err := n.Validate(); err != nil {
		return err
	}
	reg, err := r.registration(n, int64((max(ttl, r.MinTTL())+time.Second-1)/time.Second))
	if err != nil {
		return err
	}
	known, err := r.beat(ctx, reg)
	if err != nil {
		return err
	}
	if !known {
		if err := r.register(ctx, reg); err != nil {
			return err
		}
	}
	// A node that comes back is no longer one that left. The agent has it in any case: when Consul has no leader, a beat
	// that was taken is not one that failed.
	if err := r.forget(ctx, n); err != nil && (!known || !away(err)) {
		return err
	}
	return nil
}

// beat passes the check of a node that this agent has with equal values; known is false when it has not.
func (r *Registry) beat(ctx context.Context, reg *api.AgentServiceRegistration) (known bool, err error) {
	err = r.callAgent(ctx, r.timing.call, func(ctx context.Context, c *api.Client) error {
		is, err := agentService(ctx, c, reg.ID)
		if err != nil || is == nil || !maps.Equal(is.Meta, reg.Meta) {
			return err
		}
		err = pass(ctx, c, reg.ID)
		if notFound(err) {
			return nil
		}
		known = err == nil
		return err
	})
	return known, err
}

// pass passes the check of a service. The output is always the same: another one would be news for all who watch.
func pass(ctx context.Context, c *api.Client, id string) error {
	return c.Agent().UpdateTTLOpts(checkID(id), "", api.HealthPassing, new(api.QueryOptions).WithContext(ctx))
}

// agentService returns nil when the agent has no such service.
func agentService(ctx context.Context, c *api.Client, id string) (*api.AgentService, error) {
	is, _, err := c.Agent().Service(id, new(api.QueryOptions).WithContext(ctx))
	if notFound(err) {
		return nil, nil
	}
	return is, err
}

// The catalog is asked for a node that was registered this often, at first and after a while.
const (
	arriveMin = 10 * time.Millisecond
	arriveMax = 400 * time.Millisecond
)

// register registers a node with this agent and waits until the catalog has it: the agent tells the servers afterwards.
func (r *Registry) register(ctx context.Context, reg *api.AgentServiceRegistration) error {
	return r.call(ctx, r.timing.call, func(ctx context.Context, c *api.Client) error {
		err := c.Agent().ServiceRegisterOpts(reg, api.ServiceRegisterOpts{ReplaceExistingChecks: true}.WithContext(ctx))
		if err != nil {
			return err
		}
		// An agent that had it already leaves the state of the check as it was.
		if err := pass(ctx, c, reg.ID); err != nil {
			return err
		}
		q := linearizable(ctx)
		q.Filter = "Service.ID == " + strconv.Quote(reg.ID)
		// To wait for the service's next change would wake all that wait here at each of them: a storm of registrations would
		// cost its square.
		for wait := arriveMin; ; wait = min(2*wait, arriveMax) {
			entries, _, err := c.Health().Service(reg.Name, "", false, q)
			if err != nil {
				return fmt.Errorf("the agent has it; whether the servers have: %w", err)
			}
			if slices.ContainsFunc(entries, func(e *api.ServiceEntry) bool { return arrived(e, reg) }) {
				return nil
			}
			is, err := agentService(ctx, c, reg.ID)
			if err != nil {
				return err
			}
			if is == nil || !maps.Equal(is.Meta, reg.Meta) {
				return nil // somebody else has replaced or removed it since
			}
			pause := time.NewTimer(registry.Jitter(wait))
			select {
			case <-ctx.Done():
				pause.Stop()
				return ctx.Err()
			case <-pause.C:
			}
		}
	})
}

// arrived reports whether e is what was registered, with its check passing.
func arrived(e *api.ServiceEntry, reg *api.AgentServiceRegistration) bool {
	return e.Service.ID == reg.ID && maps.Equal(e.Service.Meta, reg.Meta) &&
		slices.ContainsFunc(e.Checks, func(c *api.HealthCheck) bool {
			return c.CheckID == checkID(reg.ID) && c.Status == api.HealthPassing
		})
}

// forget takes the tombstone of a node away.
func (r *Registry) forget(ctx context.Context, n registry.Node) error {
	key := r.keys.Tombstone(n.Service, n.ID)
	is, err := r.getKey(ctx, key)
	if err != nil || is == nil {
		return err
	}
	_, _, err = r.txn(ctx, r.timing.call, opDelete(key))
	return err
}

// Remove implements registry.Nodes. The tombstone comes first: a node with it is in no Snapshot any more, whichever agent
// still has it. Such a copy gets no beats and goes by itself.
func (r *Registry) Remove(ctx context.Context, ref registry.NodeRef) error {
	if err := servable(ref.Service); err != nil {
		return fmt.Errorf("consul: remove node %s: %w", ref, err)
	}
	entries, tombstones, err := r.lookUpNode(ctx, ref)
	if err != nil {
		return fmt.Errorf("consul: remove node %s: %w", ref, err)
	}
	var is *instance
	for _, i := range r.instances(ref.Service, entries) {
		if i.node.ID == ref.ID {
			is = &i
		}
	}
	switch {
	case is == nil, is.condition == critical && is.err == nil, tombstones.hide(is.node) && is.err == nil:
		return fmt.Errorf("node %s: %w", ref, registry.ErrNotFound)
	case ref.Incarnation != "" && ref.Incarnation != is.node.Incarnation:
		return fmt.Errorf("node %s with incarnation %q: %w", ref, ref.Incarnation, registry.ErrNotFound)
	case !is.ours:
		return fmt.Errorf("consul: remove node %s: %w", ref, errForeign)
	}
	value, err := keyspace.EncodeTombstone(is.node.Incarnation, time.Now())
	if err == nil {
		_, _, err = r.txn(ctx, r.timing.call, opSet(r.keys.Tombstone(ref.Service, ref.ID), value))
	}
	if err != nil {
		return fmt.Errorf("consul: remove node %s: %w", ref, err)
	}
	for _, e := range entries {
		if e.Service.ID != is.serviceID {
			continue
		}
		if err := r.deregister(ctx, e); err != nil {
			return fmt.Errorf("consul: deregister node %s: %w", ref, err)
		}
	}
	return nil
}

// deregister takes a service out of this agent, if it has it as e says, and else out of the catalog.
func (r *Registry) deregister(ctx context.Context, e *api.ServiceEntry) error {
	return r.callAgent(ctx, r.timing.call, func(ctx context.Context, c *api.Client) error {
		is, err := agentService(ctx, c, e.Service.ID)
		if err != nil {
			return err
		}
		if is != nil && !maps.Equal(is.Meta, e.Service.Meta) {
			return nil // its successor is here already
		}
		if is != nil {
			if err := c.Agent().ServiceDeregisterOpts(e.Service.ID, new(api.QueryOptions).WithContext(ctx)); err == nil || !notFound(err) {
				return err
			}
		}
		_, err = c.Catalog().Deregister(&api.CatalogDeregistration{Node: e.Node.Node, ServiceID: e.Service.ID}, writing(ctx))
		return err
	})
}

// graves are the tombstones of a service, by id.
type graves map[string]registry.Tombstone

func (g graves) hide(n registry.Node) bool {
	t, ok := g[n.ID]
	return ok && t.Incarnation == n.Incarnation
}

// lookUpNode returns what Consul has of a node: of one that sluice registered nothing else, since a storm of removals that
// each read the whole service would cost its square.
func (r *Registry) lookUpNode(ctx context.Context, ref registry.NodeRef) (entries []*api.ServiceEntry, tombstones graves, err error) {
	entries, err = r.entries(ctx, ref.Service, "Service.ID == "+strconv.Quote(r.serviceID(ref.Service, ref.ID)))
	if err == nil && len(entries) == 0 {
		entries, err = r.entries(ctx, ref.Service, "") // it is somebody else's, or nobody's
	}
	if err != nil {
		return nil, nil, err
	}
	pair, err := r.getKey(ctx, r.keys.Tombstone(ref.Service, ref.ID))
	if err != nil || pair == nil {
		return entries, nil, err
	}
	tombstones = graves{}
	if t, err := keyspace.DecodeTombstone(ref.Service, ref.ID, pair.Value); err == nil {
		tombstones[ref.ID] = t
	}
	return entries, tombstones, nil
}

// entries returns what Consul has of a service, or the part of it that a filter names.
func (r *Registry) entries(ctx context.Context, service, filter string) (entries []*api.ServiceEntry, err error) {
	err = r.call(ctx, r.timing.list, func(ctx context.Context, c *api.Client) error {
		q := linearizable(ctx)
		q.Filter = filter
		var meta *api.QueryMeta
		entries, meta, err = c.Health().Service(service, "", false, q)
		if err == nil && meta.ResultsFilteredByACLs {
			return errFiltered
		}
		return err
	})
	return entries, err
}

// lookUp returns what Consul has of a service.
func (r *Registry) lookUp(ctx context.Context, service string) (entries []*api.ServiceEntry, tombstones graves, err error) {
	if entries, err = r.entries(ctx, service, ""); err != nil {
		return nil, nil, err
	}
	prefix := r.keys.Tombstone(service, "")
	pairs, _, err := r.txn(ctx, r.timing.call, opTree(prefix))
	if err != nil {
		return nil, nil, err
	}
	tombstones = make(graves, len(pairs))
	for _, p := range pairs {
		id := strings.TrimPrefix(p.Key, prefix)
		if t, err := keyspace.DecodeTombstone(service, id, p.Value); err == nil {
			tombstones[id] = t
		}
	}
	return entries, tombstones, nil
}

// errFiltered says that Consul left out what the token may not see, which looks as if it were not there.
var errFiltered = &refusal{403, "what the token may not read was left out: give it service_prefix and node_prefix read"}

// listsAtOnce is how many services are asked about at once.
const listsAtOnce = 16

// ListNodes implements registry.Nodes. "All" are those that are registered with sluice, and those of the services that a
// Watch of this handle follows. Services are asked about until the page is full.
func (r *Registry) ListNodes(ctx context.Context, service, from string, limit int) (registry.NodePage, error) {
	services := []string{service}
	if service == "" {
		var err error
		if services, err = r.services(ctx); err != nil {
			return registry.NodePage{}, fmt.Errorf("consul: list services: %w", err)
		}
		slices.SortFunc(services, func(a, b string) int { return strings.Compare(a+"/", b+"/") }) // as names sort
	}
	services = slices.DeleteFunc(services, func(s string) bool { return s+"/" < from && !strings.HasPrefix(from, s+"/") })
	var page registry.NodePage
	for at := range slices.Chunk(services, listsAtOnce) {
		nodes, err := r.listServices(ctx, at)
		if err != nil {
			return registry.NodePage{}, fmt.Errorf("consul: list nodes: %w", err)
		}
		for _, n := range nodes {
			switch name := n.Ref().String(); {
			case name < from:
			case limit > 0 && len(page.Nodes) == limit:
				page.Next = name
				return page, nil
			default:
				page.Nodes = append(page.Nodes, n)
			}
		}
	}
	return page, nil
}

// listServices returns the nodes of some services, in their order.
func (r *Registry) listServices(ctx context.Context, services []string) ([]registry.Node, error) {
	lists := make([][]registry.Node, len(services))
	errs := make([]error, len(services))
	var wg sync.WaitGroup
	for i, name := range services {
		wg.Go(func() { lists[i], errs[i] = r.listService(ctx, name) })
	}
	wg.Wait()
	return slices.Concat(lists...), errors.Join(errs...)
}

// GetNode implements registry.Nodes.
func (r *Registry) GetNode(ctx context.Context, ref registry.NodeRef) (registry.Node, error) {
	if _, endpoints := registry.EndpointsTarget(ref.Service); !endpoints {
		entries, tombstones, err := r.lookUpNode(ctx, ref)
		if err != nil {
			return registry.Node{}, fmt.Errorf("consul: get node %s: %w", ref, err)
		}
		for _, n := range r.living(ref.Service, entries, tombstones) {
			if n.ID == ref.ID {
				return n, nil
			}
		}
	}
	return registry.Node{}, fmt.Errorf("node %s: %w", ref, registry.ErrNotFound)
}

func (r *Registry) services(ctx context.Context) ([]string, error) {
	var tags map[string][]string
	err := r.call(ctx, r.timing.list, func(ctx context.Context, c *api.Client) (err error) {
		tags, _, err = c.Catalog().Services(linearizable(ctx))
		return err
	})
	if err != nil {
		return nil, err
	}
	var names []string
	if used := r.used.Load(); used != nil {
		names = slices.Clone(*used)
	}
	for name, t := range tags {
		if slices.Contains(t, r.fleetTag()) {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return slices.Compact(names), nil
}

func (r *Registry) listService(ctx context.Context, service string) ([]registry.Node, error) {
	if _, endpoints := registry.EndpointsTarget(service); endpoints {
		return nil, nil
	}
	entries, tombstones, err := r.lookUp(ctx, service)
	return r.living(service, entries, tombstones), err
}

// living returns the nodes of a service that are alive, sorted.
func (r *Registry) living(service string, entries []*api.ServiceEntry, tombstones graves) []registry.Node {
	var nodes []registry.Node
	for _, i := range r.instances(service, entries) {
		if i.err == nil && i.condition == alive && !tombstones.hide(i.node) {
			nodes = append(nodes, i.node)
		}
	}
	return nodes
}

// servable refuses services that Consul can't have.
func servable(service string) error {
	if target, ok := registry.EndpointsTarget(service); ok {
		return fmt.Errorf("endpoints %s: these are of etcd's naming/endpoints, this registry is Consul: name a service", target)
	}
	return nil
}
