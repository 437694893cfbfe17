package registrytest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"sluice/registry"
)

func commitTests() []test {
	return []test{
		{"creates, updates and deletes", commitLifecycle},
		{"keeps fields that it does not know", commitKeepsFields},
		{"of what is there already changes nothing", commitUnchanged},
		{"checks the seqs that are expected", commitIfSeq},
		{"is refused when the head is another one", commitHead},
		{"is all or nothing", commitAtomic},
		{"checks the state after the change", commitCheck},
		{"checks again when another commit came in between", commitCheckAgain},
		{"refuses what is too large", commitTooLarge},
		{"refuses what is malformed", commitMalformed},
		{"lets one of two writers win", commitRace},
		{"numbers without a gap under contention", commitContention},
	}
}

func commitLifecycle(t *testing.T, e *env) {
	done := e.commit(t, write(site("a"), `{"x":1}`), write(site("b"), `{}`), write(secret("k"), `{"pem":"-"}`))
	if done.Seq != 1 || done.Unchanged || !slices.Equal(done.Changed, []registry.Ref{site("a"), site("b"), secret("k")}) {
		t.Errorf("create returned %+v", done)
	}
	if o := e.get(t, site("a")); o.Seq != 1 || o.Ref() != site("a") || !registry.SameJSON(o.Value, json.RawMessage(`{"x":1}`)) {
		t.Errorf("created: got %+v", o)
	}
	done = e.commit(t, write(site("a"), `{"x":2}`), write(site("b"), `{}`))
	if done.Seq != 2 || !slices.Equal(done.Changed, []registry.Ref{site("a")}) {
		t.Errorf("update returned %+v", done)
	}
	if a, b := e.get(t, site("a")), e.get(t, site("b")); a.Seq != 2 || b.Seq != 1 {
		t.Errorf("after the update, a is at %d and b at %d; want 2 and 1", a.Seq, b.Seq)
	}
	done = e.commit(t, erase(site("a")))
	if done.Seq != 3 || !slices.Equal(done.Changed, []registry.Ref{site("a")}) {
		t.Errorf("delete returned %+v", done)
	}
	if _, err := e.Two.Get(e.ctx, site("a")); !errors.Is(err, registry.ErrNotFound) {
		t.Errorf("the deleted object: got %v, want ErrNotFound", err)
	}
}

func commitKeepsFields(t *testing.T, e *env) {
	value := json.RawMessage(`{"futureField":{"deep":[1,2.50,"<&>"]},"big":12345678901234567890,"hosts":["a"]}`)
	e.commit(t, registry.Op{Ref: site("a"), Value: value})
	if o := e.get(t, site("a")); !registry.SameJSON(o.Value, value) {
		t.Errorf("got %s, want %s", o.Value, value)
	}
	s := e.watch(t, e.Two).next(e.Settle)
	if !registry.SameJSON(s.Objects[0].Value, value) {
		t.Errorf("the Snapshot has %s, want %s", s.Objects[0].Value, value)
	}
}

func commitUnchanged(t *testing.T, e *env) {
	e.commit(t, write(site("a"), `{"x":1,"y":[1,2]}`))
	for _, ops := range [][]registry.Op{
		{write(site("a"), `{"x":1,"y":[1,2]}`)},
		{write(site("a"), "{ \"y\" : [1, 2],\n \"x\":1}")},
		{erase(site("never-was"))},
		{},
	} {
		done := e.commit(t, ops...)
		if !done.Unchanged || done.Seq != 1 || len(done.Changed) != 0 {
			t.Errorf("%v returned %+v, want seq 1 unchanged", ops, done)
		}
	}
	if o := e.get(t, site("a")); o.Seq != 1 {
		t.Errorf("the object moved to seq %d", o.Seq)
	}
	if h := e.list(t, registry.KindHistory); len(h) != 1 {
		t.Errorf("there are %d history entries, want 1", len(h))
	}
	if done := e.commit(t, write(site("a"), `{"x":1,"y":[2,1]}`)); done.Unchanged {
		t.Error("another order of a list is a change")
	}
}

