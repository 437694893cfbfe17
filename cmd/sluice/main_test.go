package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http/httptest"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"sluice/api"
	"sluice/controlplane"
	"sluice/registry"
	"sluice/registry/etcd"
)

// TestMain makes this test binary the commands that scripts and tests run, found through PATH.
func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){
		"sluice":     main,
		"testserver": testServer,
	})
}

func TestScripts(t *testing.T) {
	t.Parallel()
	in, own, history := startInstance(t, ""), startInstance(t, ""), startInstance(t, "")
	export, lists := startInstance(t, ""), startInstance(t, "")
	testscript.Run(t, testscript.Params{
		Dir: "testdata/script",
		Setup: func(env *testscript.Env) error {
			env.Setenv("SLUICE_API", in.url)
			env.Setenv("OWN_API", own.url) // of the scripts that list everything
			env.Setenv("HISTORY_API", history.url)
			env.Setenv("EXPORT_API", export.url)
			env.Setenv("LISTS_API", lists.url)
			return nil
		},
		Cmds: map[string]func(ts *testscript.TestScript, neg bool, args []string){"exitcode": exitCode},
	})
}

// exitCode is the script command "exitcode N COMMAND…": COMMAND must end with N.
func exitCode(ts *testscript.TestScript, neg bool, args []string) {
	want, err := strconv.Atoi(args[0])
	if neg || err != nil {
		ts.Fatalf("usage: exitcode N COMMAND…")
	}
	code := 0
	if err := ts.Exec(args[1], args[2:]...); err != nil {
		exit, ok := errors.AsType[*exec.ExitError](err)
		if !ok {
			ts.Fatalf("%v", err)
		}
		code = exit.ExitCode()
	}
	if code != want {
		ts.Fatalf("%s ends with %d, want %d", strings.Join(args[1:], " "), code, want)
	}
}

// testInstance is an instance's API on an embedded etcd, beside a gateway whose status a test sets.
type testInstance struct {
	url      string
	etcdURL  string
	registry *etcd.Registry
	status   atomic.Pointer[controlplane.Status]
	events   *controlplane.Events
	asked    atomic.Int32 // how often the status was asked for
}

func (in *testInstance) Status(context.Context) controlplane.Status {
	in.asked.Add(1)
	return *in.status.Load()
}

func (in *testInstance) Retry() {}

func (in *testInstance) Try(context.Context, map[registry.Ref]*registry.Object) (controlplane.Trial, error) {
	return controlplane.Trial{How: controlplane.Reload, Files: []controlplane.FileDiff{{Path: "http/site-x.conf", Diff: "-old\n+new\n"}}}, nil
}

func (in *testInstance) Forecast(_ map[registry.Ref]*registry.Object, fleet []controlplane.Status) ([]controlplane.Forecast, error) {
	var forecasts []controlplane.Forecast
	for _, s := range fleet {
		forecasts = append(forecasts, controlplane.Forecast{
			Gateway: s.Gateway, Group: s.Group, How: controlplane.Reload, Leave: 1, Sockets: &controlplane.Touched{Leaving: 240, Retiring: 2100, AtLeast: true},
		})
	}
	return forecasts, nil
}

func (in *testInstance) Events() *controlplane.Events { return in.events }

func (in *testInstance) Applies() controlplane.Applies { return controlplane.Applies{} }

func (in *testInstance) Readings() *controlplane.Readings { return nil }

func (in *testInstance) Snapshot() (registry.Snapshot, bool) { return registry.Snapshot{}, false }

func startInstance(t *testing.T, token string) *testInstance {
	t.Helper()
	// The path of a unix socket must be short.
	dir, err := os.MkdirTemp("", "sluice")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	quiet := slog.New(slog.DiscardHandler)
	server, err := etcd.StartEmbedded(etcd.EmbeddedConfig{Dir: dir, Logger: quiet})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(server.Close)
	in := &testInstance{events: controlplane.NewEvents(), etcdURL: strings.Replace(server.ClientURL(), "unix://", "etcd://", 1)}
	if in.registry, err = etcd.New(t.Context(), etcd.Config{Server: server, Logger: quiet}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = in.registry.Close() })
	in.status.Store(&controlplane.Status{
		Gateway: "edge-1", Group: "default", Version: "test", Phase: controlplane.InStep,
		Registry: controlplane.RegistryHealth{Connected: true},
		Nginx:    controlplane.Live{Running: true, PID: 7, Binary: "/usr/sbin/nginx", Version: "1.22.1"},
	})
	handler, err := api.New(api.Options{Registry: in.registry, Local: in, Token: token, Logger: quiet})
	if err != nil {
		t.Fatal(err)
	}
	listening := httptest.NewServer(handler)
	t.Cleanup(listening.Close)
	in.url = listening.URL
	return in
}

