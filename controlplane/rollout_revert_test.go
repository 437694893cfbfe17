package controlplane

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"testing"

	"sluice/registry"
)

// Only what nobody has changed since is put back.
func TestWhatIsPutBack(t *testing.T) {
	t.Parallel()
	const seq = 5
	site := func(name string, at registry.Seq) registry.Object {
		return registry.Object{Kind: registry.KindSite, Name: name, Seq: at, Value: json.RawMessage(`{}`)}
	}
	before := json.RawMessage(`{"was": true}`)
	r := registry.Rollout{Seq: seq, Changes: []registry.RolledOut{
		{Kind: registry.KindSite, Name: "altered", Seq: seq, BeforeSeq: 1, Before: before},
		{Kind: registry.KindSite, Name: "altered-again", Seq: seq, BeforeSeq: 1, Before: before},
		{Kind: registry.KindSite, Name: "created", Seq: seq},
		{Kind: registry.KindSite, Name: "created-gone", Seq: seq},
		{Kind: registry.KindSite, Name: "deleted", Seq: seq, BeforeSeq: 1, Before: before, Deleted: true},
		{Kind: registry.KindSite, Name: "deleted-back", Seq: seq, BeforeSeq: 1, Before: before, Deleted: true},
		{Kind: registry.KindSecret, Name: "key", Seq: seq},
	}}
	reg := &fakeRegistry{lists: map[registry.Kind][]registry.Object{
		registry.KindSite: {site("altered", seq), site("altered-again", seq+1), site("created", seq), site("deleted-back", seq+1)},
	}}
	c := &crew{Controller: &Controller{Options: Options{Registry: reg}}}
	ops, err := c.backOps(t.Context(), r)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, op := range ops {
		got = append(got, fmt.Sprintf("%s %s if %d", op.Ref, op.Value, *op.IfSeq))
	}
	want := []string{`site/altered {"was": true} if 5`, `site/created  if 5`, `site/deleted {"was": true} if 0`}
	if !slices.Equal(got, want) {
		t.Errorf("got  %q\nwant %q", got, want)
	}
	if keys := createdKeys(r); !slices.Equal(keys, []string{"key"}) {
		t.Errorf("keys that it brought: %v", keys)
	}
}

type listView []registry.Object

func (v listView) Get(context.Context, registry.Ref) (registry.Object, error) {
	return registry.Object{}, registry.ErrNotFound
}

func (v listView) Seq() registry.Seq { return 0 }

func (v listView) List(_ context.Context, kind registry.Kind) ([]registry.Object, error) {
	return slices.DeleteFunc(slices.Clone([]registry.Object(v)), func(o registry.Object) bool { return o.Kind != kind }), nil
}

// An upstream that a later site uses is not taken away from it.
func TestPuttingBackBreaksNothing(t *testing.T) {
	t.Parallel()
	after := listView{{Kind: registry.KindSite, Name: "later", Value: json.RawMessage(`{"routes": [{"upstream": "new"}]}`)}}
	for name, want := range map[string]bool{"new": false, "other": true} {
		op := registry.Op{Ref: registry.Ref{Kind: registry.KindUpstream, Name: name}}
		err := whole([]registry.Op{op})(t.Context(), after)
		if _, broken := errors.AsType[*brokenError](err); broken == want {
			t.Errorf("to delete upstream %q: %v", name, err)
		}
	}
}
