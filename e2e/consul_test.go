package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"sluice/controlplane"
	"sluice/internal/testport"
)

// Consul is a Consul server in a process of its own. Stop, or Kill, and Start can follow each other.
type Consul struct {
	*Process

	URL  string // as sluice takes it: consul://host:port
	data string // directory
	tb   testing.TB
	host *Host
	argv []string
}

// startConsul starts a Consul server, on host, or on this machine when it is nil, and waits until it has a leader.
func startConsul(tb testing.TB, host *Host) *Consul {
	tb.Helper()
	return startConsulWith(tb, host, nil)
}

// manager is the token of who may do everything with a Consul that has ACLs.
const manager = "11111111-2222-3333-4444-555555555555"

// startConsulWith adds settings to the server's, and has the test use the manager's token.
func startConsulWith(tb testing.TB, host *Host, settings map[string]any) *Consul {
	tb.Helper()
	port := testport.Free(tb)
	dir := tempDir(tb)
	config := map[string]any{
		"server": true, "bootstrap_expect": 1, "node_name": "e2e", "data_dir": filepath.Join(dir, "consul"), "log_level": "warn",
		"bind_addr": host.Address(), "client_addr": host.Address(), "leave_on_terminate": false, "disable_update_check": true,
		"performance": map[string]int{"raft_multiplier": 1},
		"ports": map[string]int{
			"http": port, "dns": -1, "grpc": -1, "grpc_tls": -1, "serf_wan": -1, "serf_lan": testport.Free(tb), "server": testport.Free(tb),
		},
	}
	maps.Copy(config, settings)
	text, err := json.Marshal(config)
	if err != nil {
		tb.Fatal(err)
	}
	file := filepath.Join(dir, "consul.json")
	if err := os.WriteFile(file, text, 0o600); err != nil {
		tb.Fatal(err)
	}
	c := &Consul{URL: "consul://" + host.Address() + ":" + strconv.Itoa(port), data: filepath.Join(dir, "consul"), tb: tb, host: host}
	c.argv = append(host.Command(), tool("consul"), "agent", "-config-file", file)
	c.Start()
	return c
}

// Start starts the server, for the first time or again with the data that it had, and waits until it is in its catalog.
func (c *Consul) Start() {
	c.tb.Helper()
	c.Process = startProcess(c.tb, "consul", nil, c.argv...)
	eventually(c.tb, 30*time.Second, "consul answers", func(ctx context.Context) error {
		nodes, err := c.call(ctx, http.MethodGet, "/v1/catalog/nodes", "")
		if err == nil && !strings.Contains(nodes, "e2e") {
			err = errors.New("its catalog is empty")
		}
		return err
	})
}

// Wipe deletes all that a server had which does not run.
func (c *Consul) Wipe() { wipe(c.tb, c.data) }

// Put sends body to Consul's own API, as its other users do, and returns the answer.
func (c *Consul) Put(path, body string) string {
	c.tb.Helper()
	answer, err := c.call(c.tb.Context(), http.MethodPut, path, body)
	if err != nil {
		c.tb.Fatal(err)
	}
	return answer
}

func (c *Consul) call(ctx context.Context, method, path, body string) (string, error) {
	req, err := http.NewRequestWithContext(ctx, method, "http://"+strings.TrimPrefix(c.URL, "consul://")+path, strings.NewReader(body))
	if err != nil {
		return "", err
	}
	req.Header.Set("X-Consul-Token", manager) // without ACLs, Consul does not look at it
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	var answer json.RawMessage
	if resp.StatusCode != http.StatusOK {
		return "", fmt.Errorf("%s: %s", path, resp.Status)
	}
	if err := json.NewDecoder(resp.Body).Decode(&answer); err != nil && resp.ContentLength != 0 {
		return "", err
	}
	return string(answer), nil
}

