package consul

import (
	"fmt"
	"regexp"
	"testing"
	"unicode/utf8"

	"sluice/registry/keyspace"
)

func FuzzPieces(f *testing.F) {
	f.Add("")
	f.Add("{}")
	f.Add("äöü€𝄞")
	for _, seed := range []int{511, 512, 513, 1024, 5000} {
		f.Add(fmt.Sprintf("%0*dü€𝄞", seed, 1))
	}
	f.Fuzz(func(t *testing.T, value string) {
		if !utf8.ValidString(value) {
			t.Skip()
		}
		meta := pieces(value)
		for k, v := range meta {
			if len(v) > maxMetaValue || !utf8.ValidString(v) || v == "" {
				t.Errorf("%s is %q, of %d bytes", k, v, len(v))
			}
		}
		if got := joined(meta); got != value {
			t.Errorf("got %q, want %q", got, value)
		}
	})
}

// TestServiceID: ids differ where nodes do, and survive in the path of a URL.
func TestServiceID(t *testing.T) {
	t.Parallel()
	r := &Registry{cfg: Config{Fleet: keyspace.DefaultFleet}}
	safe := regexp.MustCompile(`^[A-Za-z0-9._:@~-]+$`)
	seen := map[string]string{}
	for _, n := range [][2]string{
		{"io", "n1"}, {"io", "n1:x"}, {"io", "a/b"}, {"io", "a//b"}, {"io", ".."}, {"io", "../x"}, {"io", "a b"}, {"io", "a?b"}, {"io", "a%2Fb"},
		{"io", "ü"}, {"io-2", "n1"}, {"io.2", "n1"}, {"io", "2:n1"}, {"io", "~x"},
	} {
		id := r.serviceID(n[0], n[1])
		if !safe.MatchString(id) {
			t.Errorf("%q: %q would not survive in a path", n, id)
		}
		if other, ok := seen[id]; ok {
			t.Errorf("%q and %q have the same id %q", n, other, id)
		}
		seen[id] = fmt.Sprint(n)
	}
	if id := r.serviceID("io", "n1"); id != "default:io:n1" {
		t.Errorf("the plain one is %q", id)
	}
}

func TestQueryIndexGoesBack(t *testing.T) {
	t.Parallel()
	r := open(t, shared, Config{}, impatient)
	q := &query{r: r}
	steps := []struct {
		index       uint64
		believe     bool
		waitsBeyond uint64
	}{
		{10, true, 10}, {10, true, 10}, {12, true, 12},
		{5, false, 0},               // perhaps of a leader that has not read its log: asked again, for certain
		{12, true, 12},              // it was
		{5, false, 0}, {6, true, 6}, // and now it is another Consul
		{7, true, 7},
	}
	for i, s := range steps {
		if believe := q.note(s.index); believe != s.believe || q.index != s.waitsBeyond {
			t.Errorf("step %d, index %d: believed %v, waits beyond %d; want %+v", i, s.index, believe, q.index, s)
		}
	}
}
