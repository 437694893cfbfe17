//go:build bench

package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/coder/websocket"
	"golang.org/x/sync/errgroup"

	"sluice/internal/testport"
	"sluice/registry"
	"sluice/registry/etcd"
)

// The churn: so many services of so many nodes, of which one comes or goes so often a second, for so long.
const (
	churnServices = 1000
	churnNodes    = 10
	churnRate     = 50
	churnTime     = time.Minute
)

// cloud is the nodes of the churn: one server, at an address of its own for each node.
type cloud struct {
	tb    testing.TB
	port  int
	last  int // the number of the newest node
	nodes [][]registry.Node
	rng   *rand.Rand
}

func churnService(i int) string { return fmt.Sprintf("s%03d", i) }

func newCloud(tb testing.TB) *cloud {
	tb.Helper()
	c := &cloud{tb: tb, port: testport.Free(tb), rng: rand.New(rand.NewPCG(1, 2))}
	listener, err := net.Listen("tcp4", "0.0.0.0:"+strconv.Itoa(c.port))
	if err != nil {
		tb.Fatal(err)
	}
	server := &http.Server{ReadHeaderTimeout: time.Minute, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.URL.Path, "/ws") {
			hold(w, r)
			return
		}
		host, _, _ := net.SplitHostPort(r.Context().Value(http.LocalAddrContextKey).(net.Addr).String())
		fmt.Fprintf(w, `{"node":%q}`, host)
	})}
	go func() { _ = server.Serve(listener) }()
	tb.Cleanup(func() { _ = server.Close() })
	for i := range churnServices {
		c.nodes = append(c.nodes, nil)
		for range churnNodes {
			c.add(i)
		}
	}
	return c
}

// add makes a node of the i-th service.
func (c *cloud) add(i int) registry.Node {
	c.last++
	n := registry.Node{
		Service: churnService(i), ID: "n" + strconv.Itoa(c.last), Port: c.port,
		Address: fmt.Sprintf("127.%d.%d.%d", 1+c.last/62_500, c.last/250%250, 1+c.last%250),
	}
	c.nodes[i] = append(c.nodes[i], n)
	return n
}

// change makes a node come or go.
func (c *cloud) change() (i int, n registry.Node, come bool) {
	i = c.rng.IntN(churnServices)
	if nodes := c.nodes[i]; len(nodes) > churnNodes/2 && (len(nodes) >= 2*churnNodes || c.rng.IntN(2) == 0) {
		at := c.rng.IntN(len(nodes))
		n = nodes[at]
		c.nodes[i] = slices.Delete(nodes, at, at+1)
		return i, n, false
	}
	return i, c.add(i), true
}

// all returns all nodes.
func (c *cloud) all() []registry.Node { return slices.Concat(c.nodes...) }

// consulTx is a transaction of Consul's that makes nodes come or go, in its catalog.
func consulTx(nodes []registry.Node, come bool) string {
	verb := map[bool]string{true: "set", false: "delete"}[come]
	var ops []map[string]any
	for _, n := range nodes {
		ops = append(ops, map[string]any{"Service": map[string]any{"Verb": verb, "Node": "edge", "Service": map[string]any{
			"ID": n.Service + "-" + n.ID, "Service": n.Service, "Address": n.Address, "Port": n.Port,
		}}})
	}
	text, _ := json.Marshal(ops)
	return string(text)
}

// side is one of those that are measured.
type side struct {
	name    string
	control int // the process that keeps nginx
	master  int // of nginx
	addr    string
	send    func(n registry.Node, come bool) error
}

