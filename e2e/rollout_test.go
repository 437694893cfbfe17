package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"sluice/api"
	"sluice/controlplane"
	"sluice/registry"
)

// crew is three gateways with an nginx each, on hosts of their own, and another host with a registry and nodes.
type crew struct {
	t        *testing.T
	gateways []*Gateway
	hosts    []*Host // of the gateways
	nodes    map[string]*Process
	loads    []*Load
}

// startCrew starts gateways whose changes take waves of one: those that are made through the last one wait after the
// first wave until somebody does something.
func startCrew(t *testing.T, start func(testing.TB, *Host) string, args ...string) *crew {
	t.Helper()
	hosts := newLAN(t, 4)
	c := &crew{t: t, hosts: hosts[:3], nodes: map[string]*Process{}}
	url := start(t, hosts[3])
	for i, host := range c.hosts {
		soak := "200ms"
		if i == 2 {
			soak = "1h"
		}
		g := startGateway(t, GatewayOptions{
			Name: fmt.Sprintf("gw%d", i+1), Registry: url, Host: host, Args: append([]string{"--rollout-soak", soak}, args...),
		})
		if i > 0 { // one port everywhere, as a fleet has it
			g.Port, g.Port2 = c.gateways[0].Port, c.gateways[0].Port2
		}
		c.gateways = append(c.gateways, g)
	}
	// A gateway counts once it has reported.
	c.gateways[0].Wait(20*time.Second, "all report", func(controlplane.Status) error {
		var all []controlplane.Status
		c.ask(c.gateways[0], &all, "status", "--all")
		if len(all) != 3 {
			return fmt.Errorf("%d report", len(all))
		}
		return nil
	})
	c.gateways[0].Apply(document(c.gateways[0].Port, "round_robin"))
	for _, id := range []string{"n1", "n2", "n3"} {
		c.nodes[id] = c.gateways[0].Register(id, startServer(t, hosts[3], id).Address)
	}
	c.live(40*time.Second, 3)
	for _, g := range c.gateways {
		c.loads = append(c.loads, startLoad(t, g.Addr(), LoadOptions{Pause: 10 * time.Millisecond, Far: true}))
	}
	return c
}

// ask runs a command and decodes what it answers.
func (c *crew) ask(g *Gateway, into any, args ...string) {
	c.t.Helper()
	text, err := g.CLI(c.t.Context(), "", append(args, "-o", "json")...)
	if err == nil {
		err = json.Unmarshal([]byte(text), into)
	}
	if err != nil {
		c.t.Fatal(err)
	}
}

// live waits until all gateways that run have everything live, with n nodes and the same revision.
func (c *crew) live(within time.Duration, n int) {
	c.t.Helper()
	eventually(c.t, within, "all gateways are in step", func(ctx context.Context) error {
		revisions := map[string]bool{}
		for _, g := range c.gateways {
			s, err := g.status(ctx)
			if err != nil {
				return err
			}
			if s.Phase != controlplane.InStep || s.SeqLive != s.SeqWanted || s.Nodes != n {
				return fmt.Errorf("%s: %s, seq %d of %d, %d nodes", g.Name, s.Phase, s.SeqLive, s.SeqWanted, s.Nodes)
			}
			revisions[s.RevisionLive] = true
		}
		if len(revisions) != 1 {
			return fmt.Errorf("revisions differ: %v", revisions)
		}
		return nil
	})
}

// change applies a document through a gateway, and returns the seq of its rollout.
func (c *crew) change(g *Gateway, document string) int64 {
	c.t.Helper()
	g.Apply(document)
	var list []api.Rollout
	c.ask(g, &list, "rollout", "list")
	if len(list) == 0 {
		c.t.Fatal("there is no rollout")
	}
	return int64(list[0].Seq)
}

// until waits until a rollout is as it should be.
func (c *crew) until(g *Gateway, seq int64, what string, holds func(api.Rollout) bool) api.Rollout {
	c.t.Helper()
	var r api.Rollout
	eventually(c.t, 40*time.Second, what, func(ctx context.Context) error {
		text, err := g.get(ctx, "/v1/rollouts/"+strconv.FormatInt(seq, 10))
		if err == nil {
			r = api.Rollout{}
			err = json.Unmarshal(text, &r)
		}
		if err != nil {
			return err
		}
		if !holds(r) {
			return fmt.Errorf("%+v", r)
		}
		return nil
	})
	return r
}

