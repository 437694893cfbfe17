package main

import (
	"encoding/json"
	"runtime/debug"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"sluice/controlplane"
	"sluice/registry"
)

func TestStatusText(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	before := func(d time.Duration) time.Time { return now.Add(-d) }
	tests := []struct {
		name string
		give controlplane.Status
		want string
	}{
		{"in step", controlplane.Status{
			Gateway: "edge-1", Group: "default", Version: "1.0.0", Phase: controlplane.InStep, SeqWanted: 17, SeqLive: 17,
			RevisionLive: "0123456789abcdef", Nodes: 3,
			Applied:  &controlplane.LastApplied{At: before(90 * time.Minute), How: controlplane.Reload, Milliseconds: 181.4},
			Registry: controlplane.RegistryHealth{Connected: true},
			Nginx: controlplane.Live{Running: true, PID: 7, Binary: "/usr/sbin/nginx", Version: "1.22.1", Generations: []controlplane.Generation{
				{Number: 2, Since: before(90 * time.Minute), Workers: []controlplane.Worker{{PID: 8, Memory: 8 << 20, Sockets: 20}, {PID: 9, Memory: 8 << 20, Sockets: 21}}},
				{Number: 1, Since: before(72 * time.Hour), Old: true, Workers: []controlplane.Worker{{PID: 5, Memory: 9 << 20, Sockets: 1}}},
			}},
			Sockets:   &controlplane.Sockets{Total: 21, Old: 1, Uncounted: "list unix sockets: no such file"},
			Upstreams: []controlplane.UpstreamStatus{{Name: "io", Nodes: 3, Up: 3, Sockets: 21}},
		}, `gateway edge-1: what is wanted is live
  live       seq 17, revision 0123456789ab, 3 nodes
  applied    1h30m ago, by a reload, in 181 ms
  registry   connected
  nginx      /usr/sbin/nginx 1.22.1, pid 7
             generation 2: accepts; 2 workers, 41 sockets, 16 MB, since 1h30m
             generation 1: old, serves what is open; 1 worker, 1 socket, 9 MB, since 3 days
  sockets    21 to nodes, 1 of these in old generations; some are not counted: list unix sockets: no such file
  sluice     1.0.0, group default
  upstream   io: 3 of 3 nodes up, 21 sockets
`},
		{"in trouble", controlplane.Status{
			Gateway: "edge-1", Group: "eu", Version: "1.0.0", Phase: controlplane.Failed, SeqWanted: 18, SeqLive: 17, Stale: true, RevisionLive: "abc", Nodes: 1,
			Wait: &controlplane.Wait{Until: now.Add(2500 * time.Millisecond), What: "1 node joins", Why: "3 old generations still hold connections"},
			Failure: &controlplane.Failure{At: before(2 * time.Second), Attempts: 1, NextTry: now.Add(5 * time.Second),
				Message: "nginx: [emerg] unknown directive \"bogus\" in http/site-chat.conf:3\nnginx: configuration file test failed\x1b[2J\n"},
			Problems: []registry.Problem{{Object: "site/chat", Field: "/hosts/0", Message: "is taken"}, {Object: "node/io/n1", Message: "is garbage"}},
			Registry: controlplane.RegistryHealth{Since: before(30 * time.Second), Error: "connection refused"},
			Nginx:    controlplane.Live{Binary: "/usr/sbin/nginx", Version: "1.22.1"},
		}, `gateway edge-1: the newest change failed, the last good configuration serves
  live       seq 17, revision abc, 1 node
  waits      seq 18: 1 node joins; in 2.5s, because 3 old generations still hold connections
  failed     seq 18, 2s ago, 1 attempt, next in 5s
             nginx: [emerg] unknown directive "bogus" in http/site-chat.conf:3
             nginx: configuration file test failed` + "\uFFFD" + `[2J
  registry   away for 30s: connection refused
             it has not answered since the start: what serves is what the disk held as last proven good
  nginx      /usr/sbin/nginx 1.22.1, does not run
  sluice     1.0.0, group eu
  problems   site/chat /hosts/0: is taken
             node/io/n1: is garbage
`},
		{"start", controlplane.Status{Gateway: "e", Group: "default", Version: "x", Phase: controlplane.Starting,
			Registry: controlplane.RegistryHealth{Connected: true}, Nginx: controlplane.Live{Binary: "nginx", Version: "1"}},
			`gateway e: nothing was applied yet
  live       nothing
  registry   connected
  nginx      nginx 1, does not run
  sluice     x, group default
`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			if diff := cmp.Diff(tt.want, statusText(tt.give, now)); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestStatusCommand(t *testing.T) {
	t.Parallel()
	in := startInstance(t, "")
	other := *in.status.Load()
	other.Gateway = "a-edge"
	value, err := json.Marshal(other)
	if err != nil {
		t.Fatal(err)
	}
	if err := in.registry.Hold(t.Context(), registry.Object{Kind: registry.KindGateway, Name: "a-edge", Value: value}, time.Minute); err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		args string
		want []string
	}{
		{"status", []string{"gateway edge-1: "}},
		{"status a-edge", []string{"gateway a-edge: "}},
		{"status --all", []string{"gateway a-edge: ", "gateway edge-1: "}},
		{"status -o json", []string{"{\n  \"gateway\": \"edge-1\""}},
		{"status --all -o json", []string{"[\n  {\n    \"gateway\": \"a-edge\"", "\"gateway\": \"edge-1\""}},
	}
	for _, tt := range tests {
		stdout, stderr, code := in.sluice(t, "", strings.Fields(tt.args)...)
		if code != 0 || strings.Count(stdout, "gateway") != len(tt.want) {
			t.Errorf("%s: code %d, %s\n%s", tt.args, code, stderr, stdout)
		}
		for _, want := range tt.want {
			if !strings.Contains(stdout, want) {
				t.Errorf("%s: %q is not in\n%s", tt.args, want, stdout)
			}
		}
	}
	if _, stderr, code := in.sluice(t, "", "status", "nobody"); code != exitNotFound || !strings.Contains(stderr, `gateway "nobody" has not reported lately`) {
		t.Errorf("code %d, %s", code, stderr)
	}
}

func TestGetNodes(t *testing.T) {
	t.Parallel()
	in := startInstance(t, "")
	for _, n := range []registry.Node{
		{Service: "io", ID: "n1", Address: "10.0.0.7", Port: 6001},
		{Service: "io", ID: "n2", Address: "fd00::1", Port: 6001, Weight: 5, MaxConns: 100, Zone: "rack 4", Tags: []string{"blue"}},
		{Service: "web", ID: "w", Address: "unix:/run/w.sock"},
	} {
		if err := in.registry.Put(t.Context(), n, time.Minute); err != nil {
			t.Fatal(err)
		}
	}
	in.change(func(s *controlplane.Status) {
		s.Exceptions = []controlplane.NodeStatus{{Upstream: "io", Service: "io", ID: "n1", State: controlplane.NodeSuspect}}
	})
	stdout, _, _ := in.sluice(t, "", "get", "nodes")
	want := `NODE   ADDRESS           WEIGHT  MAX CONNS  ZONE    TAGS  STATE    SOCKETS
io/n1  10.0.0.7:6001     1       -          -       -     suspect  -
io/n2  [fd00::1]:6001    5       100        rack 4  blue  up       -
web/w  unix:/run/w.sock  1       -          -       -     up       -
`
	if diff := cmp.Diff(want, stdout); diff != "" {
		t.Error(diff)
	}
	stdout, _, _ = in.sluice(t, "", "get", "node/web/w", "-o", "json")
	if diff := cmp.Diff("{\n  \"service\": \"web\",\n  \"id\": \"w\",\n  \"address\": \"unix:/run/w.sock\"\n}\n", stdout); diff != "" {
		t.Error(diff)
	}
	stdout, _, _ = in.sluice(t, "", "__complete", "get", "--api", in.url, "node/")
	if !strings.HasPrefix(stdout, "node/io/n1\nnode/io/n2\nnode/web/w\n") {
		t.Error(stdout)
	}
}

// change changes the status of the gateway beside the instance.
func (in *testInstance) change(change func(*controlplane.Status)) {
	s := *in.status.Load()
	change(&s)
	in.status.Store(&s)
}

func TestVersionOf(t *testing.T) {
	t.Parallel()
	built := &debug.BuildInfo{Settings: []debug.BuildSetting{{Key: "vcs.revision", Value: "0123456789abcdef"}, {Key: "vcs.modified", Value: "true"}}}
	tests := []struct {
		release string
		info    *debug.BuildInfo
		want    string
	}{
		{"1.2.3", built, "1.2.3"},
		{"", built, "development-0123456789ab+changes"},
		{"", &debug.BuildInfo{}, "development"},
		{"", nil, "unknown"},
	}
	for _, tt := range tests {
		if got := versionOf(tt.release, tt.info); got != tt.want {
			t.Errorf("%q, want %q", got, tt.want)
		}
	}
}
