package controlplane

import (
	"cmp"
	"context"
	"encoding/json"
	"hash/fnv"
	"io"
	"reflect"
	"slices"
	"time"

	"sluice/controlplane/health"
	"sluice/registry"
)

const (
	// voters is how many gateways of a group check a node: the majority of three outlives the wrong eye of one.
	voters = 3
	// peersEvery is how often the reports of the others are read.
	peersEvery = 2 * time.Second
	// peersForget is how long the others' reports count when they cannot be read any more: as long as their leases.
	peersForget = reportTTL
	// maxTold is how many nodes a gateway tells the others of.
	maxTold = 2000
)

// Findings are what a gateway tells the others of its group: what its checks found, and whom its guard holds.
type Findings struct {
	Failing []FailingNode `json:"failing,omitempty"` // sorted by upstream and id; at most maxTold
	Held    []HeldNode    `json:"held,omitempty"`    // likewise
}

// FailingNode is a node that a gateway's checks found unhealthy.
type FailingNode struct {
	Upstream string `json:"upstream"`
	ID       string `json:"id"`
	Refused  bool   `json:"refused,omitempty"`  // nobody listens there
	Stranger bool   `json:"stranger,omitempty"` // another node answers there
	Flapping bool   `json:"flapping,omitempty"`
}

// HeldNode is a node that is not registered any more and that a gateway's guard keeps.
type HeldNode struct {
	Upstream string        `json:"upstream"`
	Since    time.Time     `json:"since"`
	Node     registry.Node `json:"node"`
}

// peer is another gateway of the group that checks nodes.
type peer struct {
	name     string
	findings Findings
}

// peers reads the reports of the other gateways and sends what they tell, at once and whenever it changed.
func (c *Controller) peers(ctx context.Context, out chan<- []peer) error {
	tick := time.NewTicker(peersEvery)
	defer tick.Stop()
	var last []peer
	first, read := true, time.Now()
	for {
		list, err := c.readPeers(ctx)
		switch {
		case err == nil:
			read = time.Now()
		case time.Since(read) >= peersForget:
			list = nil
		default:
			list = last
		}
		if (first && err == nil) || !reflect.DeepEqual(list, last) {
			select {
			case <-ctx.Done():
				return ctx.Err()
			case out <- list:
			}
			first, last = false, list
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
}

func (c *Controller) readPeers(ctx context.Context) ([]peer, error) {
	ctx, cancel := context.WithTimeout(ctx, reportEvery)
	defer cancel()
	page, err := c.Registry.List(ctx, registry.KindGateway, "", 0)
	if err != nil {
		return nil, err
	}
	var list []peer
	for _, o := range page.Objects {
		var s Status
		if o.Name == c.Gateway || json.Unmarshal(o.Value, &s) != nil || s.Group != c.Group || s.Findings == nil {
			continue // a version of sluice that does not check has no vote
		}
		list = append(list, peer{o.Name, *s.Findings})
	}
	return list, nil
}

// electorate are the gateways that check the nodes of a group, and what the others among them found.
type electorate struct {
	own     string
	names   []string // with own
	failing map[health.Key][]vote
}

type vote struct {
	gateway string
	FailingNode
}

func newElectorate(own string, peers []peer) *electorate {
	e := &electorate{own: own, names: []string{own}, failing: map[health.Key][]vote{}}
	for _, p := range peers {
		e.names = append(e.names, p.name)
		for _, f := range p.findings.Failing {
			k := health.Key{Upstream: f.Upstream, ID: f.ID}
			e.failing[k] = append(e.failing[k], vote{p.name, f})
		}
	}
	slices.Sort(e.names)
	return e
}

// of returns the gateways that check a node: those with the highest hashes, so that a gateway more or less moves few nodes.
func (e *electorate) of(k health.Key) []string {
	if len(e.names) <= voters {
		return e.names
	}
	type score struct {
		name string
		hash uint64
	}
	scores := make([]score, len(e.names))
	for i, name := range e.names {
		h := fnv.New64a()
		io.WriteString(h, name+"\x00"+k.Upstream+"\x00"+k.ID) //nolint:errcheck // a hash takes everything
		// FNV mixes its last bytes little: names that differ at the beginning would come out in the same order.
		x := h.Sum64()
		x = (x ^ x>>33) * 0xff51afd7ed558ccd
		scores[i] = score{name, x ^ x>>33}
	}
	slices.SortFunc(scores, func(a, b score) int { return cmp.Or(cmp.Compare(b.hash, a.hash), cmp.Compare(a.name, b.name)) })
	chosen := make([]string, voters)
	for i := range chosen {
		chosen[i] = scores[i].name
	}
	return chosen
}

// mine tells whether this gateway checks a node.
func (e *electorate) mine(k health.Key) bool {
	return len(e.names) <= voters || slices.Contains(e.of(k), e.own)
}

// verdict joins what this gateway found with what the others tell: a node is unhealthy when most of those that check it
// say so.
func (e *electorate) verdict(k health.Key, own health.Verdict, checked bool) (health.Verdict, bool) {
	votes := e.failing[k]
	if len(e.names) == 1 || len(votes) == 0 && own.State != health.Unhealthy {
		return own, checked
	}
	asked := e.of(k)
	bad, refused, strange, flapping := 0, 0, 0, 0
	add := func(v FailingNode) {
		bad++
		refused += one(v.Refused)
		strange += one(v.Stranger)
		flapping += one(v.Flapping)
	}
	if own.State == health.Unhealthy && slices.Contains(asked, e.own) {
		add(FailingNode{Refused: own.Refused, Stranger: own.Stranger, Flapping: own.Flapping})
	}
	for _, v := range votes {
		if slices.Contains(asked, v.gateway) {
			add(v.FailingNode)
		}
	}
	joint := own
	if 2*bad <= len(asked) {
		joint.State, joint.Refused, joint.Stranger = health.Healthy, false, false
		return joint, true
	}
	joint.State = health.Unhealthy
	joint.Refused, joint.Stranger, joint.Flapping = 2*refused > len(asked), 2*strange > len(asked), 2*flapping > len(asked)
	if joint.Reason == "" {
		joint.Reason = "most of the gateways that check it find it unhealthy"
	}
	return joint, true
}

func one(b bool) int {
	if b {
		return 1
	}
	return 0
}
