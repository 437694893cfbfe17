package main

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"sluice/controlplane"
	"sluice/registry"
)

// The sockets of a node are those of all gateways, as far as they tell.
func TestSocketsOfNodes(t *testing.T) {
	t.Parallel()
	in := startInstance(t, "")
	report := func(name string, sockets *controlplane.Sockets) {
		t.Helper()
		s := *in.status.Load()
		if s.Sockets = sockets; name == s.Gateway {
			in.status.Store(&s)
			return
		}
		s.Gateway = name
		value, err := json.Marshal(s)
		if err == nil {
			err = in.registry.Hold(t.Context(), registry.Object{Kind: registry.KindGateway, Name: name, Value: value}, time.Minute)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, id := range []string{"n1", "n2"} {
		if err := in.registry.Put(t.Context(), registry.Node{Service: "io", ID: id, Address: "10.0.0.1", Port: 6001}, time.Minute); err != nil {
			t.Fatal(err)
		}
	}
	says := func(args string, want ...string) {
		t.Helper()
		stdout, stderr, code := in.sluice(t, "", strings.Fields(args)...)
		for _, text := range want {
			if !strings.Contains(strings.Join(strings.Fields(stdout+stderr), " "), text) {
				t.Errorf("%s (code %d) does not say %q:\n%s%s", args, code, text, stdout, stderr)
			}
		}
	}
	says("get nodes", "io/n1 10.0.0.1:6001 1 - - - up -")
	report("edge-1", &controlplane.Sockets{Total: 7, Nodes: map[string]int{"io/n1": 7}})
	says("get nodes", "up 7", "up 0")
	report("edge-2", &controlplane.Sockets{Total: 5, Nodes: map[string]int{"io/n1": 5}})
	says("get nodes", "up 12", "up 0")
	says("get gateways", "edge-2 default in_step 0 - 0 5")
	says("drain io/n1 --dry-run", "created override/io/n1", "nothing was changed")
	says("drain io/n1", "created override/io/n1", "open sockets that it keeps: 12;")
	says("undrain io/n1 --dry-run", "deleted override/io/n1", "nothing was changed")
	report("edge-3", nil) // of an older version
	says("get nodes", "up 12+", "up 0+")
	says("undrain io/n1", "deleted override/io/n1")
}