// nodes lists the nodes that are registered, as "io/n1 io/n2".
func (in *testInstance) nodes(t *testing.T) string {
	t.Helper()
	page, err := in.registry.ListNodes(t.Context(), "", "", 0)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, n := range page.Nodes {
		names = append(names, n.Ref().String())
	}
	return strings.Join(names, " ")
}

// sluice runs a command and returns what it wrote and its exit code.
func (in *testInstance) sluice(t *testing.T, stdin string, args ...string) (stdout, stderr string, code int) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "sluice", args...)
	cmd.Env = append(os.Environ(), "SLUICE_API="+in.url)
	cmd.Stdin = strings.NewReader(stdin)
	var out, errs strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil && cmd.ProcessState == nil {
		t.Error(err)
		return "", "", -1
	}
	return out.String(), errs.String(), cmd.ProcessState.ExitCode()
}

// eventually waits until a condition holds.
func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	deadline := time.After(20 * time.Second)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for !holds() {
		select {
		case <-deadline:
			t.Fatalf("%s: it did not happen", what)
		case <-tick.C:
		}
	}
}

func TestExitCodes(t *testing.T) {
	t.Parallel()
	tests := []struct {
		args string
		code int
		want string
	}{
		{"version", 0, ""},
		{"frobnicate", 2, `sluice: unknown command "frobnicate" for "sluice"`},
		{"statsu", 2, "Did you mean this?"},
		{"status --alll", 2, "sluice: unknown flag: --alll"},
		{"status a b", 2, "sluice: accepts at most 1 arg(s), received 2"},
		{"status a --all", 2, "sluice: give the name of a gateway, or --all"},
		{"get nodes -o xml", 2, `sluice: --output "xml": choose text, json or yaml`},
		{"apply", 2, "sluice: name the document with -f FILE"},
		{"apply -f /nowhere", 1, "sluice: open /nowhere: no such file"},
		{"get nodes --api ftp://a", 1, `sluice: --api: "ftp://a" is not the address of an instance: write it as http://127.0.0.1:7070`},
		{"get nodes --api ,", 1, "sluice: --api: no address of an instance was given"},
		{"get nodes --api 127.0.0.1:1", 1, "sluice: list nodes: ask http://127.0.0.1:1: dial tcp 127.0.0.1:1: connect: connection refused"},
		{"get nodes --token-file /nowhere", 1, "sluice: read --token-file: open /nowhere"},
		{"register --id n1 --address 127.0.0.1:1", 2, "sluice: --service is missing: --service, --id and --address name the node"},
		{"register --service io --id n1 --address 127.0.0.1", 2, `sluice: --address "127.0.0.1": write it as 10.0.0.7:6001, [fd00::1]:6001 or unix:/path`},
		{"register --service io --id n1 --address localhost:80", 2, `sluice: address: "localhost" is not an IP address`},
		{"register --service io --id n1 --address 127.0.0.1:http", 2, `the port must be a number`},
		{"register --service io --id n1 --address 127.0.0.1:80 --ttl 1ms", 2, `--ttl 1ms is not between 1s and 1h`},
		{"register --service io --id n1 --address 127.0.0.1:80 --weight 1001", 2, `weight: 1001 is not between 1 and 1000`},
		{"register --service io --id n1 --address 127.0.0.1:80 --log-level loud", 2, `--log-level "loud"`},
		{"register --service io --id n1 --address 127.0.0.1:80 --registry mysql://x", 1, `registry "mysql://x"`},
	}
	in := &testInstance{}
	for _, tt := range tests {
		t.Run(tt.args, func(t *testing.T) {
			t.Parallel()
			_, stderr, code := in.sluice(t, "", strings.Fields(tt.args)...)
			if code != tt.code || !strings.Contains(stderr, tt.want) {
				t.Errorf("exit code %d, want %d; stderr %q, want %q", code, tt.code, stderr, tt.want)
			}
			if usage := strings.Contains(stderr, "--help' for usage."); usage != (tt.code == exitUsage) {
				t.Errorf("code %d with stderr %q", code, stderr)
			}
		})
	}
}

// TestEveryCommandHasHelp looks at all commands, cobra's own aside.
func TestEveryCommandHasHelp(t *testing.T) {
	t.Parallel()
	for _, cmd := range newRootCommand().Commands() {
		if cmd.Short == "" || cmd.Example == "" {
			t.Errorf("%s has no short text or no example", cmd.Name())
		}
		if strings.HasSuffix(cmd.Short, ".") {
			t.Errorf("%s: the short text ends with a dot", cmd.Name())
		}
	}
}

func TestPlain(t *testing.T) {
	t.Parallel()
	if got := plain("a\x1b[31mb\nü\u0085\x00"); got != "a\uFFFD[31mb\nü\uFFFD\uFFFD" {
		t.Errorf("%q", got)
	}
}

// fatal ends a command of the tests.
func fatal(w io.Writer, err error) {
	fmt.Fprintln(w, err)
	os.Exit(99)
}
