package consul

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/consul/api"

	"sluice/internal/testport"
	"sluice/registry"
)

// binary is built by make from tools/consul.
const binary = "../../.cache/bin/consul"

// agent is a Consul server of a test. Kill and start can follow each other: it keeps its data.
type agent struct {
	tb     testing.TB
	config string // path
	url    string
	serf   int    // the port at which others join
	token  string // of its management, where it has ACLs
	mu     sync.Mutex
	api    *api.Client
	cmd    *exec.Cmd
	log    *os.File
}

// newAgent starts a server; settings are added to its configuration, and https is a port. With dev it keeps everything in memory.
func newAgent(tb testing.TB, dev bool, settings map[string]any) *agent {
	tb.Helper()
	if _, err := os.Stat(binary); err != nil {
		tb.Fatalf("%v: `make setup-test` builds it", err)
	}
	dir, err := os.MkdirTemp("", "sluice-consul-test-")
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = os.RemoveAll(dir) })
	port, serf := testport.Free(tb), testport.Free(tb)
	config := map[string]any{
		"node_name": "here", "bind_addr": "127.0.0.1", "client_addr": "127.0.0.1", "log_level": "warn", "disable_update_check": true,
		"leave_on_terminate": false,
		"ports": map[string]any{
			"http": port, "https": cmp.Or[any](settings["https"], -1), "dns": -1, "grpc": -1, "grpc_tls": -1, "serf_wan": -1,
			"serf_lan": serf, "server": testport.Free(tb),
		},
	}
	if !dev {
		config["server"], config["bootstrap_expect"], config["data_dir"] = true, 1, filepath.Join(dir, "data")
		config["performance"] = map[string]any{"raft_multiplier": 1}
	}
	maps.Copy(config, settings)
	delete(config, "https")
	raw, err := json.Marshal(config)
	if err != nil {
		tb.Fatal(err)
	}
	a := &agent{tb: tb, config: filepath.Join(dir, "agent.json"), url: fmt.Sprintf("http://127.0.0.1:%d", port), serf: serf}
	if err := os.WriteFile(a.config, raw, 0o600); err != nil {
		tb.Fatal(err)
	}
	if a.log, err = os.Create(filepath.Join(dir, "log")); err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		a.kill()
		if text, err := os.ReadFile(a.log.Name()); err == nil && tb.Failed() {
			tb.Logf("consul's log:\n%s", text[max(0, len(text)-4000):])
		}
		_ = a.log.Close()
	})
	a.start(dev)
	return a
}

func (a *agent) start(dev bool) {
	a.tb.Helper()
	argv := []string{"agent", "-config-file", a.config}
	if dev {
		argv = append(argv, "-dev")
	}
	a.cmd = exec.Command(binary, argv...)
	a.cmd.Stdout, a.cmd.Stderr = a.log, a.log
	if err := a.cmd.Start(); err != nil {
		a.tb.Fatal(err)
	}
	a.ready()
}

// ready waits until there is a leader that takes writes, and the server is in its catalog.
func (a *agent) ready() {
	a.tb.Helper()
	limit := time.After(30 * time.Second)
	for {
		resp, err := http.Get(a.url + "/v1/catalog/nodes")
		if err == nil {
			ok := resp.StatusCode == http.StatusOK && resp.Header.Get("X-Consul-Index") > "0"
			var nodes []api.Node
			err = json.NewDecoder(resp.Body).Decode(&nodes)
			_ = resp.Body.Close()
			if ok && err == nil && (len(nodes) > 0 || resp.Header.Get("X-Consul-Default-Acl-Policy") == "deny") {
				return
			}
		}
		select {
		case <-limit:
			a.tb.Fatalf("consul does not answer: %v", err)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

func (a *agent) kill() {
	if a.cmd != nil {
		_ = a.cmd.Process.Kill()
		_ = a.cmd.Wait()
		a.cmd = nil
	}
}

// client is how a test does what others do in Consul. All use the same: each has connections of its own.
func (a *agent) client() *api.Client {
	a.tb.Helper()
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.api == nil {
		c, err := api.NewClient(&api.Config{Address: a.url, Token: a.token})
		if err != nil {
			a.tb.Fatal(err)
		}
		a.api = c
	}
	return a.api
}

// shared is the server of those tests that do not stop it; each has a fleet of its own.
var shared *agent

func TestMain(m *testing.M) { os.Exit(run(m)) }

// outside is the testing.TB of what outlives a test.
type outside struct {
	testing.TB
	cleanups []func()
}

func (o *outside) Helper()                           {}
func (o *outside) Cleanup(f func())                  { o.cleanups = append(o.cleanups, f) }
func (o *outside) Fatal(args ...any)                 { panic(fmt.Sprint(args...)) }
func (o *outside) Fatalf(format string, args ...any) { panic(fmt.Sprintf(format, args...)) }
func (o *outside) Failed() bool                      { return false }

func run(m *testing.M) (code int) {
	tb := &outside{}
	defer func() {
		if failed := recover(); failed != nil {
			fmt.Fprintln(os.Stderr, failed)
			code = 1
		}
		for i := range tb.cleanups {
			tb.cleanups[len(tb.cleanups)-1-i]()
		}
	}()
	shared = newAgent(tb, true, nil)
	return m.Run()
}

var fleets atomic.Int64

func newFleet() string { return fmt.Sprintf("fleet-%d", fleets.Add(1)) }

// impatient makes faults show within a test.
var impatient = timing{
	call:       5 * time.Second,
	patience:   time.Second,
	list:       5 * time.Second,
	pulse:      time.Second,
	wait:       10 * time.Second,
	slack:      time.Second,
	rotation:   time.Second,
	pace:       10 * time.Millisecond,
	newService: time.Second,
	tick:       100 * time.Millisecond,
	retryMin:   20 * time.Millisecond,
	retryMax:   200 * time.Millisecond,
}

// open returns a handle that is closed when the test ends.
func open(t *testing.T, a *agent, cfg Config, timing timing) *Registry {
	t.Helper()
	return openLimited(t, a, cfg, timing, maxBlocking)
}

func openLimited(t *testing.T, a *agent, cfg Config, timing timing, blocking int) *Registry {
	t.Helper()
	if cfg.Addresses == nil {
		cfg.Addresses = []string{a.url}
	}
	cfg.Logger = slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelInfo}))
	r, err := newRegistry(t.Context(), cfg, timing, blocking)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = r.Close() })
	return r
}