// The main path on Consul: nodes come, die, scale and leave under live WebSockets, and those that somebody else registered
// are served as well.
func TestConsulMainPath(t *testing.T) {
	t.Parallel()
	const ttl = 3 * time.Second
	consul := startConsul(t, nil)
	g := startGateway(t, GatewayOptions{Registry: consul.URL})
	g.Apply(document(g.Port, "round_robin"))
	nodes := g.StartNodes(3, "--ttl", ttl.String())
	fleet := openFleet(t, g.Addr(), 100)
	load := startLoad(t, g.Addr(), LoadOptions{Clients: 2})

	address := startServer(t, nil, "foreign").Address
	_, port, _ := strings.Cut(address, ":")
	consul.Put("/v1/agent/service/register", fmt.Sprintf(`{"Name": %q, "ID": "foreign", "Address": "127.0.0.1", "Port": %s}`, service, port))
	g.WaitNodes(20*time.Second, 4)
	consul.Put("/v1/agent/service/deregister/foreign", "")
	g.WaitNodes(20*time.Second, 3)

	killed := time.Now()
	nodes[2].Kill()
	g.WaitNodes(ttl+5*time.Second, 2)
	t.Logf("killed with -9: out after %s, with a ttl of %s", time.Since(killed).Round(10*time.Millisecond), ttl)

	for i := range 3 {
		g.StartNode(fmt.Sprintf("more%d", i))
	}
	g.WaitNodes(20*time.Second, 5)
	nodes[1].Leave()
	g.WaitNodes(20*time.Second, 4)
	<-nodes[1].Done()
	fleet.WantAlive("n2", "n3")
	t.Logf("request loop: %s", load.WantNoFailure())
}

// A token that is not good for anything any more takes nothing away: what was known stands, and goes on when it is again.
func TestConsulTokenRevoked(t *testing.T) {
	t.Parallel()
	consul := startConsulWith(t, nil, map[string]any{"acl": map[string]any{
		"enabled": true, "default_policy": "deny", "tokens": map[string]string{"initial_management": manager, "agent": manager},
	}})
	const rules = `key_prefix \"sluice/default/\" { policy = \"write\" } service_prefix \"\" { policy = \"write\" } ` +
		`node_prefix \"\" { policy = \"read\" } agent_prefix \"\" { policy = \"read\" } session_prefix \"\" { policy = \"write\" }`
	var policy struct{ ID string }
	eventually(t, 30*time.Second, "the manager's token is there", func(ctx context.Context) error {
		answer, err := consul.call(ctx, http.MethodPut, "/v1/acl/policy", `{"Name": "sluice", "Rules": "`+rules+`"}`)
		if err != nil {
			return err
		}
		return json.Unmarshal([]byte(answer), &policy)
	})
	allow := func(rules string) {
		consul.Put("/v1/acl/policy/"+policy.ID, `{"Name": "sluice", "Rules": "`+rules+`"}`)
	}
	var token struct{ SecretID string }
	if err := json.Unmarshal([]byte(consul.Put("/v1/acl/token", `{"Policies": [{"ID": "`+policy.ID+`"}]}`)), &token); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(tempDir(t), "token")
	if err := os.WriteFile(file, []byte(token.SecretID), 0o600); err != nil {
		t.Fatal(err)
	}
	g := startGateway(t, GatewayOptions{Registry: consul.URL, Args: []string{"--consul-token-file", file}})
	g.Apply(document(g.Port, "ip_hash"))
	g.StartNodes(3)
	fleet := openFleet(t, g.Addr(), 20)
	load := startLoad(t, g.Addr(), LoadOptions{Pause: 20 * time.Millisecond})

	allow("")
	g.Wait(time.Minute, "it is told", func(s controlplane.Status) error {
		if s.Registry.Connected || !strings.Contains(s.Registry.Error, "403") {
			return fmt.Errorf("%+v", s.Registry)
		}
		return nil
	})
	pause(t, outageLength(t))
	if s := g.Status(); s.Nodes != 3 || s.Phase != controlplane.InStep {
		t.Errorf("without rights: %d nodes, %s", s.Nodes, s.Phase)
	}
	allow(rules)
	back := time.Now()
	g.StartNode("n4")
	g.WaitNodes(60*time.Second, 4)
	t.Logf("a node that came after the rights are back is live %s after them", time.Since(back).Round(10*time.Millisecond))
	fleet.WantAlive()
	t.Logf("request loop: %s", load.WantNoFailure())
}