func commitIfSeq(t *testing.T, e *env) {
	e.commit(t, write(site("a"), `{"x":1}`))
	e.commit(t, write(site("a"), `{"x":2}`))
	cases := []struct {
		name string
		op   registry.Op
		have registry.Seq
	}{
		{"update of an old state", ifSeq(write(site("a"), `{"x":3}`), 1), 2},
		{"delete of an old state", ifSeq(erase(site("a")), 1), 2},
		{"create of what exists", ifSeq(write(site("a"), `{"x":3}`), 0), 2},
		{"an equal value of an old state", ifSeq(write(site("a"), `{"x":2}`), 1), 2},
		{"update of what does not exist", ifSeq(write(site("b"), `{}`), 1), 0},
		{"delete of what does not exist", ifSeq(erase(site("b")), 1), 0},
	}
	for _, tc := range cases {
		_, err := e.One.Commit(e.ctx, registry.Tx{Ops: []registry.Op{tc.op}})
		var conflict *registry.ConflictError
		if !errors.As(err, &conflict) {
			t.Errorf("%s: got %v, want a ConflictError", tc.name, err)
			continue
		}
		if want := (registry.ConflictError{Ref: tc.op.Ref, Want: *tc.op.IfSeq, Have: tc.have}); *conflict != want {
			t.Errorf("%s: got %+v, want %+v", tc.name, *conflict, want)
		}
	}
	e.commit(t, ifSeq(write(site("a"), `{"x":3}`), 2), ifSeq(write(site("b"), `{}`), 0))
	e.commit(t, ifSeq(erase(site("b")), 3))
}

func commitHead(t *testing.T, e *env) {
	commit := func(head registry.Seq, name string) error {
		_, err := e.One.Commit(e.ctx, registry.Tx{Ops: []registry.Op{write(site(name), `{}`)}, Head: &head})
		return err
	}
	if err := errors.Join(commit(0, "a"), commit(1, "b")); err != nil {
		t.Fatal(err)
	}
	for _, head := range []registry.Seq{0, 1, 3} {
		conflict, ok := errors.AsType[*registry.ConflictError](commit(head, "c"))
		if !ok || *conflict != (registry.ConflictError{Ref: registry.HeadRef, Want: head, Have: 2}) {
			t.Errorf("on head %d: %v", head, conflict)
		}
	}
	if names := e.list(t, registry.KindSite); len(names) != 2 {
		t.Errorf("there are %v", names)
	}
}

func commitAtomic(t *testing.T, e *env) {
	e.commit(t, write(site("a"), `{"x":1}`))
	_, err := e.One.Commit(e.ctx, registry.Tx{Ops: []registry.Op{
		write(site("b"), `{}`), write(site("a"), `{"x":2}`), ifSeq(write(site("c"), `{}`), 9),
	}})
	if err == nil {
		t.Fatal("a commit with a conflict succeeded")
	}
	if page, err := e.Two.List(e.ctx, registry.KindSite, "", 0); err != nil || len(page.Objects) != 1 || page.Objects[0].Seq != 1 || page.Seq != 1 {
		t.Errorf("something of it was committed: %+v, %v", page, err)
	}
	if h := e.list(t, registry.KindHistory); len(h) != 1 {
		t.Errorf("there are %d history entries, want 1", len(h))
	}
}