// benchChurn measures what it costs to keep 1,000 services in step while 50 nodes a second come and go under live WebSockets.
func benchChurn(t *testing.T, r *report) {
	var results []churned
	for _, start := range []struct {
		name  string
		start func(*testing.T, *cloud) side
	}{
		{"consul-template", func(t *testing.T, c *cloud) side { return churnTemplate(t, c) }},
		{"consul-template -wait 5s:10s", func(t *testing.T, c *cloud) side { return churnTemplate(t, c, "-wait", "5s:10s") }},
		{"sluice", func(t *testing.T, c *cloud) side { return churnSluice(t, c, true, "") }},
		{"sluice, check none", func(t *testing.T, c *cloud) side { return churnSluice(t, c, true, ", check: {type: none}") }},
		{"sluice on etcd", func(t *testing.T, c *cloud) side { return churnSluice(t, c, false, "") }},
	} {
		t.Run(start.name, func(t *testing.T) {
			c := newCloud(t)
			s := start.start(t, c)
			s.name = start.name
			results = append(results, s.churn(t, c))
			t.Log(results[len(results)-1])
		})
	}
	for _, what := range churnRows {
		for i, result := range results {
			beside := ""
			if base := what.value(results[0]); i > 0 && base > 0 {
				beside = fmt.Sprintf("%.2f of consul-template", what.value(result)/base)
			}
			r.add("churn, "+what.name+": "+result.name, fmt.Sprintf(what.format, what.value(result)), beside, what.aim(i))
		}
	}
}

// churned is what the churn cost.
type churned struct {
	name             string
	reloads, workers int
	nginxMemory      int64 // the most, in bytes (PSS)
	nginxCPU         time.Duration
	controlCPU       time.Duration // with that of nginx -t
	controlMemory    int64         // the most, in bytes (RSS)
	right            time.Duration // from the last change until all is right
	dropped          int
	sockets          int
}

type churnRow struct {
	name, format string
	value        func(churned) float64
}

func (r churnRow) aim(i int) string {
	if i < 2 {
		return ""
	}
	return "less"
}

var churnRows = []churnRow{
	{"reloads", "%.0f", func(c churned) float64 { return float64(c.reloads) }},
	{"most workers of nginx", "%.0f", func(c churned) float64 { return float64(c.workers) }},
	{"most memory of nginx", "%.0f MB", func(c churned) float64 { return float64(c.nginxMemory) / (1 << 20) }},
	{"CPU of nginx", "%.1f s", func(c churned) float64 { return c.nginxCPU.Seconds() }},
	{"CPU of the controller", "%.1f s", func(c churned) float64 { return c.controlCPU.Seconds() }},
	{"most memory of the controller", "%.0f MB", func(c churned) float64 { return float64(c.controlMemory) / (1 << 20) }},
	{"until all is right", "%.1f s", func(c churned) float64 { return c.right.Seconds() }},
	{"dropped WebSockets", "%.0f", func(c churned) float64 { return float64(c.dropped) }},
}

// churnTemplate has consul-template keep a configuration as simple as can be.
func churnTemplate(t *testing.T, c *cloud, args ...string) side {
	consul := churnConsul(t, c)
	p := startTemplate(t, consul, func(port int) string {
		return fmt.Sprintf(`
	map $http_upgrade $connection_header { default upgrade; '' ''; }
	{{range services}}{{if .Name | regexMatch "^s[0-9]+$"}}
	upstream {{.Name}} { {{range service .Name}}server {{.Address}}:{{.Port}} max_fails=3 fail_timeout=5s; {{end}} keepalive 32; }{{end}}{{end}}
	server {
		listen %d;
		proxy_http_version 1.1;
		proxy_set_header Host $host;
		proxy_set_header Upgrade $http_upgrade;
		proxy_set_header Connection $connection_header;
		proxy_read_timeout 3600s;
		{{range services}}{{if .Name | regexMatch "^s[0-9]+$"}}
		location /{{.Name}}/ { proxy_pass http://{{.Name}}; }{{end}}{{end}}
	}`, port)
	}, args...)
	return side{control: p.PID(), master: p.nginx.PID(), addr: p.nginx.Addr(), send: consul.send}
}

// churnConsul starts a Consul that has the nodes. consul-template watches each service over a connection of its own.
func churnConsul(t *testing.T, c *cloud) *Consul {
	consul := startConsulWith(t, nil, map[string]any{"limits": map[string]int{"http_max_conns_per_client": 5000}})
	// Not the agent's own node, which would forget what it does not know.
	consul.Put("/v1/txn", `[{"Node": {"Verb": "set", "Node": {"Node": "edge", "Address": "127.0.0.1"}}}]`)
	for nodes := range slices.Chunk(c.all(), 60) {
		consul.Put("/v1/txn", consulTx(nodes, true))
	}
	return consul
}

