package registrytest

import (
	"errors"
	"fmt"
	"slices"
	"testing"

	"sluice/registry"
)

func listTests() []test {
	return []test{
		{"goes page by page in order", listPages},
		{"shows what a commit that returned wrote", listLinearizable},
		{"keeps kinds and fleets apart", listKinds},
	}
}

func listPages(t *testing.T, e *env) {
	names := []string{"a", "a-b", "a/b", "a1", "b", "z.z"}
	var ops []registry.Op
	for _, i := range []int{3, 0, 5, 1, 4, 2} {
		ops = append(ops, write(registry.Ref{Kind: registry.KindOverride, Name: names[i]}, `{"i":%d}`, i))
	}
	done := e.commit(t, ops...)
	for limit := range len(names) + 2 {
		var got []string
		pages := 0
		for from := ""; ; {
			page, err := e.Two.List(e.ctx, registry.KindOverride, from, limit)
			if err != nil {
				t.Fatal(err)
			}
			if page.Seq != done.Seq || limit > 0 && len(page.Objects) > limit {
				t.Errorf("limit %d: %d objects at seq %d", limit, len(page.Objects), page.Seq)
			}
			for _, o := range page.Objects {
				got = append(got, o.Name)
			}
			pages++
			if from = page.Next; from == "" {
				break
			}
		}
		if !slices.Equal(got, names) {
			t.Errorf("limit %d: got %q, want %q", limit, got, names)
		}
		if limit > 0 && pages != (len(names)+limit-1)/limit {
			t.Errorf("limit %d: took %d pages", limit, pages)
		}
	}
	page, err := e.Two.List(e.ctx, registry.KindOverride, "a0", 1)
	if err != nil || len(page.Objects) != 1 || page.Objects[0].Name != "a1" || page.Next != "b" {
		t.Errorf("from a name that does not exist: %+v, %v", page, err)
	}
}

func listLinearizable(t *testing.T, e *env) {
	for i := range 30 {
		done := e.commit(t, write(site("a"), `{"i":%d}`, i))
		page, err := e.Two.List(e.ctx, registry.KindSite, "", 0)
		if err != nil || page.Seq != done.Seq || len(page.Objects) != 1 || page.Objects[0].Seq != done.Seq {
			t.Fatalf("after seq %d, the other handle lists %+v, %v", done.Seq, page, err)
		}
		if o := e.get(t, site("a")); o.Seq != done.Seq {
			t.Fatalf("after seq %d, the other handle gets %d", done.Seq, o.Seq)
		}
		n := node("io", fmt.Sprintf("n%02d", i))
		e.put(t, n, long)
		if indexNode(e.nodes(t), n.Ref()) < 0 {
			t.Fatalf("after its Put, the other handle does not list %s", n.Ref())
		}
	}
}

func listKinds(t *testing.T, e *env) {
	e.commit(t, write(site("a"), `{"site":true}`), write(upstream("a"), `{"upstream":true}`))
	if sites := e.list(t, registry.KindSite); len(sites) != 1 || sites[0].Ref() != site("a") {
		t.Errorf("sites: %+v", sites)
	}
	if certs := e.list(t, registry.KindCertificate); len(certs) != 0 {
		t.Errorf("certificates: %+v", certs)
	}
	if _, err := e.Two.Get(e.ctx, site("")); !errors.Is(err, registry.ErrNotFound) {
		t.Errorf("get of no name: %v", err)
	}
}
