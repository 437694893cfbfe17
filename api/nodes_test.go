package api_test

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"sluice/api"
	"sluice/registry"
)

func TestNodeLives(t *testing.T) {
	t.Parallel()
	in := start(t)
	put := in.do("PUT", "/v1/services/io/nodes/n1", `{"address":"10.0.0.7","port":6001,"incarnation":"a","ttl":"1s","meta":{"v":"1"}}`).want(200)
	var registered api.Registered
	put.json(&registered)
	want := registry.Node{Service: "io", ID: "n1", Address: "10.0.0.7", Port: 6001, Incarnation: "a", Meta: map[string]string{"v": "1"}}
	if diff := cmp.Diff(want, registered.Node); diff != "" || time.Duration(registered.TTL) != in.registry.MinTTL() {
		t.Errorf("ttl %v, %s", registered.TTL, diff)
	}
	in.do("PUT", "/v1/services/io/nodes/n1", `{"address":"10.0.0.7","port":6001,"incarnation":"a"}`).want(200)
	in.do("PUT", "/v1/services/web/nodes/w1", `{"address":"unix:/run/w1.sock"}`).want(200)
	in.do("PUT", "/v1/services/io/nodes/n2", `{"address":"fd00::1","port":6001}`).want(200)

	var nodes api.NodeList
	in.do("GET", "/v1/nodes?service=io", "").want(200).json(&nodes)
	if len(nodes.Items) != 2 || nodes.Items[0].ID != "n1" || nodes.Items[1].ID != "n2" {
		t.Errorf("%+v", nodes)
	}
	if got := in.do("GET", "/v1/services", "").want(200).body; got != `{"items":[{"name":"io","nodes":2},{"name":"web","nodes":1}]}` {
		t.Error(got)
	}
	in.do("GET", "/v1/services/io/nodes/n1", "").want(200)

	in.do("DELETE", "/v1/services/io/nodes/n1?incarnation=old", "").wantDetail(404, `node io/n1 with incarnation "old": not found`)
	in.do("DELETE", "/v1/services/io/nodes/n1?incarnation=a", "").want(204)
	in.do("DELETE", "/v1/services/io/nodes/n1", "").wantDetail(404, "node io/n1: not found")
	in.do("GET", "/v1/services/io/nodes/n1", "").wantDetail(404, "node io/n1 is not registered")
	if got := in.do("GET", "/v1/nodes?service=nobody", "").want(200).body; got != `{"items":[]}` {
		t.Error(got)
	}
}

func TestNodesThatAreRefused(t *testing.T) {
	t.Parallel()
	in := start(t)
	tests := []struct{ path, body, want string }{
		{"io/nodes/n1", `{"address":"localhost","port":80}`, `/address: "localhost" is not an IP address`},
		{"io/nodes/n1", `{"address":"10.0.0.1"}`, `/port: 0 is not between 1 and 65535`},
		{"io/nodes/n1", `{"address":"10.0.0.1","port":80,"ttl":"2h"}`, `/ttl: 2h0m0s is not between 1s and 1h0m0s`},
		{"io/nodes/n1", `{"address":"10.0.0.1","port":80,"ttl":15}`, `/ttl: must be a text in quotes`},
		{"io/nodes/n1", `{"address":"10.0.0.1","port":80,"service":"io"}`, `/service: is unknown`},
		{"IO/nodes/n1", `{"address":"10.0.0.1","port":80}`, `service: "IO" is not a name`},
		{"io/nodes/a%0Ab", `{"address":"10.0.0.1","port":80}`, `id: must be 1 to 253 bytes of printable text`},
		{"endpoints:a%2Fb/nodes/n1", `{"address":"10.0.0.1","port":80}`, `register under a service of its own`},
	}
	for _, tt := range tests {
		in.do("PUT", "/v1/services/"+tt.path, tt.body).wantDetail(422, tt.want)
	}
	in.do("GET", "/v1/nodes?service=a%2Fb", "").wantDetail(400, `service "a/b" is not a name`)
	in.do("GET", "/v1/services/a%2Fb/nodes/n1", "").want(404)
	in.do("DELETE", "/v1/services/a%2Fb/nodes/n1", "").want(404)
}

func TestNodesClient(t *testing.T) {
	t.Parallel()
	in := start(t)
	nodes := api.NewNodesClient(in.client)
	for _, id := range []string{"n1", "a/b", "50% ü?#", "x%2Fy", "a;b,c", "'\"\\"} {
		n := registry.Node{Service: "io", ID: id, Address: "10.0.0.7", Port: 6001, Weight: 2, MaxConns: 3, Zone: "z", Incarnation: "i"}
		if err := nodes.Put(t.Context(), n, 15*time.Second); err != nil {
			t.Fatal(err)
		}
		got, err := in.registry.GetNode(t.Context(), n.Ref())
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(n, got); diff != "" {
			t.Error(diff)
		}
		if err := nodes.Remove(t.Context(), registry.NodeRef{Service: "io", ID: id, Incarnation: "other"}); !errors.Is(err, registry.ErrNotFound) {
			t.Errorf("%s: another incarnation: %v", id, err)
		}
		if err := nodes.Remove(t.Context(), n.Ref()); err != nil {
			t.Error(err)
		}
		if err := nodes.Remove(t.Context(), n.Ref()); !errors.Is(err, registry.ErrNotFound) {
			t.Errorf("%s: removed twice: %v", id, err)
		}
	}
	err := nodes.Put(t.Context(), registry.Node{Service: "io", ID: "n1", Address: "nowhere"}, 0)
	if want := "register io/n1: 2 fields are wrong"; err == nil || len(err.Error()) < len(want) || err.Error()[:len(want)] != want {
		t.Error(err)
	}
	for _, id := range []string{".", ".."} {
		want := fmt.Sprintf("the id %q cannot be part of a URL: choose another", id)
		if err := nodes.Put(t.Context(), registry.Node{Service: "io", ID: id}, 0); err == nil || errors.Unwrap(err).Error() != want {
			t.Error(err)
		}
		if err := nodes.Remove(t.Context(), registry.NodeRef{Service: "io", ID: id}); err == nil || errors.Unwrap(err).Error() != want {
			t.Error(err)
		}
	}
}