func (c *Consul) send(n registry.Node, come bool) error {
	_, err := c.call(c.tb.Context(), http.MethodPut, "/v1/txn", consulTx([]registry.Node{n}, come))
	return err
}

// churnSluice has sluice do the same; more is what else the upstreams say.
func churnSluice(t *testing.T, c *cloud, onConsul bool, more string) side {
	var url string
	var s side
	if onConsul {
		consul := churnConsul(t, c)
		url, s.send = consul.URL, consul.send
	} else {
		server := startEtcd(t, nil)
		url = server.URL
		client, err := etcd.New(t.Context(), etcd.Config{Endpoints: []string{"http://" + url[len("etcd://"):]}, Logger: slog.New(slog.DiscardHandler)})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = client.Close() })
		s.send = func(n registry.Node, come bool) error {
			if come {
				return client.Put(t.Context(), n, time.Hour)
			}
			return client.Remove(t.Context(), n.Ref())
		}
		var group errgroup.Group
		group.SetLimit(20)
		for _, n := range c.all() {
			group.Go(func() error { return s.send(n, true) })
		}
		if err := group.Wait(); err != nil {
			t.Fatal(err)
		}
	}
	g := startGateway(t, GatewayOptions{Registry: url, Args: []string{"--worker-processes", "2", "--worker-connections", "4096"}})
	var site strings.Builder
	fmt.Fprintf(&site, "sites:\n  churn:\n    hosts: [\"*\"]\n    accessLog: false\n    listeners: [{port: %d}]\n    routes:\n", g.Port)
	var upstreams strings.Builder
	for i := range churnServices {
		if upstreams.Len() == 0 {
			upstreams.WriteString("upstreams:\n")
		}
		fmt.Fprintf(&upstreams, "  %s: {balance: {method: round_robin}%s}\n", churnService(i), more)
		fmt.Fprintf(&site, "      - {path: /%s/, kind: websocket, upstream: %s}\n", churnService(i), churnService(i))
		if i%100 == 99 {
			g.Apply(upstreams.String())
			upstreams.Reset()
		}
	}
	g.Apply(site.String())
	g.WaitNodes(time.Minute, churnServices*churnNodes)
	s.control, s.addr = g.PID(), g.Addr()
	for _, pid := range g.Nginx() {
		if title, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid)); strings.Contains(string(title), "master") {
			s.master = pid
		}
	}
	return s
}

// churn makes the changes and measures what they cost.
func (s side) churn(t *testing.T, c *cloud) churned {
	s.untilRight(t, c, []int{0, churnServices / 2, churnServices - 1})
	result := churned{name: s.name}
	var ended atomic.Int64
	sockets := func(n int) {
		for range n {
			result.sockets++
			s.openSocket(t, c.rng.IntN(churnServices), &ended)
		}
	}
	sockets(100)

	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var watching sync.WaitGroup
	watching.Go(func() { result.watch(ctx, s.master) })
	control, nginx := cpu(s.control), nginxCPU(s.master)

	changes := time.NewTicker(time.Second / churnRate)
	defer changes.Stop()
	var touched []int
	for made := range int(churnTime / time.Second * churnRate) {
		<-changes.C
		i, n, come := c.change()
		touched = append(touched, i)
		if err := s.send(n, come); err != nil {
			t.Fatalf("a change: %v", err)
		}
		if made%churnRate == 0 { // so that each generation of workers has sockets to keep
			sockets(2)
		}
	}
	last := time.Now()
	slices.Reverse(touched)
	s.untilRight(t, c, touched[:min(len(touched), 20)])
	result.right = time.Since(last)
	result.controlCPU, result.nginxCPU = cpu(s.control)-control, nginxCPU(s.master)-nginx
	result.controlMemory = status(s.control, "VmHWM")
	stop()
	watching.Wait()
	result.dropped = int(ended.Load())
	return result
}

