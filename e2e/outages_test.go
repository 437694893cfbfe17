package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"sluice/controlplane"
)

// outage is a row of the table of faults.
type outage struct {
	name   string
	during during
	begin  func(o *outages)
	end    func(o *outages)
}

// during is what the gateway is like during an outage.
type during int

const (
	away     during = iota // it says that the registry is away
	changing               // changes go on
	paused                 // it cannot be asked
)

// outages are a gateway with three nodes on a registry of three members, and what must not notice that it is away.
type outages struct {
	t       *testing.T
	cluster *Cluster
	g       *Gateway
	picked  *Member // of the row
	changes int
}

// both are the rows for either registry.
func bothOutages() []outage {
	return []outage{
		{"all killed", away,
			func(o *outages) { o.cluster.each((*Member).kill) },
			func(o *outages) { o.cluster.each((*Member).Start) }},
		{"leader killed", changing,
			func(o *outages) { o.picked, _ = o.cluster.Leader(); o.picked.kill() },
			func(o *outages) { o.picked.Start() }},
		{"the member in use restarted", changing,
			func(o *outages) { o.picked = o.used(); o.picked.Stop() },
			func(o *outages) { o.picked.Start() }},
		{"the member in use hangs", changing,
			func(o *outages) { o.picked = o.used(); o.picked.Pause() },
			func(o *outages) { o.picked.Resume() }},
		{"all hang", away,
			func(o *outages) { o.cluster.each(func(m *Member) { m.Pause() }) },
			func(o *outages) { o.cluster.each(func(m *Member) { m.Resume() }) }},
		{"minority off the network", changing,
			func(o *outages) { o.picked = o.used(); o.picked.host.Plug(o.t, false) },
			func(o *outages) { o.picked.host.Plug(o.t, true) }},
		{"minority cut off from the others", changing,
			func(o *outages) { o.picked = o.used(); o.picked.part(true) },
			func(o *outages) { o.picked.part(false) }},
	}
}

// lastOutage takes Consul's gossip up to a minute to mend, though sluice needs none of it.
func lastOutage() outage {
	return outage{
		"majority cut off", away,
		func(o *outages) { o.partAll(true) },
		func(o *outages) { o.partAll(false) },
	}
}

func (m *Member) kill() { m.Kill() }

func (o *outages) partAll(apart bool) {
	m := o.cluster.Members
	for i := range m {
		for j := range i {
			m[i].host.Part(o.t, m[j].host, apart)
		}
	}
}

// used returns the member that the gateway uses, as its log tells.
func (o *outages) used() *Member {
	log := o.g.Output()
	if i := strings.LastIndex(log, " is used"); i >= 0 {
		_, log, _ = strings.Cut(log[i:], "http://")
	} else {
		log = o.cluster.Members[0].Address
	}
	i := slices.IndexFunc(o.cluster.Members, func(m *Member) bool {
		return strings.HasPrefix(log, m.Address)
	})
	if i < 0 {
		o.t.Fatalf("which member is in use? %.100s", log)
	}
	return o.cluster.Members[i]
}

// change makes a change that nginx does not notice, as often as it takes until it is live.
func (o *outages) change() (took time.Duration) {
	o.t.Helper()
	began := time.Now()
	o.changes++
	document := fmt.Sprintf("overrides:\n  %s/ghost: {weight: %d}\n", service, o.changes)
	eventually(o.t, time.Minute, "a change is live", func(ctx context.Context) error {
		ctx, cancel := context.WithTimeout(ctx, 15*time.Second)
		defer cancel()
		_, err := o.g.CLI(ctx, document, "apply", "-f", "-")
		return err
	})
	return time.Since(began)
}

// away waits until the gateway says that the registry is.
func (o *outages) away() {
	o.t.Helper()
	o.g.Wait(time.Minute, "the registry is away", func(s controlplane.Status) error {
		if s.Registry.Connected || s.Registry.Error == "" {
			return fmt.Errorf("registry %+v", s.Registry)
		}
		return nil
	})
}

// outageLength is how long a fault lasts.
func outageLength(tb testing.TB) time.Duration {
	tb.Helper()
	if soak(tb) > 0 {
		return time.Minute
	}
	return 5 * time.Second
}

