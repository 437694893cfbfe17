package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"sluice/api"
	"sluice/controlplane"
)

// twoGroups is what two gateways of two groups serve: each its own site, with an upstream of the same nodes.
const twoGroups = `
upstreams:
  io: {service: io, balance: {method: round_robin}}
  inside: {service: io, balance: {method: round_robin}}
sites:
  chat:
    hosts: ["*"]
    listeners: [{port: %d}]
    routes: [{path: /socket.io/, kind: socketio, upstream: io}]
  inside:
    groups: [internal]
    hosts: ["*"]
    listeners: [{port: %d}]
    routes: [{path: /socket.io/, kind: socketio, upstream: inside}]
`

// The sockets that gateways count on their nodes are those that clients have opened, before and after a reload, and a dry run
// tells of each gateway how many of them a change touches.
func TestSocketsAreCountedAndForetold(t *testing.T) {
	t.Parallel()
	url := startEtcd(t, nil).URL
	edge := startGateway(t, GatewayOptions{Name: "edge", Registry: url})
	inner := startGateway(t, GatewayOptions{Name: "inner", Registry: url, Args: []string{"--group", "internal"}})
	edge.Apply(fmt.Sprintf(twoGroups, edge.Port, inner.Port))
	edge.StartNodes(3)
	inner.WaitNodes(20*time.Second, 3)

	clients := startClients(t, nil)
	opened := map[*Gateway]map[string]int{}
	for g, n := range map[*Gateway]int{edge: 14, inner: 5} {
		opened[g] = map[string]int{}
		for i := range n {
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
			session, err := clients.Open(ctx, fmt.Sprint(g.Name, i), ClientOptions{URL: g.URL(), Transports: websocketOnly})
			cancel()
			if err != nil {
				t.Fatal(err)
			}
			opened[g][service+"/"+session.Node]++
		}
	}
	counted := func(old bool) {
		t.Helper()
		for g, want := range opened {
			g.Wait(20*time.Second, "the sockets are counted", func(s controlplane.Status) error {
				total := 0
				for _, n := range want {
					total += n
				}
				if s.Sockets == nil || !maps.Equal(s.Sockets.Nodes, want) || s.Sockets.Total != total || s.Upstreams[0].Sockets != total || (s.Sockets.Old == total) != old {
					return fmt.Errorf("%+v, want %v", s.Sockets, want)
				}
				return nil
			})
		}
	}
	counted(false)
	t.Logf("opened: %v through edge, %v through inner", opened[edge], opened[inner])
	of := func(g *Gateway) int { return opened[g]["io/n1"] }
	all := func(g *Gateway) int { return opened[g]["io/n1"] + opened[g]["io/n2"] + opened[g]["io/n3"] }

	// What the other gateway has open is in its report.
	eventually(t, 20*time.Second, "the other gateway has reported its sockets", func(ctx context.Context) error {
		var s controlplane.Status
		text, err := edge.CLI(ctx, "", "status", inner.Name, "-o", "json")
		if err == nil {
			err = json.Unmarshal([]byte(text), &s)
		}
		if err == nil && (s.Sockets == nil || !maps.Equal(s.Sockets.Nodes, opened[inner])) {
			err = fmt.Errorf("it reports %+v", s.Sockets)
		}
		return err
	})
	out, err := edge.CLI(t.Context(), "", "get", "node/io/n1")
	if fields := strings.Fields(out); err != nil || fields[len(fields)-1] != fmt.Sprint(of(edge)+of(inner)) {
		t.Errorf("get node/io/n1 (%v):\n%s", err, out)
	}
	if out, err := edge.CLI(t.Context(), "", "why", "io/n1"); err != nil || !strings.Contains(out, fmt.Sprintf("%d sockets", of(edge))) {
		t.Errorf("why io/n1 (%v):\n%s", err, out)
	}

	foretold := func(path, body string, want ...controlplane.Forecast) {
		t.Helper()
		preview := edge.dryRun(path, body)
		if !slices.EqualFunc(preview.Gateways, want, func(got, want controlplane.Forecast) bool {
			return got.Gateway == want.Gateway && got.How == want.How && got.Tested == want.Tested && got.Leave == want.Leave && got.Doubt == "" &&
				slices.Equal(got.Objects, want.Objects) && got.Sockets != nil && *got.Sockets == *want.Sockets
		}) {
			text, _ := json.Marshal(preview.Gateways) // for the message only
			t.Errorf("%s: %s", path, text)
		}
	}
	before := edge.Status()
	foretold("/v1/overrides/io/n1", `{"state": "disabled"}`,
		controlplane.Forecast{Gateway: "edge", How: controlplane.Reload, Tested: true, Leave: 1, Objects: []string{"upstream/io"},
			Sockets: &controlplane.Touched{Leaving: of(edge), Retiring: all(edge)}},
		controlplane.Forecast{Gateway: "inner", How: controlplane.Reload, Leave: 1, Objects: []string{"upstream/inside"},
			Sockets: &controlplane.Touched{Leaving: of(inner), Retiring: all(inner)}})
	foretold("/v1/sites/chat", fmt.Sprintf(`{"hosts": ["chat.example"], "listeners": [{"port": %d}], "routes": [{"path": "/socket.io/", "upstream": "io"}]}`, edge.Port),
		controlplane.Forecast{Gateway: "edge", How: controlplane.Reload, Tested: true, Objects: []string{"site/chat"},
			Sockets: &controlplane.Touched{Retiring: all(edge)}},
		controlplane.Forecast{Gateway: "inner", How: controlplane.Nothing, Sockets: &controlplane.Touched{}})
	if after := edge.Status(); after.SeqWanted != before.SeqWanted || after.RevisionLive != before.RevisionLive {
		t.Errorf("a dry run changed something: %+v", after)
	}

	// And so it comes: every socket lives on, in an old generation.
	edge.Apply("overrides: {io/n1: {state: disabled}}")
	edge.WaitNodes(20*time.Second, 2)
	inner.WaitNodes(20*time.Second, 2)
	counted(true)
	foretold("/v1/overrides/io/n1", `{"state": "draining"}`, // it is out already
		controlplane.Forecast{Gateway: "edge", How: controlplane.Nothing, Tested: true, Sockets: &controlplane.Touched{}},
		controlplane.Forecast{Gateway: "inner", How: controlplane.Nothing, Sockets: &controlplane.Touched{}})
	if ended := clients.Ended(); len(ended) > 0 {
		t.Errorf("sessions have ended: %v", ended)
	}
}

// dryRun tells what it would do to write an object.
func (g *Gateway) dryRun(path, body string) api.Preview {
	g.tb.Helper()
	req, err := http.NewRequestWithContext(g.tb.Context(), http.MethodPut, g.API+path+"?dryRun=true", strings.NewReader(body))
	if err != nil {
		g.tb.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		g.tb.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		g.tb.Fatal(err)
	}
	var result api.ChangeResult
	if err := json.Unmarshal(text, &result); err != nil || result.Preview == nil {
		g.tb.Fatalf("PUT %s: %s: %v: %s", path, resp.Status, err, text)
	}
	return *result.Preview
}
