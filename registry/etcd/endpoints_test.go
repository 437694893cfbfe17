package etcd

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/client/v3/naming/endpoints"

	"sluice/registry"
)

func TestWatchFollowsEndpoints(t *testing.T) {
	t.Parallel()
	r := open(t, shared.ClientURL(), newFleet(), impatient)
	client, err := r.connect(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	target := "services/" + r.cfg.Fleet
	service := registry.EndpointsService(target)
	em, err := endpoints.NewManager(client, target)
	if err != nil {
		t.Fatal(err)
	}
	add := func(id string, ep endpoints.Endpoint) {
		t.Helper()
		if err := em.AddEndpoint(t.Context(), target+"/"+id, ep); err != nil {
			t.Fatal(err)
		}
	}
	for i := range 100 {
		add(fmt.Sprintf("n%03d", i), endpoints.Endpoint{Addr: fmt.Sprintf("10.0.0.%d:80", i+1)})
	}
	add("named", endpoints.Endpoint{Addr: "host.example:80"})
	r.rawPut(t, target+"-other/x", `{"Op":0,"Addr":"10.9.9.9:80"}`)

	uses := func(o registry.Object) []string {
		if string(o.Value) == `{"endpoints":true}` {
			return []string{service}
		}
		return nil
	}
	w := watch(t, r, uses)
	w.each = func(s registry.Snapshot) {
		used := len(s.Objects) > 0 && len(uses(s.Objects[0])) > 0
		if used && len(s.Nodes) < 100 {
			t.Errorf("a Snapshot lacks nodes that it needs: %d", len(s.Nodes))
		}
		if !used && len(s.Nodes)+len(s.Problems) > 0 {
			t.Errorf("a Snapshot has nodes that nothing uses: %d", len(s.Nodes))
		}
	}
	w.until("the first", hasSeq(0))
	seq := commit(t, r, "u", `{"endpoints":true}`)
	s := w.until("the upstream and its nodes", hasSeq(seq))
	if n := s.Nodes[0]; n.Service != service || n.ID != "n000" || n.HostPort() != "10.0.0.1:80" || n.Incarnation == "" {
		t.Errorf("the first node is %+v", n)
	}
	if len(s.Problems) != 1 || s.Problems[0].Object != "node/"+service+"/named" {
		t.Errorf("the host name is no Problem: %v", s.Problems)
	}
	add("zz", endpoints.Endpoint{Addr: "[fd00::1]:81", Metadata: map[string]any{"zone": "a", "n": 1.5, "b": true, "list": []int{1}}})
	s = w.until("one more", func(s registry.Snapshot) bool { return len(s.Nodes) == 101 })
	n := s.Nodes[100]
	if n.HostPort() != "[fd00::1]:81" || len(n.Meta) != 3 || n.Meta["zone"] != "a" || n.Meta["n"] != "1.5" || n.Meta["b"] != "true" {
		t.Errorf("the new node is %+v", n)
	}
	listed := 0
	for from := ""; ; {
		page, err := r.ListNodes(t.Context(), service, from, 30)
		if err != nil {
			t.Fatal(err)
		}
		listed += len(page.Nodes)
		if from = page.Next; from == "" {
			break
		}
	}
	if listed != 101 {
		t.Errorf("listed page by page: %d", listed)
	}
	for from, want := range map[string]int{"endpoints": 101, service: 101, service + "/zz": 1, service + "0": 0} {
		if page, err := r.ListNodes(t.Context(), service, from, 0); err != nil || len(page.Nodes) != want {
			t.Errorf("from %s: %d, %v", from, len(page.Nodes), err)
		}
	}
	if got, err := r.GetNode(t.Context(), registry.NodeRef{Service: service, ID: "zz"}); err != nil || got.HostPort() != n.HostPort() {
		t.Errorf("get: %+v, %v", got, err)
	}
	if _, err := r.GetNode(t.Context(), registry.NodeRef{Service: service, ID: "named"}); !errors.Is(err, registry.ErrNotFound) {
		t.Errorf("get of what is no node: %v", err)
	}
	if err := em.DeleteEndpoint(t.Context(), target+"/zz"); err != nil {
		t.Fatal(err)
	}
	w.until("one less", func(s registry.Snapshot) bool { return len(s.Nodes) == 100 })
	seq = commit(t, r, "u", `{"endpoints":false}`)
	w.until("none any more", hasSeq(seq))
	seq = commit(t, r, "u", `{"endpoints":true}`)
	w.until("all again", hasSeq(seq))
}

func TestDecodeEndpoint(t *testing.T) {
	t.Parallel()
	set, err := endpointsOf("svc/chat/")
	if err != nil {
		t.Fatal(err)
	}
	cases := []struct {
		value string
		want  string // host and port, or a part of the error
		ok    bool
	}{
		{`{"Op":0,"Addr":"10.0.0.1:80","Metadata":null}`, "10.0.0.1:80", true},
		{`{"Op":0,"Addr":"[::1]:80","Metadata":"text"}`, "[::1]:80", true},
		{`{"Op":0,"Addr":"unix:///run/n.sock"}`, "unix:/run/n.sock", true},
		{`{"Op":0,"Addr":"unix:/run/n.sock"}`, "unix:/run/n.sock", true},
		{`{"Op":0,"Addr":"10.0.0.1:80","Metadata":{"k":{"deep":1}}}`, "10.0.0.1:80", true},
		{`{"Op":0,"Addr":"chat.example:80"}`, "host name", false},
		{`{"Op":0,"Addr":"10.0.0.1"}`, "port", false},
		{`{"Op":0,"Addr":"10.0.0.1:http"}`, "port number", false},
		{`{"Op":0,"Addr":"10.0.0.1:0"}`, "port", false},
		{`{"Op":0,"Addr":"10.0.0.1:80;}:1"}`, "not an address", false},
		{`{"Op":1,"Addr":"10.0.0.1:80"}`, "Op", false},
		{`{"Addr":"10.0.0.1:80"}`, "Op", false},
		{`10.0.0.1:80`, "naming/endpoints", false},
	}
	for _, tc := range cases {
		n, err := set.decode(entry(&mvccpb.KeyValue{Key: []byte("svc/chat/n1"), Value: []byte(tc.value), CreateRevision: 0x1f}))
		switch {
		case tc.ok && err != nil:
			t.Errorf("%s: %v", tc.value, err)
		case tc.ok && (n.HostPort() != tc.want || n.ID != "n1" || n.Service != "endpoints:svc/chat" || n.Incarnation != "1f"):
			t.Errorf("%s: got %+v", tc.value, n)
		case !tc.ok && (err == nil || !strings.Contains(err.Error(), tc.want)):
			t.Errorf("%s: got %+v, %v; want an error with %q", tc.value, n, err, tc.want)
		}
	}
	if _, err := endpointsOf("/"); err == nil {
		t.Error("an empty prefix is every key of etcd")
	}
}