// openSocket opens a WebSocket to a service, and counts it when it ends before the test does.
func (s side) openSocket(t *testing.T, service int, ended *atomic.Int64) {
	t.Helper()
	conn, _, err := websocket.Dial(t.Context(), "ws://"+s.addr+"/"+churnService(service)+"/ws", nil)
	if err != nil {
		t.Errorf("open a WebSocket: %v", err)
		return
	}
	if _, _, err := conn.Read(t.Context()); err != nil {
		t.Errorf("open a WebSocket: %v", err)
		return
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		if _, _, err := conn.Read(ctx); ctx.Err() == nil {
			ended.Add(1)
			t.Logf("a WebSocket ended: %v", err)
		}
	}()
	t.Cleanup(func() {
		cancel()
		<-done
		_ = conn.CloseNow()
	})
}

// untilRight waits until services answer with all of their nodes, and with no other.
func (s side) untilRight(t *testing.T, c *cloud, services []int) {
	t.Helper()
	deadline := time.Now().Add(2 * time.Minute)
	for _, i := range services {
		want := map[string]bool{}
		for _, n := range c.nodes[i] {
			want[n.Address] = true
		}
		for !s.right(churnService(i), want) {
			if time.Now().After(deadline) {
				t.Fatalf("%s is not right", churnService(i))
			}
			pause(t, 20*time.Millisecond)
		}
	}
}

// right says whether a service is served by the nodes that it has. Each worker goes round by itself, or all together.
func (s side) right(service string, want map[string]bool) bool {
	seen := map[string]bool{}
	c := &client{addr: s.addr, dialer: dialerFrom(0), path: "/" + service + "/whoami"}
	for range 8 * len(want) {
		node, err := c.request()
		if err != nil || !want[node] {
			return false
		}
		seen[node] = true
	}
	return len(seen) == len(want)
}

// watch notes the most that nginx takes, and its reloads, until ctx ends.
func (r *churned) watch(ctx context.Context, master int) {
	known := map[int]bool{}
	for _, pid := range children(master) {
		known[pid] = true
	}
	each := len(known)
	fresh := 0
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for round := 0; ; round++ {
		select {
		case <-ctx.Done():
			r.reloads = fresh / max(each, 1)
			return
		case <-tick.C:
		}
		workers := children(master)
		r.workers = max(r.workers, len(workers))
		for _, pid := range workers {
			if !known[pid] {
				known[pid] = true
				fresh++
			}
		}
		if round%40 == 0 { // to add up the pages of many workers takes its time
			memory := pss(master)
			for _, pid := range workers {
				memory += pss(pid)
			}
			r.nginxMemory = max(r.nginxMemory, memory)
		}
	}
}

// cpu returns the time that a process took, with that of its children that have ended.
func cpu(pid int) time.Duration {
	text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	_, after, _ := strings.Cut(string(text), ") ")
	fields := strings.Fields(after)
	var ticks int
	for i := 11; i < 15 && i < len(fields); i++ { // utime, stime, cutime, cstime
		n, _ := strconv.Atoi(fields[i])
		ticks += n
	}
	return time.Duration(ticks) * 10 * time.Millisecond
}

func nginxCPU(master int) time.Duration {
	sum := cpu(master)
	for _, pid := range children(master) {
		sum += cpu(pid)
	}
	return sum
}

// status returns a size in bytes from a process's status.
func status(pid int, field string) int64 { return size(fmt.Sprintf("/proc/%d/status", pid), field) }

// pss returns the memory of a process, with its share of what others have too.
func pss(pid int) int64 { return size(fmt.Sprintf("/proc/%d/smaps_rollup", pid), "Pss") }

func size(file, field string) int64 {
	text, _ := os.ReadFile(file)
	_, after, _ := strings.Cut(string(text), field+":")
	fields := strings.Fields(after)
	if len(fields) == 0 {
		return 0
	}
	kb, _ := strconv.ParseInt(fields[0], 10, 64)
	return kb << 10
}