func (c *crew) noFailure() {
	c.t.Helper()
	for i, l := range c.loads {
		c.t.Logf("%s: %s", c.gateways[i].Name, l.WantNoFailure())
	}
}

// byState returns the gateways of a rollout that are in a state.
func byState(r api.Rollout, state api.RolloutGatewayState) (names []string) {
	for _, g := range r.Gateways {
		if g.State == state {
			names = append(names, g.Gateway)
		}
	}
	return names
}

// firstIsLive says that one gateway has the change, and the two others wait.
func firstIsLive(r api.Rollout) bool {
	return len(byState(r, "live")) == 1 && len(byState(r, "waits")) == 2
}

// rolloutStores start a registry on a host.
var rolloutStores = map[string]func(testing.TB, *Host) string{
	"etcd":   func(tb testing.TB, h *Host) string { return startEtcd(tb, h).URL },
	"consul": func(tb testing.TB, h *Host) string { return startConsul(tb, h).URL },
}

// A change reaches one gateway, then the others one by one; a node that leaves meanwhile is gone everywhere at once; when
// the instance dies whose gateway was first, the others go on.
func TestRollout(t *testing.T) {
	t.Parallel()
	for name, start := range rolloutStores {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			testRollout(t, startCrew(t, start))
		})
	}
}

func testRollout(t *testing.T, c *crew) {
	one, slow := c.gateways[0], c.gateways[2]
	changed := func(n int) string {
		return strings.Replace(document(one.Port, "round_robin"), "service: io", fmt.Sprintf("service: io, keepalive: {connections: %d}", n), 1)
	}
	began := time.Now()
	seq := c.change(one, changed(20))
	r := c.until(one, seq, "the rollout is done", func(r api.Rollout) bool { return r.State == registry.RolloutDone })
	waves := map[int]int{}
	for _, g := range r.Gateways {
		waves[g.Wave]++
	}
	if len(waves) != 3 || waves[1] != 1 {
		t.Errorf("waves: %+v", r.Gateways)
	}
	c.live(20*time.Second, 3)
	t.Logf("three waves took %s", time.Since(began).Round(100*time.Millisecond))

	// It stands after the first wave.
	seq = c.change(slow, changed(21))
	r = c.until(slow, seq, "one has it, two wait", firstIsLive)
	first := byState(r, "live")[0]
	for _, g := range c.gateways {
		s := g.Status()
		if waits := s.SeqLive < registry.Seq(seq); waits == (g.Name == first) {
			t.Errorf("%s, the first being %s, says that seq %d of %d is live", g.Name, first, s.SeqLive, seq)
		}
	}
	began = time.Now()
	c.nodes["n3"].Stop()
	for _, g := range c.gateways {
		g.WaitNodes(20*time.Second, 2)
	}
	t.Logf("the node was gone everywhere after %s", time.Since(began).Round(time.Millisecond))
	if r = c.until(slow, seq, "still one has it, two wait", firstIsLive); r.State != registry.RolloutRunning {
		t.Errorf("a node that left made it %s: %s", r.State, r.Message)
	}
	if _, err := slow.CLI(t.Context(), "", "rollout", "promote", strconv.FormatInt(seq, 10)); err != nil {
		t.Fatal(err)
	}
	c.live(20*time.Second, 2)

	// The instance dies whose gateway has it; its nginx serves on. A change that comes meanwhile goes after it.
	seq = c.change(slow, changed(22))
	r = c.until(slow, seq, "one has it, two wait", firstIsLive)
	dead := c.gateways[slices.IndexFunc(c.gateways, func(g *Gateway) bool { return g.Name == byState(r, "live")[0] })]
	dead.killSluice(t)
	alive := c.gateways[slices.IndexFunc(c.gateways, func(g *Gateway) bool { return g != dead })]
	if _, err := alive.CLI(t.Context(), "", "rollout", "abort", strconv.FormatInt(seq, 10)); err != nil {
		t.Fatal(err)
	}
	c.until(alive, seq, "the others take it back", func(r api.Rollout) bool { return r.State == registry.RolloutReverted })
	if out, err := alive.CLI(t.Context(), "", "get", "upstream", "io", "-o", "json"); err != nil || !strings.Contains(out, "21") {
		t.Errorf("the upstream was not put back: %v %s", err, out)
	}
	dead.Start()
	c.live(30*time.Second, 2)
	c.noFailure()
}

