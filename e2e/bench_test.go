//go:build bench

package e2e

import (
	"crypto/tls"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/coder/websocket"

	"sluice/controlplane"
	"sluice/internal/testport"
	"sluice/registry"
	"sluice/templates"
)

// report is the table that make bench prints: what, how much, beside what, and the aim.
type report struct {
	rows [][4]string
}

func (r *report) add(what, have, beside, aim string) {
	r.rows = append(r.rows, [4]string{what, have, beside, aim})
}

func (r *report) String() string {
	rows := append([][4]string{{"what", "measured", "beside", "aim"}}, r.rows...)
	var width [4]int
	for _, row := range rows {
		for i, cell := range row {
			width[i] = max(width[i], len([]rune(cell)))
		}
	}
	var b strings.Builder
	for _, row := range rows {
		b.WriteByte('\n')
		for i, cell := range row {
			b.WriteString(cell + strings.Repeat(" ", width[i]-len([]rune(cell))+2))
		}
	}
	return b.String()
}

// TestBench measures, prints one table, and fails nothing that it measures: machines are noisy, ratios of one run less so.
func TestBench(t *testing.T) {
	r := &report{}
	defer func() { t.Log(r) }()
	for _, part := range []struct {
		name  string
		bench func(*testing.T, *report)
	}{
		{"propagation", benchPropagation}, {"beside", benchBeside}, {"churn", benchChurn}, {"compile", benchCompile}, {"throughput", benchThroughput},
		{"websockets", benchWebSockets}, {"idle", benchIdle}, {"api", benchAPI}, {"beats", benchBeats},
	} {
		t.Run(part.name, func(t *testing.T) { part.bench(t, r) })
	}
}

// backend is a node inside the test: it answers every request with its id.
func backend(tb testing.TB, id string) (port int) {
	tb.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:"+strconv.Itoa(testport.Free(tb)))
	if err != nil {
		tb.Fatal(err)
	}
	body := fmt.Sprintf(`{"node":%q}`, id)
	server := &http.Server{ReadHeaderTimeout: time.Minute, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/ws" {
			hold(w, r)
			return
		}
		_, _ = w.Write([]byte(body))
	})}
	go func() { _ = server.Serve(listener) }()
	tb.Cleanup(func() { _ = server.Close() })
	return listener.Addr().(*net.TCPAddr).Port
}

// hold accepts a WebSocket and keeps it until the client goes.
func hold(w http.ResponseWriter, r *http.Request) {
	conn, err := websocket.Accept(w, r, nil)
	if err != nil {
		return
	}
	defer conn.CloseNow() //nolint:errcheck // it is gone
	if err := conn.Write(r.Context(), websocket.MessageText, []byte("held")); err != nil {
		return
	}
	_, _, _ = conn.Read(r.Context())
}

// firstAnswer makes requests, each on a fresh connection, until node answers, and returns how long that took.
func firstAnswer(tb testing.TB, addr, node string) time.Duration {
	tb.Helper()
	started := time.Now()
	c := &client{addr: addr, dialer: dialerFrom(0)}
	for time.Since(started) < 20*time.Second {
		if got, err := c.request(); err == nil && got == node {
			return time.Since(started)
		}
	}
	tb.Fatalf("%s did not answer within 20 s", node)
	return 0
}

func median(list []time.Duration) time.Duration {
	slices.Sort(list)
	return list[len(list)/2]
}

const rounds = 15