func commitCheck(t *testing.T, e *env) {
	e.commit(t, write(site("stays"), `{"x":0}`), write(site("changes"), `{"x":1}`), write(site("goes"), `{}`))
	refused := errors.New("refused")
	var calls int
	check := func(ctx context.Context, after registry.View) error {
		calls++
		sites, err := after.List(ctx, registry.KindSite)
		if err != nil {
			return err
		}
		var got []string
		for _, s := range sites {
			got = append(got, fmt.Sprintf("%s@%d%s", s.Name, s.Seq, s.Value))
		}
		if want := `changes@2{"x":2} comes@2{} stays@1{"x":0}`; strings.Join(got, " ") != want {
			t.Errorf("Check lists %q, want %q", got, want)
		}
		if after.Seq() != 1 {
			t.Errorf("Check sees a change of seq %d, want 1", after.Seq())
		}
		if _, err := after.Get(ctx, site("goes")); !errors.Is(err, registry.ErrNotFound) {
			t.Errorf("Check gets the deleted object: %v", err)
		}
		if _, err := after.Get(ctx, site("never")); !errors.Is(err, registry.ErrNotFound) {
			t.Errorf("Check gets what never was: %v", err)
		}
		if o, err := after.Get(ctx, site("stays")); err != nil || o.Seq != 1 {
			t.Errorf("Check gets %+v, %v", o, err)
		}
		if o, err := after.Get(ctx, site("comes")); err != nil || o.Seq != 2 {
			t.Errorf("Check gets %+v, %v", o, err)
		}
		return refused
	}
	tx := registry.Tx{Check: check, Ops: []registry.Op{
		write(site("changes"), `{"x":2}`), write(site("comes"), `{}`), erase(site("goes")),
	}}
	if _, err := e.One.Commit(e.ctx, tx); !errors.Is(err, refused) || calls != 1 {
		t.Errorf("got %v after %d calls, want what Check returned, after one", err, calls)
	}
	if sites := e.list(t, registry.KindSite); len(sites) != 3 {
		t.Errorf("a refused commit changed something: %+v", sites)
	}
}

func commitCheckAgain(t *testing.T, e *env) {
	e.commit(t, write(upstream("io"), `{}`))
	inUse := errors.New("in use")
	calls := 0
	check := func(ctx context.Context, after registry.View) error {
		calls++
		sites, err := after.List(ctx, registry.KindSite)
		if err != nil {
			return err
		}
		if calls == 1 {
			// Another instance begins to use the upstream that this one deletes.
			if _, err := e.Two.Commit(ctx, registry.Tx{Ops: []registry.Op{write(site("late"), `{"upstream":"io"}`)}}); err != nil {
				t.Error(err)
			}
		}
		if len(sites) > 0 {
			return inUse
		}
		return nil
	}
	_, err := e.One.Commit(e.ctx, registry.Tx{Ops: []registry.Op{erase(upstream("io"))}, Check: check})
	if !errors.Is(err, inUse) || calls != 2 {
		t.Errorf("got %v after %d calls; want it refused by the second", err, calls)
	}
	e.get(t, upstream("io"))
}

func commitTooLarge(t *testing.T, e *env) {
	var ops []registry.Op
	for i := range registry.MaxTxObjects + 1 {
		ops = append(ops, write(site(fmt.Sprintf("s%03d", i)), `{}`))
	}
	_, err := e.One.Commit(e.ctx, registry.Tx{Ops: ops})
	var tooLarge *registry.TooLargeError
	if !errors.As(err, &tooLarge) || tooLarge.What != "objects" || tooLarge.Have != len(ops) || tooLarge.Limit != registry.MaxTxObjects {
		t.Errorf("%d objects: got %v", len(ops), err)
	}
	if done := e.commit(t, ops[1:]...); len(done.Changed) != registry.MaxTxObjects {
		t.Errorf("%d objects: got %+v", registry.MaxTxObjects, done)
	}
	// What does not change does not count.
	if done := e.commit(t, ops...); !slices.Equal(done.Changed, []registry.Ref{ops[0].Ref}) {
		t.Errorf("one more: got %+v", done)
	}

	// The value, and the same in the history.
	half := strings.Repeat("x", registry.MaxTxBytes/2)
	_, err = e.One.Commit(e.ctx, registry.Tx{Ops: []registry.Op{write(upstream("big"), `{"a":%q}`, half)}})
	if !errors.As(err, &tooLarge) || tooLarge.What != "bytes" || tooLarge.Limit != registry.MaxTxBytes {
		t.Errorf("two times %d bytes: got %v", len(half), err)
	}
	e.commit(t, write(upstream("big"), `{"a":%q}`, half[:len(half)-1000]))
	if sites := e.list(t, registry.KindSite); len(sites) != registry.MaxTxObjects+1 {
		t.Errorf("there are %d sites, want %d", len(sites), registry.MaxTxObjects+1)
	}
}

