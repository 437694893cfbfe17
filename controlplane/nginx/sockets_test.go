package nginx

import (
	"maps"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"sluice/internal/testport"
)

// connect opens n connections to a server that takes them and says nothing.
func connect(t testing.TB, network, address string, n int) (at string) {
	t.Helper()
	l, err := net.Listen(network, address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	for range n {
		out, err := net.Dial(network, l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		in, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _, _ = out.Close(), in.Close() })
	}
	return l.Addr().String()
}

// What the kernel tells of sockets is what was opened, by the process that opened it, and whichever way an address is written.
func TestMeasure(t *testing.T) {
	t.Parallel()
	unixPath := filepath.Join(t.TempDir(), "n1.sock")
	want := map[string]int{
		connect(t, "tcp", "127.0.0.1:0", 3):       3,
		connect(t, "tcp", "[::1]:0", 2):           2,
		"unix:" + connect(t, "unix", unixPath, 4): 4,
	}
	silent := connect(t, "tcp", "127.0.0.1:0", 0)
	m := measure(process{}, []Generation{{Workers: []Worker{{PID: os.Getpid()}}}})
	if m.noTCP != "" || m.noUnix != "" {
		t.Fatalf("not counted: %q, %q", m.noTCP, m.noUnix)
	}
	for address, n := range want {
		if got := m.servers[server{os.Getpid(), address}]; got != n {
			t.Errorf("%d connections to %s, want %d", got, address, n)
		}
	}
	if n, ok := m.servers[server{os.Getpid(), silent}]; ok {
		t.Errorf("%d connections to a server that has none", n)
	}
	// Another process has none of them.
	for s := range measure(process{}, []Generation{{Workers: []Worker{{PID: os.Getppid()}}}}).servers {
		if want[s.address] > 0 {
			t.Errorf("another process has connections to %s", s.address)
		}
	}
}

// The sockets of nginx's workers are told from those that others have open to the same node, and by generation.
func TestConnections(t *testing.T) {
	t.Parallel()
	d := open(t, options(t))
	port, other := testport.Free(t), testport.Free(t)
	first, second := echo(t), "unix:"+echoUnix(t)
	text := func(answer string) string { return site(port, answer, first) + site(other, answer, second) }
	apply(t, d, bundle(text("one")), Started)
	conns := dial(t, port, 3)
	conns = append(conns, dial(t, other, 2)...)
	for range 4 { // as a health check would, past nginx
		conn, err := net.Dial("tcp", first)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = conn.Close() })
	}
	alive(t, conns)
	counts := func(want map[string]Connected) {
		t.Helper()
		var got map[string]Connected
		defer func() {
			if t.Failed() {
				t.Logf("%+v, want %+v", got, want)
			}
		}()
		within(t, 5*time.Second, "the sockets are counted", func() bool {
			got = d.Live(t.Context()).Connections.Servers
			return maps.Equal(got, want)
		})
	}
	counts(map[string]Connected{first: {All: 3}, second: {All: 2}})
	apply(t, d, bundle(text("two")), Reloaded)
	for _, g := range d.Live(t.Context()).Generations {
		for _, w := range g.Workers {
			if w.PID == 0 || w.Memory == 0 {
				t.Errorf("a worker of generation %d that nobody has measured: %+v", g.Number, w)
			}
		}
	}
	conns = append(conns, dial(t, port, 1)...)
	alive(t, conns)
	counts(map[string]Connected{first: {All: 4, Old: 3}, second: {All: 2, Old: 2}})
	// A master that died takes nothing with it.
	kill(t, d.master)
	apply(t, d, bundle(text("three")), Started)
	counts(map[string]Connected{first: {All: 4, Old: 4}, second: {All: 2, Old: 2}})
	for _, ws := range conns[:3] {
		if err := ws.CloseNow(); err != nil {
			t.Fatal(err)
		}
	}
	counts(map[string]Connected{first: {All: 1, Old: 1}, second: {All: 2, Old: 2}})
}

// What cannot be seen is not taken for nothing.
func TestSocketsThatCannotBeSeen(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("another user needs root")
	}
	d := open(t, options(t))
	apply(t, d, bundle(site(testport.Free(t), "one", "")), Started)
	out := unprivileged(t, "sockets", "hidepid=0", acceptingPIDs(t, d)[0])
	if !strings.Contains(out, "CAP_SYS_PTRACE") {
		t.Errorf("who cannot look into nginx said: %s", out)
	}
}

// BenchmarkMeasure counts 20,000 sockets of one worker, which is this process: 9,900 connections of which it has both ends.
func BenchmarkMeasure(b *testing.B) {
	address := connect(b, "tcp", "127.0.0.1:0", 9900)
	for b.Loop() {
		m := measure(process{}, []Generation{{Workers: []Worker{{PID: os.Getpid()}}}})
		if n := m.servers[server{os.Getpid(), address}]; n != 9900 {
			b.Fatalf("%d connections are counted", n)
		}
	}
}
