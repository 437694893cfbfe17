package consul

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/hashicorp/consul/api"

	"sluice/registry"
	"sluice/registry/keyspace"
)

// A node of sluice's own is a service with this metadata: the fleet that it belongs to, and what keyspace.EncodeNode
// makes of it, in pieces of what Consul takes as one value.
const (
	metaFleet    = "sluice-fleet"
	metaNode     = "sluice-node" // then sluice-node-1, …
	maxMetaValue = 512
)

// forgetAfter is how long Consul keeps a node that stopped beating, as a critical one: the shortest that it takes.
const forgetAfter = time.Minute

// fleetTag marks the services of a fleet in the list of all services.
func (r *Registry) fleetTag() string { return "sluice-" + r.cfg.Fleet }

var plainID = regexp.MustCompile(`^[A-Za-z0-9._:@-]{1,253}$`)

// serviceID is the id of a node in Consul, where ids are unique in an agent, over all its services. It stands in paths of
// URLs: an id that would not survive there is replaced by its hash.
func (r *Registry) serviceID(service, id string) string {
	if !plainID.MatchString(id) {
		sum := sha256.Sum256([]byte(id))
		id = "~" + hex.EncodeToString(sum[:16])
	}
	return r.servicePrefix(service) + id
}

func (r *Registry) servicePrefix(service string) string { return r.cfg.Fleet + ":" + service + ":" }

// checkID is that which Consul gives the only check of a service.
func checkID(serviceID string) string { return "service:" + serviceID }

// registration is how a node is registered with an agent. ttl is in seconds.
func (r *Registry) registration(n registry.Node, ttl int64) (*api.AgentServiceRegistration, error) {
	value, err := keyspace.EncodeNode(n, ttl)
	if err != nil {
		return nil, err
	}
	weight := max(1, n.Weight)
	reg := &api.AgentServiceRegistration{
		ID: r.serviceID(n.Service, n.ID), Name: n.Service, Tags: append([]string{r.fleetTag()}, n.Tags...),
		Address: n.Address, Port: n.Port, Meta: pieces(value),
		Weights: &api.AgentWeights{Passing: weight, Warning: weight},
		Check: &api.AgentServiceCheck{
			Name: "sluice", TTL: (time.Duration(ttl) * time.Second).String(), Status: api.HealthPassing,
			DeregisterCriticalServiceAfter: forgetAfter.String(),
		},
	}
	reg.Meta[metaFleet] = r.cfg.Fleet
	if path, ok := strings.CutPrefix(n.Address, "unix:"); ok {
		reg.Address, reg.SocketPath = "", path
	}
	return reg, nil
}

// pieces cuts value between characters, so that each piece is text.
func pieces(value string) map[string]string {
	meta := make(map[string]string)
	for i := 0; value != ""; i++ {
		n := min(maxMetaValue, len(value))
		for n < len(value) && !utf8.RuneStart(value[n]) {
			n--
		}
		meta[pieceKey(i)] = value[:n]
		value = value[n:]
	}
	return meta
}

func pieceKey(i int) string {
	if i == 0 {
		return metaNode
	}
	return metaNode + "-" + strconv.Itoa(i)
}

// joined is the inverse of pieces.
func joined(meta map[string]string) string {
	var b strings.Builder
	for i := 0; ; i++ {
		piece, ok := meta[pieceKey(i)]
		if !ok {
			return b.String()
		}
		b.WriteString(piece)
	}
}

// condition is what Consul's checks say of a node.
type condition int

const (
	alive    condition = iota // passing or warning: in service
	resting                   // in maintenance: out of service on purpose
	critical                  // not alive
)

func conditionOf(checks api.HealthChecks) condition {
	switch checks.AggregatedStatus() {
	case api.HealthPassing, api.HealthWarning:
		return alive
	case api.HealthMaint:
		return resting
	default:
		return critical
	}
}

// instance is a node as Consul has it.
type instance struct {
	node      registry.Node
	ours      bool // registered with sluice
	condition condition
	adrift    bool          // critical for its agent alone: the node beats, or did until a moment ago
	ttl       time.Duration // of a node that was registered with sluice
	where     string        // the Consul node whose agent keeps it
	serviceID string
	created   uint64 // when it came to be, and when it was last changed, as Consul counts
	modified  uint64
	err       error // why node is none; its service and id are there
}

