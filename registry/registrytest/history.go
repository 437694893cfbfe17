package registrytest

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"sluice/registry"
)

func historyTests() []test {
	return []test{
		{"holds before and after", historyEntries},
		{"holds no secret", historySecrets},
		{"is trimmed", historyTrimmed},
		{"is tidied by age", historyTidied},
	}
}

func changes(t *testing.T, e *env) []registry.Change {
	t.Helper()
	var out []registry.Change
	for _, o := range e.list(t, registry.KindHistory) {
		var c registry.Change
		if err := json.Unmarshal(o.Value, &c); err != nil {
			t.Fatalf("history %s: %v", o.Name, err)
		}
		if o.Name != registry.HistoryName(c.Seq) || o.Seq != c.Seq {
			t.Errorf("entry %s (seq %d) is about seq %d", o.Name, o.Seq, c.Seq)
		}
		out = append(out, c)
	}
	return out
}

func historyEntries(t *testing.T, e *env) {
	began := time.Now()
	e.commit(t, write(site("a"), `{"x":1}`), write(site("b"), `{}`))
	e.commit(t, write(site("a"), `{"x":2}`), write(site("b"), `{}`))
	e.commit(t, erase(site("a")))
	want := [][]registry.ObjectChanged{
		{
			{Kind: registry.KindSite, Name: "a", After: json.RawMessage(`{"x":1}`)},
			{Kind: registry.KindSite, Name: "b", After: json.RawMessage(`{}`)},
		},
		{{Kind: registry.KindSite, Name: "a", Before: json.RawMessage(`{"x":1}`), After: json.RawMessage(`{"x":2}`)}},
		{{Kind: registry.KindSite, Name: "a", Before: json.RawMessage(`{"x":2}`)}},
	}
	got := changes(t, e)
	if len(got) != len(want) {
		t.Fatalf("there are %d entries, want %d", len(got), len(want))
	}
	for i, c := range got {
		if c.Seq != registry.Seq(i+1) || c.Author != "tester" || c.Reason != t.Name() {
			t.Errorf("entry %d is %+v", i, c)
		}
		if c.At.Before(began.Add(-time.Second)) || c.At.After(time.Now().Add(time.Second)) {
			t.Errorf("entry %d is of %s, it is now %s", i, c.At, time.Now())
		}
		if len(c.Changes) != len(want[i]) {
			t.Errorf("entry %d has %+v, want %+v", i, c.Changes, want[i])
			continue
		}
		for j, o := range c.Changes {
			w := want[i][j]
			if o.Kind != w.Kind || o.Name != w.Name || string(o.Before) != string(w.Before) || string(o.After) != string(w.After) {
				t.Errorf("entry %d, change %d is %s/%s %s → %s, want %s → %s", i, j, o.Kind, o.Name, o.Before, o.After, w.Before, w.After)
			}
		}
	}
	page, err := e.Two.List(e.ctx, registry.KindHistory, registry.HistoryName(2), 1)
	if err != nil || len(page.Objects) != 1 || page.Objects[0].Seq != 2 || page.Next != registry.HistoryName(3) {
		t.Errorf("the page from seq 2: %+v, %v", page, err)
	}
}

func historySecrets(t *testing.T, e *env) {
	const key = "PRIVATE"
	confidential := []registry.Kind{registry.KindSecret, registry.KindToken}
	for _, kind := range confidential {
		ref := registry.Ref{Kind: kind, Name: "k"}
		e.commit(t, write(ref, `{"pem":%q}`, key))
		e.commit(t, write(ref, `{"pem":%q}`, key+"2"))
		e.commit(t, erase(ref))
	}
	for _, o := range e.list(t, registry.KindHistory) {
		if strings.Contains(string(o.Value), key) {
			t.Errorf("the history holds the secret: %s", o.Value)
		}
	}
	for i, c := range changes(t, e) {
		if len(c.Changes) != 1 || c.Changes[0].Kind != confidential[i/3] || c.Changes[0].Name != "k" {
			t.Errorf("the history does not name the secret: %+v", c)
		}
	}
	if o := e.list(t, registry.KindHistory); len(o) != 3*len(confidential) {
		t.Errorf("there are %d entries, want %d", len(o), 3*len(confidential))
	}
}

func historyTrimmed(t *testing.T, e *env) {
	const extra = 3
	for i := range registry.MaxHistory + extra {
		e.commit(t, write(site("a"), `{"i":%d}`, i))
	}
	page, err := e.Two.List(e.ctx, registry.KindHistory, "", 1)
	if err != nil || len(page.Objects) != 1 || page.Objects[0].Seq != extra+1 {
		t.Errorf("the oldest entry is %+v (%v), want seq %d", page.Objects, err, extra+1)
	}
	if all := e.list(t, registry.KindHistory); len(all) != registry.MaxHistory {
		t.Errorf("there are %d entries, want %d", len(all), registry.MaxHistory)
	}
}

// historyTidied has what is old deleted from the front, by many at once, and what is young stay.
func historyTidied(t *testing.T, e *env) {
	const old = registry.MaxTidied + 20
	day := time.Now().Add(-100 * 24 * time.Hour)
	entry := func(seq registry.Seq, at time.Time) {
		e.PutRawObject(t, registry.Ref{Kind: registry.KindHistory, Name: registry.HistoryName(seq)},
			fmt.Sprintf(`{"v":1,"seq":%d,"value":{"seq":%d,"at":%q,"changes":[]}}`, seq, seq, at.Format(time.RFC3339)))
	}
	oldest := func() registry.Seq {
		page, err := e.Two.List(e.ctx, registry.KindHistory, "", 1)
		if err != nil || len(page.Objects) != 1 {
			t.Fatalf("the oldest entry: %+v, %v", page, err)
		}
		return page.Objects[0].Seq
	}
	limit := time.Now().Add(-registry.HistoryAge)
	tidy := func(r registry.Registry, before time.Time) bool {
		more, err := r.TidyHistory(e.ctx, before)
		if err != nil {
			t.Error(err)
		}
		return more
	}
	if tidy(e.One, limit) {
		t.Error("there is more of no entries")
	}
	for seq := range registry.Seq(old) {
		entry(seq+1, day)
	}
	e.PutRawObject(t, registry.Ref{Kind: registry.KindHistory, Name: registry.HistoryName(5)}, "?")
	entry(old+1, limit.Add(time.Hour)) // younger by an hour
	entry(old+2, day)                  // of somebody whose clock was wrong: it goes with what was before it
	if !tidy(e.One, limit) || oldest() != registry.MaxTidied+1 {
		t.Errorf("after the first time the oldest is of seq %d, want %d", oldest(), registry.MaxTidied+1)
	}
	done := make(chan bool)
	const tidiers = 4
	for i := range tidiers {
		r := []registry.Registry{e.One, e.Two}[i%2]
		go func() {
			for tidy(r, limit) {
			}
			done <- true
		}()
	}
	for range tidiers {
		<-done
	}
	if got := oldest(); got != old+1 {
		t.Errorf("the oldest is of seq %d, want %d", got, old+1)
	}
	if tidy(e.Two, time.Now().Add(time.Hour)) || len(e.list(t, registry.KindHistory)) != 0 {
		t.Errorf("with all of them old, there is %+v", e.list(t, registry.KindHistory))
	}
}
