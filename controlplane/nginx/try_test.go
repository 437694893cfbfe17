package nginx

import (
	"errors"
	"os"
	"slices"
	"strings"
	"testing"

	"sluice/internal/testport"
	"sluice/templates"
)

// A trial tells what an apply would, and leaves nothing behind: neither files nor workers nor links.
func TestTry(t *testing.T) {
	t.Parallel()
	d, port := open(t, options(t)), testport.Free(t)
	apply(t, d, bundle(site(port, "one", "")), Started)
	state := func() []string {
		t.Helper()
		entries, err := os.ReadDir(path(d, "conf"))
		if err != nil {
			t.Fatal(err)
		}
		out := []string{d.linked(current), d.linked(good)}
		for _, e := range entries {
			out = append(out, e.Name())
		}
		return out
	}
	before, workers := state(), acceptingPIDs(t, d)

	if err := d.Try(t.Context(), bundle(site(port, "two", ""))); err != nil {
		t.Errorf("a good one: %v", err)
	}
	err := d.Try(t.Context(), bundle(site(port, "three", "")+"\nbogus on;\n"))
	refused, ok := errors.AsType[*RefusedError](err)
	if !ok || refused.Stage != StageTest || !strings.Contains(refused.Output, `unknown directive "bogus"`) {
		t.Errorf("a bad one: %v", err)
	}
	if err := d.Try(t.Context(), bundleOf(templates.File{Path: "../out", Data: []byte("x"), Mode: 0o644})); err == nil {
		t.Error("a file outside of the directory was taken")
	}
	if after := state(); !slices.Equal(after, before) {
		t.Errorf("the directory was %v, and is %v", before, after)
	}
	if after := acceptingPIDs(t, d); !slices.Equal(after, workers) {
		t.Errorf("the workers were %v, and are %v", workers, after)
	}
	serves(t, port, "one")
	apply(t, d, bundle(site(port, "two", "")), Reloaded)
	serves(t, port, "two")
}