// A registry of three members that is away, in whole or in part, costs no request, no socket and no node, and while only a
// part is away, changes go on.
func TestOutages(t *testing.T) {
	t.Parallel()
	for name, registry := range map[string]struct {
		start func(testing.TB) *Cluster
		rows  []outage
	}{
		"etcd":   {startEtcdCluster, append(bothOutages(), etcdOutages()...)},
		"consul": {startConsulCluster, append(bothOutages(), consulOutages()...)},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cluster := registry.start(t)
			g := startGateway(t, GatewayOptions{Registry: cluster.URL})
			o := &outages{t: t, cluster: cluster, g: g}
			g.Apply(document(g.Port, "ip_hash"))
			g.StartNodes(3)
			fleet := openFleet(t, g.Addr(), 10)
			load := startLoad(t, g.Addr(), LoadOptions{Pause: 50 * time.Millisecond})
			for _, row := range append(registry.rows, lastOutage()) {
				o.run(row)
				fleet.WantAlive()
				if failed := load.Tally().Failed; failed > 0 || t.Failed() {
					t.Fatalf("%s: requests failed: %s", row.name, load.Tally())
				}
			}
			g.StartNode("n4")
			g.WaitNodes(time.Minute, 4)
			fleet.WantAlive()
			t.Logf("request loop: %s", load.WantNoFailure())
		})
	}
}

func (o *outages) run(row outage) {
	o.t.Helper()
	o.cluster.Wait() // each begins with all members
	began := time.Now()
	row.begin(o)
	said := ""
	switch row.during {
	case away:
		o.away()
	case changing:
		said = fmt.Sprintf("a change during it is live after %s, ", o.change().Round(10*time.Millisecond))
	}
	pause(o.t, outageLength(o.t)-time.Since(began))
	if row.during != paused {
		if s := o.g.Status(); s.Nodes != 3 || s.Phase != controlplane.InStep {
			o.t.Errorf("%s: %d nodes, %s", row.name, s.Nodes, s.Phase)
		}
	}
	row.end(o)
	ended := time.Now()
	o.change()
	o.right()
	o.t.Logf("%-32s %sall is right again after %s", row.name+":", said, time.Since(ended).Round(10*time.Millisecond))
}

// right waits until all is as it should be.
func (o *outages) right() {
	o.t.Helper()
	o.g.Wait(time.Minute, "all is right again", func(s controlplane.Status) error {
		if !s.Registry.Connected {
			return errors.New(s.Registry.Error)
		}
		if s.Nodes != 3 || s.Phase != controlplane.InStep {
			return fmt.Errorf("%d nodes, %s", s.Nodes, s.Phase)
		}
		return nil
	})
}

// etcdOutages are those that only etcd has.
func etcdOutages() []outage {
	return []outage{
		{"compaction under a paused sluice", paused, (*outages).compactUnderPause, func(o *outages) {
			o.g.Signal(syscall.SIGCONT)
			if soak(o.t) == 0 { // after a longer pause the connection is lost, and the watch with it
				o.g.waitFor(time.Minute, "compacted")
			}
		}},
	}
}

// compactUnderPause stops sluice, makes changes until etcd has to hold them back, and compacts them away.
func (o *outages) compactUnderPause() {
	seq := o.g.Status().SeqWanted + 1
	o.g.Signal(syscall.SIGSTOP)
	do := func(path string, body any) (revision string) {
		o.t.Helper()
		text, err := json.Marshal(body)
		if err == nil {
			text, err = request(o.t.Context(), http.MethodPost, "http://"+o.cluster.Members[0].Address+path, string(text))
		}
		var answer struct{ Header struct{ Revision string } }
		if err == nil {
			err = json.Unmarshal(text, &answer)
		}
		if err != nil {
			o.t.Fatal(err)
		}
		return answer.Header.Revision
	}
	put := func(key, format string, args ...any) string {
		o.t.Helper()
		return do("/v3/kv/put", map[string][]byte{"key": []byte("/sluice/default/state/" + key), "value": fmt.Appendf(nil, format, args...)})
	}
	for i := range 400 {
		put("unknown/noise", "%d %s", i, strings.Repeat("x", 4<<10))
	}
	put("objects/override/"+service+"/late", `{"v":1,"seq":%d,"value":{"weight":7}}`, seq)
	revision := put("head", `{"v":1,"seq":%d}`, seq)
	do("/v3/kv/compaction", map[string]any{"revision": revision, "physical": true})
}

// consulOutages are those that only Consul has.
func consulOutages() []outage {
	var snapshot []byte
	consul := func(o *outages, method, body string) []byte {
		o.t.Helper()
		var text []byte
		eventually(o.t, time.Minute, method+" of a snapshot", func(ctx context.Context) (err error) { // not while members change
			leader, _ := o.cluster.Leader()
			text, err = request(ctx, method, "http://"+leader.Address+"/v1/snapshot", body)
			return err
		})
		return text
	}
	return []outage{
		{"index backwards", changing,
			func(o *outages) { snapshot = consul(o, http.MethodGet, "") },
			func(o *outages) {
				before := o.g.Status().SeqWanted
				consul(o, http.MethodPut, string(snapshot))
				o.g.Wait(time.Minute, "the state went back", func(s controlplane.Status) error {
					if s.SeqWanted >= before {
						return fmt.Errorf("seq %d, was %d", s.SeqWanted, before)
					}
					return nil
				})
			}},
	}
}