func commitMalformed(t *testing.T, e *env) {
	cases := []struct {
		name string
		ops  []registry.Op
	}{
		{"a value that is no JSON", []registry.Op{write(site("a"), `{`)}},
		{"a value that is no object", []registry.Op{write(site("a"), `[]`)}},
		{"the same object twice", []registry.Op{write(site("a"), `{}`), erase(site("a"))}},
		{"no name", []registry.Op{write(site(""), `{}`)}},
		{"a name that can't be printed", []registry.Op{write(site("a\nb"), `{}`)}},
		{"a kind that is held", []registry.Op{write(registry.Ref{Kind: registry.KindGateway, Name: "g"}, `{}`)}},
		{"history", []registry.Op{erase(registry.Ref{Kind: registry.KindHistory, Name: registry.HistoryName(1)})}},
	}
	for _, tc := range cases {
		if done, err := e.One.Commit(e.ctx, registry.Tx{Ops: tc.ops}); err == nil {
			t.Errorf("%s: committed %+v", tc.name, done)
		}
	}
}

// commitRace has two writers change the same version of an object, again and again: exactly one wins each time.
func commitRace(t *testing.T, e *env) {
	const tries = 1000
	e.commit(t, write(site("a"), `{}`))
	type result struct {
		value string
		err   error
	}
	results := make(chan result, 2)
	for try := range tries {
		before := registry.Seq(try + 1)
		for i, r := range []registry.Registry{e.One, e.Two} {
			go func() {
				op := ifSeq(write(site("a"), `{"try":%d,"winner":%d}`, try, i), before)
				_, err := r.Commit(e.ctx, registry.Tx{Ops: []registry.Op{op}})
				results <- result{string(op.Value), err}
			}()
		}
		var winners []string
		for range 2 {
			res := <-results
			var conflict *registry.ConflictError
			switch {
			case res.err == nil:
				winners = append(winners, res.value)
			case !errors.As(res.err, &conflict):
				t.Errorf("the loser got %v, want a ConflictError", res.err)
			}
		}
		if o := e.get(t, site("a")); len(winners) != 1 || !registry.SameJSON(o.Value, json.RawMessage(winners[0])) || o.Seq != before+1 {
			t.Fatalf("try %d: winners: %q; stored: %s at %d", try, winners, o.Value, o.Seq)
		}
	}
}

func commitContention(t *testing.T, e *env) {
	const writers, each = 8, 5
	seqs := make(chan registry.Seq, writers*each)
	errs := make(chan error, writers)
	for i := range writers {
		r := []registry.Registry{e.One, e.Two}[i%2]
		go func() {
			for j := range each {
				done, err := r.Commit(e.ctx, registry.Tx{Ops: []registry.Op{write(site(fmt.Sprintf("s%d", i)), `{"j":%d}`, j)}})
				if err != nil {
					errs <- err
					return
				}
				seqs <- done.Seq
			}
			errs <- nil
		}()
	}
	for range writers {
		if err := <-errs; err != nil {
			t.Fatal(err)
		}
	}
	close(seqs)
	var got []registry.Seq
	for s := range seqs {
		got = append(got, s)
	}
	slices.Sort(got)
	for i, s := range got {
		if s != registry.Seq(i+1) {
			t.Fatalf("the seqs are %v, want 1 to %d", got, writers*each)
		}
	}
}