// benchPropagation measures from a committed registration to the first answer of the new node, after a calm.
func benchPropagation(t *testing.T, r *report) {
	first, second := backend(t, "first"), backend(t, "second")

	bare := startBareNginx(t, proxyTo("127.0.0.1:"+strconv.Itoa(first)))
	reload := func(ports ...int) {
		var servers strings.Builder
		for _, p := range ports {
			fmt.Fprintf(&servers, "server 127.0.0.1:%d; ", p)
		}
		bare.Write(strings.Replace(proxyTo("X")(bare.Port), "server X;", servers.String(), 1))
		if out, err := exec.Command("/usr/sbin/nginx", "-t", "-q", "-p", filepath.Dir(bare.Conf), "-e", "stderr", "-c", bare.Conf).CombinedOutput(); err != nil {
			t.Fatalf("nginx -t: %v: %s", err, out)
		}
		bare.Signal(syscall.SIGHUP)
	}
	var floor []time.Duration
	for range rounds {
		pause(t, 1500*time.Millisecond)
		started := time.Now()
		reload(first, second)
		firstAnswer(t, bare.Addr(), "second")
		floor = append(floor, time.Since(started))
		pause(t, 1500*time.Millisecond)
		reload(first)
	}
	base := median(floor)
	r.add("nginx -t + HUP + first new answer, by hand", ms(base), "", "")

	// The same workers: nginx takes its time to prepare connections, and sluice's default is four times as many.
	workers := []string{"--worker-processes", "2", "--worker-connections", "4096"}
	for _, method := range []string{"round_robin", "ip_hash"} {
		g := startGateway(t, GatewayOptions{Args: workers})
		g.Apply(document(g.Port, method))
		g.putNode("first", first, true)
		g.WaitNodes(10*time.Second, 1)
		var ours []time.Duration
		for range rounds {
			pause(t, 2500*time.Millisecond)
			g.putNode("second", second, true)
			ours = append(ours, firstAnswerFromAny(t, g.Addr(), "second"))
			pause(t, 1500*time.Millisecond)
			g.putNode("second", second, false)
			g.WaitNodes(20*time.Second, 1)
		}
		r.add("registration to first answer, "+method, ms(median(ours)), ratio(median(ours), base)+" of by hand", "1.3")
		g.Stop()
	}
}

// firstAnswerFromAny is firstAnswer with clients from many addresses, since ip_hash sends each to one node.
func firstAnswerFromAny(tb testing.TB, addr, node string) time.Duration {
	tb.Helper()
	started := time.Now()
	for i := 0; time.Since(started) < 20*time.Second; i++ {
		c := &client{addr: addr, dialer: dialerFrom(i % 50)}
		if got, err := c.request(); err == nil && got == node {
			return time.Since(started)
		}
	}
	tb.Fatalf("%s did not answer within 20 s", node)
	return 0
}

// benchCompile measures Compile and Render of 10,000 nodes in 100 upstreams.
func benchCompile(t *testing.T, r *report) {
	var s registry.Snapshot
	for u := range 100 {
		name := fmt.Sprintf("u%02d", u)
		s.Objects = append(s.Objects,
			registry.Object{Kind: registry.KindUpstream, Name: name, Seq: 1, Value: []byte(`{"balance": {"method": "least_conn"}}`)},
			registry.Object{Kind: registry.KindSite, Name: name, Seq: 1, Value: fmt.Appendf(nil,
				`{"hosts": ["%s.example.com"], "listeners": [{"port": 8080}], "routes": [{"upstream": %q}]}`, name, name)})
		for n := range 100 {
			s.Nodes = append(s.Nodes, registry.Node{Service: name, ID: fmt.Sprintf("n%02d", n), Address: fmt.Sprintf("10.0.%d.%d", u, n), Port: 6001})
		}
	}
	set, err := templates.New("")
	if err != nil {
		t.Fatal(err)
	}
	facts := controlplane.Facts{Group: "default", Rendering: controlplane.Rendering{
		AccessLog: "logs/access.log", Capabilities: templates.Capabilities{Realip: true, SSL: true},
	}}
	result := testing.Benchmark(func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			compiled := controlplane.Compile(s, controlplane.Good{}, facts)
			if _, err := set.Render(compiled.Config); err != nil || compiled.Nodes != 10_000 {
				b.Fatalf("%d nodes: %v", compiled.Nodes, err)
			}
		}
	})
	r.add("Compile + Render of 10,000 nodes", ms(time.Duration(result.NsPerOp())), fmt.Sprintf("%d MB allocated", result.AllocedBytesPerOp()>>20), "150 ms, 100 MB")
}