// instances are those of an answer to a query of the service that are of the fleet or of nobody's, one for each id, sorted
// by id. Of those with the same id, that which is alive is taken, and of several, the last one that was registered: a node
// whose beat went to another agent is with both for a while.
func (r *Registry) instances(service string, entries []*api.ServiceEntry) []instance {
	var all []instance
	for _, e := range entries {
		if e.Service == nil || e.Node == nil {
			continue
		}
		if fleet, ours := e.Service.Meta[metaFleet]; !ours {
			all = append(all, foreign(service, e))
		} else if fleet == r.cfg.Fleet {
			all = append(all, r.own(service, e))
		}
	}
	separate(all)
	slices.SortFunc(all, func(a, b instance) int {
		return cmp.Or(cmp.Compare(a.node.ID, b.node.ID), cmp.Compare(a.condition, b.condition), cmp.Compare(b.modified, a.modified),
			cmp.Compare(a.where, b.where))
	})
	return slices.CompactFunc(all, func(a, b instance) bool { return a.node.ID == b.node.ID })
}

func newInstance(e *api.ServiceEntry) instance {
	return instance{
		condition: conditionOf(e.Checks), where: e.Node.Node, serviceID: e.Service.ID,
		created: e.Service.CreateIndex, modified: e.Service.ModifyIndex,
	}
}

// own decodes a node that was registered by sluice.
func (r *Registry) own(service string, e *api.ServiceEntry) instance {
	i := newInstance(e)
	i.ours = true
	i.adrift = i.condition == critical && slices.ContainsFunc(e.Checks, func(c *api.HealthCheck) bool {
		return c.CheckID == checkID(e.Service.ID) && c.Status == api.HealthPassing
	})
	i.ttl = keyspace.TTL([]byte(joined(e.Service.Meta)))
	value := []byte(joined(e.Service.Meta))
	id := strings.TrimPrefix(e.Service.ID, r.servicePrefix(service))
	var said struct{ Node struct{ ID string } }
	if json.Unmarshal(value, &said) == nil && r.serviceID(service, said.Node.ID) == e.Service.ID {
		id = said.Node.ID
	}
	i.node, i.err = keyspace.DecodeNode(service, id, value)
	if i.err != nil {
		i.node = registry.Node{Service: service, ID: id}
	}
	return i
}

// foreign makes a node of a service that somebody else registered. Its incarnation is when it came to be, as the
// successor under the same id has another.
func foreign(service string, e *api.ServiceEntry) instance {
	i := newInstance(e)
	i.node = registry.Node{
		Service: service, ID: e.Service.ID, Port: e.Service.Port, Zone: e.Service.Meta["zone"],
		Tags: tagsOf(e.Service.Tags), Meta: metaOf(e.Service.Meta),
		Weight:  min(max(e.Service.Weights.Passing, 1), 1000),
		Address: cmp.Or(e.Service.Address, e.Node.Address), Incarnation: strconv.FormatUint(e.Service.CreateIndex, 16),
	}
	if e.Service.SocketPath != "" {
		i.node.Address, i.node.Port = "unix:"+e.Service.SocketPath, 0
	}
	if e.Service.ID == e.Service.Service {
		i.node.ID = e.Node.Node // a definition without an id: each agent's has the same
	}
	if err := i.node.Validate(); err != nil {
		i.err = fmt.Errorf("it was left out: %w", err)
	}
	return i
}

// separate gives different servers with the same id, which Consul allows on different agents, different ones: the oldest
// keeps it, the others have that of their Consul node behind it. What is the same server is left alone.
func separate(all []instance) {
	bySameID := make(map[string][]int)
	for i, one := range all {
		if !one.ours {
			bySameID[one.node.ID] = append(bySameID[one.node.ID], i)
		}
	}
	for _, same := range bySameID {
		slices.SortFunc(same, func(a, b int) int {
			return cmp.Or(cmp.Compare(all[a].created, all[b].created), cmp.Compare(all[a].where, all[b].where))
		})
		for _, i := range same[1:] {
			if all[i].node.HostPort() != all[same[0]].node.HostPort() {
				all[i].node.ID += "@" + all[i].where
			}
		}
	}
}

// tagsOf keeps as many tags as a node may have.
func tagsOf(tags []string) []string {
	kept := slices.DeleteFunc(slices.Clone(tags), func(t string) bool { return !registry.ValidTag(t) })
	return kept[:min(len(kept), registry.MaxTags)]
}

// metaOf keeps as much metadata as a node may have.
func metaOf(meta map[string]string) map[string]string {
	kept := make(map[string]string)
	probe := registry.Node{Service: "a", ID: "a", Address: "127.0.0.1", Port: 1, Meta: kept}
	for _, k := range slices.Sorted(maps.Keys(meta)) {
		kept[k] = meta[k]
		if probe.Validate() != nil {
			delete(kept, k)
		}
	}
	if len(kept) == 0 {
		return nil
	}
	return kept
}

var errForeign = errors.New("it was not registered with sluice: take it away where it was registered, or disable it with an override")