// killSluice ends sluice with SIGKILL, and leaves its nginx alone.
func (g *Gateway) killSluice(t *testing.T) {
	t.Helper()
	g.Kill()
	if len(g.Nginx()) == 0 {
		t.Errorf("the nginx of %s went with it", g.Name)
	}
}

// A gateway that can't have a change ends its rollout, and nobody else has tried it.
func TestRolloutIsTakenBack(t *testing.T) {
	t.Parallel()
	c := startCrew(t, rolloutStores["etcd"])
	one := c.gateways[0]
	before := map[string]string{}
	for _, g := range c.gateways {
		before[g.Name] = g.Status().RevisionLive
	}
	// nginx -t does not see that a port is taken on the host.
	for i, host := range c.hosts {
		env := []string{"HOST=0.0.0.0", "PORT=" + strconv.Itoa(one.Port2), "NODE_ID=squatter"}
		p := startProcess(t, fmt.Sprintf("squatter %d", i), env, append(host.Command(env...), "node", example+"/server.js")...)
		p.waitFor(20*time.Second, "listens")
	}
	site := strings.NewReplacer("chat:", "second:", strconv.Itoa(one.Port), strconv.Itoa(one.Port2)).Replace(document(one.Port, "round_robin"))
	seq := c.change(one, site)
	r := c.until(one, seq, "it is taken back", func(r api.Rollout) bool { return r.State == registry.RolloutReverted })
	if len(r.Gateways) != 1 || !strings.Contains(r.Message, "Address already in use") {
		t.Errorf("tried by %+v: %s", r.Gateways, r.Message)
	}
	if _, err := one.CLI(t.Context(), "", "get", "site", "second"); err == nil {
		t.Error("the site is still desired")
	}
	c.live(20*time.Second, 3)
	for _, g := range c.gateways {
		if s := g.Status(); s.RevisionLive != before[g.Name] || len(s.Problems) > 0 {
			t.Errorf("%s is not as before: %+v", g.Name, s)
		}
	}
	if out, err := one.CLI(t.Context(), "", "history"); err != nil || !strings.Contains(out, fmt.Sprintf("rollout of seq %d taken back", seq)) {
		t.Errorf("the history does not tell: %v\n%s", err, out)
	}
	c.noFailure()
}

// An instance that cannot try a change, as its gateway has no part in it, lets it through: it stops at the first gateway
// that would have it.
func TestRolloutStopsWhereNobodyTried(t *testing.T) {
	t.Parallel()
	hosts := newLAN(t, 4)
	url := startEtcd(t, hosts[3]).URL
	overrides := tempDir(t)
	original, err := os.ReadFile(filepath.Join(root, "templates", "site.conf.tmpl"))
	if err != nil {
		t.Fatal(err)
	}
	text := strings.Replace(string(original), "    server_name {{.}};", "    server_name {{.}};{{if eq . \"bad.example\"}} bogus on;{{end}}", 1)
	if err := os.WriteFile(filepath.Join(overrides, "site.conf.tmpl"), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	office := startGateway(t, GatewayOptions{Name: "office", Registry: url, Host: hosts[0], Args: []string{"--group", "office"}})
	c := &crew{t: t}
	for i, host := range hosts[1:3] {
		c.gateways = append(c.gateways, startGateway(t, GatewayOptions{
			Name: fmt.Sprintf("gw%d", i+1), Registry: url, Host: host, Args: []string{"--templates", overrides},
		}))
	}
	office.Wait(20*time.Second, "all report", func(controlplane.Status) error {
		var all []controlplane.Status
		if c.ask(office, &all, "status", "--all"); len(all) != 3 {
			return errors.New("not yet")
		}
		return nil
	})
	seq := c.change(office, strings.NewReplacer(`hosts: ["*"]`, `hosts: ["bad.example"]`).Replace(document(office.Port, "round_robin")))
	r := c.until(office, seq, "it is taken back", func(r api.Rollout) bool { return r.State == registry.RolloutReverted })
	if len(r.Gateways) != 1 || !strings.Contains(r.Message, `unknown directive "bogus"`) {
		t.Errorf("tried by %+v: %s", r.Gateways, r.Message)
	}
	if _, err := office.CLI(t.Context(), "", "get", "site", "chat"); err == nil {
		t.Error("the site is still desired")
	}
	c.gateways = append(c.gateways, office)
	for _, g := range c.gateways {
		g.WaitLive(20 * time.Second)
	}
}