const settle = 15 * time.Second

// tail is a running Watch: the Snapshots it sent, in order.
type tail struct {
	t    *testing.T
	out  chan registry.Snapshot
	last registry.Snapshot
	each func(registry.Snapshot) // looks at every one
}

// uses says that an upstream uses the service of its name, and none when its value says that it is broken.
func uses(o registry.Object) []string {
	if o.Kind != registry.KindUpstream || strings.Contains(string(o.Value), "broken") {
		return nil
	}
	return []string{o.Name}
}

func watch(t *testing.T, r registry.Watcher) *tail {
	t.Helper()
	w := &tail{t: t, out: make(chan registry.Snapshot), each: func(registry.Snapshot) {}}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := r.Watch(ctx, uses, w.out); !errors.Is(err, context.Canceled) {
			t.Errorf("Watch ended: %v", err)
		}
	}()
	t.Cleanup(func() {
		cancel()
		<-done
	})
	return w
}

func (w *tail) until(what string, ok func(registry.Snapshot) bool) registry.Snapshot {
	w.t.Helper()
	limit := time.After(settle)
	for {
		select {
		case w.last = <-w.out:
			w.each(w.last)
		case <-limit:
			w.t.Fatalf("not in a Snapshot within %s: %s; the last one has seq %d, %d objects, nodes %v, tombstones %v, problems %v",
				settle, what, w.last.Seq, len(w.last.Objects), ids(w.last), w.last.Tombstones, w.last.Problems)
		}
		if ok(w.last) {
			return w.last
		}
	}
}

func (w *tail) silent(d time.Duration, why string) {
	w.t.Helper()
	select {
	case s := <-w.out:
		w.t.Fatalf("%s: there is a Snapshot with seq %d, %d objects, nodes %+v, tombstones %v, problems %v", why, s.Seq, len(s.Objects), s.Nodes, s.Tombstones, s.Problems)
	case <-time.After(d):
	}
}

// ids are those of the nodes.
func ids(s registry.Snapshot) string {
	var out []string
	for _, n := range s.Nodes {
		out = append(out, n.ID)
	}
	return strings.Join(out, " ")
}

func hasIDs(want string) func(registry.Snapshot) bool {
	return func(s registry.Snapshot) bool { return ids(s) == want }
}

func hasSeq(seq registry.Seq) func(registry.Snapshot) bool {
	return func(s registry.Snapshot) bool { return s.Seq >= seq }
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	limit := time.After(settle)
	for !ok() {
		select {
		case <-limit:
			t.Fatalf("not within %s: %s", settle, what)
		case <-time.After(10 * time.Millisecond):
		}
	}
}

func commit(t *testing.T, r *Registry, names ...string) registry.Seq {
	t.Helper()
	var ops []registry.Op
	for _, name := range names {
		ops = append(ops, registry.Op{Ref: registry.Ref{Kind: registry.KindUpstream, Name: name}, Value: json.RawMessage(`{}`)})
	}
	done, err := r.Commit(t.Context(), registry.Tx{Ops: ops})
	if err != nil {
		t.Fatal(err)
	}
	return done.Seq
}

func putNode(t *testing.T, r *Registry, service, id string) registry.Node {
	t.Helper()
	n := registry.Node{Service: service, ID: id, Address: "127.0.0.1", Port: 80}
	if err := r.Put(t.Context(), n, time.Minute); err != nil {
		t.Fatal(err)
	}
	return n
}

// define registers what somebody else would.
func (a *agent) define(t *testing.T, reg *api.AgentServiceRegistration) {
	t.Helper()
	if err := a.client().Agent().ServiceRegister(reg); err != nil {
		t.Fatal(err)
	}
}
