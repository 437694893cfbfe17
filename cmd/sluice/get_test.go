package main

import (
	"encoding/json"
	"fmt"
	"testing"
	"time"

	"sluice/registry"
)

// TestGetFollowsPages lists more nodes than one page has.
func TestGetFollowsPages(t *testing.T) {
	t.Parallel()
	in := startInstance(t, "")
	const nodes = 1010
	for i := range nodes {
		n := registry.Node{Service: "io", ID: fmt.Sprintf("n%04d", i), Address: "10.0.0.1", Port: 80}
		if err := in.registry.Put(t.Context(), n, time.Minute); err != nil {
			t.Fatal(err)
		}
	}
	stdout, stderr, code := in.sluice(t, "", "get", "nodes", "-o", "json")
	var list []registry.Node
	if err := json.Unmarshal([]byte(stdout), &list); err != nil || code != 0 || len(list) != nodes || list[nodes-1].ID != "n1009" {
		t.Errorf("%d nodes, code %d, %v: %s", len(list), code, err, stderr)
	}
}