// benchThroughput compares requests a second through the rendered configuration and a minimal one, in turns. The node is
// an nginx too: a slower one would measure how long it takes to read the headers that tell it about the client.
func benchThroughput(t *testing.T, r *report) {
	node := startBareNginx(t, func(port int) string {
		return fmt.Sprintf("\tserver { listen %d; location / { return 200 '{\"node\":\"one\"}'; } }", port)
	})
	port := node.Port
	bare := startBareNginx(t, proxyTo("127.0.0.1:"+strconv.Itoa(port)))
	g := startGateway(t, GatewayOptions{Args: []string{"--worker-processes", "2"}})
	g.Apply(strings.Replace(document(g.Port, "round_robin"), "listeners:", "accessLog: false\n    listeners:", 1))
	g.putNode("one", port, true)
	g.WaitNodes(10*time.Second, 1)
	measure := func(addr string) float64 {
		load := startLoad(t, addr, LoadOptions{Clients: 8, KeepAlive: true, Pause: time.Microsecond})
		pause(t, 2*time.Second)
		started := load.Tally().Requests
		from := time.Now()
		pause(t, 3*time.Second)
		return float64(load.Stop().Requests-started) / time.Since(from).Seconds()
	}
	var ratios, ours []float64
	for range 5 {
		a, b := measure(bare.Addr()), measure(g.Addr())
		ours, ratios = append(ours, b), append(ratios, b/a)
	}
	slices.Sort(ours)
	slices.Sort(ratios)
	r.add("requests a second", fmt.Sprintf("%.0f", ours[2]), fmt.Sprintf("%.2f of a minimal configuration", ratios[2]), "0.97")
}

// benchWebSockets measures the memory of nginx's workers per idle WebSocket.
func benchWebSockets(t *testing.T, r *report) {
	const sockets = 3000
	dir := tempDir(t)
	writePair(t, dir, 1)
	port := backend(t, "one")
	g := startGateway(t, GatewayOptions{Args: []string{"--worker-processes", "1"}})
	g.Apply(strings.NewReplacer("sites:", fmt.Sprintf("certificates:\n  web: {chainFile: %s/chain.pem, keyFile: %s/key.pem}\nsites:", dir, dir),
		"hosts:", "certificate: web\n    hosts:",
		fmt.Sprintf("[{port: %d}]", g.Port), fmt.Sprintf("[{port: %d}, {port: %d, tls: true}]", g.Port, g.Port2),
	).Replace(document(g.Port, "round_robin")))
	g.putNode("one", port, true)
	g.WaitNodes(10*time.Second, 1)
	insecure := &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}
	for _, kind := range []struct{ name, url string }{
		{"plain", "ws://" + g.Addr() + "/ws"}, {"TLS", fmt.Sprintf("wss://127.0.0.1:%d/ws", g.Port2)},
	} {
		before := g.workersMemory()
		var open []*websocket.Conn
		for range sockets {
			conn, _, err := websocket.Dial(t.Context(), kind.url, &websocket.DialOptions{HTTPClient: &http.Client{Transport: insecure}})
			if err != nil {
				t.Fatal(err)
			}
			open = append(open, conn)
			if _, _, err := conn.Read(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		each := float64(g.workersMemory()-before) / sockets / 1024
		r.add("nginx memory per idle WebSocket, "+kind.name, fmt.Sprintf("%.1f KB", each), fmt.Sprintf("%d sockets", sockets), "")
		for _, conn := range open {
			_ = conn.CloseNow()
		}
	}
}

func (g *Gateway) workersMemory() int64 {
	var sum int64
	for _, generation := range g.Status().Nginx.Generations {
		for _, w := range generation.Workers {
			sum += w.Memory
		}
	}
	return sum
}

// benchIdle measures the resident memory of a sluice that has nothing to do.
func benchIdle(t *testing.T, r *report) {
	etcd := startEtcd(t, nil)
	for _, kind := range []struct{ name, registry, aim string }{{"with embedded etcd", "", "60 MB"}, {"with an external etcd", etcd.URL, "30 MB"}} {
		g := startGateway(t, GatewayOptions{Registry: kind.registry})
		g.Apply(document(g.Port, "ip_hash"))
		g.WaitLive(10 * time.Second)
		pause(t, 20*time.Second)
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", g.PID()))
		if err != nil {
			t.Fatal(err)
		}
		_, after, _ := strings.Cut(string(text), "VmRSS:")
		kb, err := strconv.Atoi(strings.Fields(after)[0])
		if err != nil {
			t.Fatal(err)
		}
		r.add("idle memory of sluice run, "+kind.name, fmt.Sprintf("%d MB", kb>>10), runtime.Version(), kind.aim)
		g.Stop()
	}
}

func ms(d time.Duration) string { return fmt.Sprintf("%.1f ms", float64(d.Microseconds())/1000) }

func ratio(a, b time.Duration) string { return fmt.Sprintf("%.2f", float64(a)/float64(b)) }
