package api_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"sluice/api"
	"sluice/controlplane"
	"sluice/controlplane/spec"
	"sluice/registry"
)

// exportKey is what sluice export makes of a key file.
func exportKey(t *testing.T, fill byte) *api.ExportKey {
	t.Helper()
	key, err := api.NewExportKey(bytes.Repeat([]byte{fill}, 32))
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// export returns an export with sealed keys, and its text.
func (in *instance) export(key *api.ExportKey) (e api.Export, text string) {
	in.t.Helper()
	a := in.do("GET", "/v1/export?recipient="+key.Recipient(), "", bearer(adminToken)).want(200)
	a.json(&e)
	return e, a.body
}

func (in *instance) restore(e api.Export, query string) answer {
	in.t.Helper()
	text, err := registry.MarshalJSON(e)
	if err != nil {
		in.t.Fatal(err)
	}
	return in.do("POST", "/v1/restore?"+query, string(text), bearer(adminToken))
}

func open(t *testing.T, key *api.ExportKey, e api.Export) api.Export {
	t.Helper()
	if err := key.Open(&e); err != nil {
		t.Fatal(err)
	}
	return e
}

// desired returns all that is desired, to the byte, but not when it was written.
func (in *instance) desired() map[registry.Ref]string {
	in.t.Helper()
	all := map[registry.Ref]string{}
	for _, kind := range registry.DesiredKinds() {
		page, err := in.registry.List(in.t.Context(), kind, "", 0)
		if err != nil {
			in.t.Fatal(err)
		}
		for _, o := range page.Objects {
			all[o.Ref()] = string(o.Value)
		}
	}
	return all
}

func (in *instance) wantDesired(want map[registry.Ref]string) {
	in.t.Helper()
	have := in.desired()
	for ref, value := range want {
		if have[ref] != value {
			in.t.Errorf("%s is %s, want %s", ref, have[ref], value)
		}
	}
	for ref := range have {
		if _, ok := want[ref]; !ok {
			in.t.Errorf("%s is there, too", ref)
		}
	}
}

func (in *instance) head() registry.Seq {
	in.t.Helper()
	page, err := in.registry.List(in.t.Context(), registry.KindSite, "", 1)
	if err != nil {
		in.t.Fatal(err)
	}
	return page.Seq
}

// furnished starts an instance with an object of each kind, one of them with fields of a newer version, and returns the
// private key of its certificate.
func furnished(t *testing.T) (in *instance, key string) {
	t.Helper()
	in = startWith(t, newRegistry(t), adminToken)
	pair := makePair(t)
	admin := bearer(adminToken)
	in.do("PUT", "/v1/certificates/main", body(t, pair), admin).want(201)
	in.do("PUT", "/v1/upstreams/io", `{"balance":{"method":"ip_hash"}}`, admin).want(201)
	in.do("PUT", "/v1/sites/chat", `{"hosts":["chat.example"],"listeners":[{"port":8443,"tls":true}],"certificate":"main","routes":[{"upstream":"io"}]}`, admin).want(201)
	in.do("PUT", "/v1/overrides/io/n1", `{"state":"draining","note":"a <b> & c"}`, admin).want(201)
	in.do("PUT", "/v1/approvals/io", `{"note":"known"}`, admin).want(201)
	in.token(`{"name": "ops", "role": "operator"}`)
	newer := registry.Op{Ref: registry.Ref{Kind: registry.KindUpstream, Name: "newer"}, Value: json.RawMessage(`{"futureField":{"deep":[1,2.50,"<&>"]},"service":"io","big":12345678901234567890}`)}
	if _, err := in.registry.Commit(t.Context(), registry.Tx{Ops: []registry.Op{newer}}); err != nil {
		t.Fatal(err)
	}
	for _, upstream := range []string{"io", "deleted-long-ago"} {
		table := registry.SlotTable{Upstream: upstream, Slots: []registry.Slot{{Node: "0123456789", Weight: 2, Absent: 1}, {Node: "abcdef0123", Weight: 1}}}
		if err := in.registry.PutSlots(t.Context(), table); err != nil {
			t.Fatal(err)
		}
	}
	return in, pair.Key
}

func TestExportAndRestore(t *testing.T) {
	t.Parallel()
	in, private := furnished(t)
	key := exportKey(t, 1)
	e, text := in.export(key)
	if e.Format != 1 || e.Seq != in.head() || len(e.State.Upstreams) != 2 || len(e.SealedKeys) != 1 || len(e.Slots) != 1 || len(e.State.Tokens) != 1 {
		t.Errorf("%s", text)
	}
	if !strings.Contains(in.audit.String(), `"operation":"export"`) {
		t.Error("the audit log does not tell of the export")
	}

	to := startWith(t, newRegistry(t), adminToken)
	opened := open(t, key, e)
	dry := to.restore(opened, "tokens=true&dryRun=true").want(200)
	to.wantDesired(nil)
	done := to.restore(opened, "tokens=true").want(200)
	to.wantDesired(in.desired())
	tables, err := to.registry.ListSlots(t.Context())
	if err != nil || len(tables) != 1 || !slices.Equal(tables[0].Slots, e.Slots["io"]) {
		t.Errorf("slots: %+v, %v", tables, err)
	}
	var result, wouldBe api.ChangeResult
	done.json(&result)
	dry.json(&wouldBe)
	if result.Seq != 1 || len(result.Changes) != 7 || len(wouldBe.Changes) != 7 {
		t.Errorf("%s\n%s", done.body, dry.body)
	}
	if again := to.restore(opened, "tokens=true").want(200); strings.Contains(again.body, "created") || to.head() != 1 {
		t.Errorf("once more: %s", again.body)
	}
	var history api.HistoryList
	to.do("GET", "/v1/history", "", bearer(adminToken)).want(200).json(&history)
	if h := history.Items[0]; h.Author != "token" || !strings.HasPrefix(h.Reason, fmt.Sprintf("restore of the export of seq %d, ", e.Seq)) {
		t.Errorf("%+v", h)
	}

	entries, err := to.registry.List(t.Context(), registry.KindHistory, "", 0)
	if err != nil {
		t.Fatal(err)
	}
	secret := strings.Split(private, "\n")[1]
	for what, text := range map[string]string{
		"export": text, "dry run": dry.body, "answer": done.body, "log": in.log.String() + to.log.String(), "audit log": in.audit.String() + to.audit.String(),
		"history": string(entries.Objects[0].Value),
	} {
		if strings.Contains(text, secret) || strings.Contains(text, `PRIVATE KEY`) {
			t.Errorf("the private key is in the %s", what)
		}
	}
	if strings.Contains(dry.body, "hash") && strings.Contains(dry.body, string(e.State.Tokens["ops"])) {
		t.Errorf("the hash of a token is in the dry run: %s", dry.body)
	}
}

func TestExportWithoutKeys(t *testing.T) {
	t.Parallel()
	in, _ := furnished(t)
	a := in.do("GET", "/v1/export", "", bearer(adminToken)).want(200)
	var e api.Export
	a.json(&e)
	if e.SealedKeys != nil || e.Recipient != "" {
		t.Errorf("%s", a.body)
	}
	to := startWith(t, newRegistry(t), adminToken)
	to.restore(e, "").wantDetail(422, "/state/certificates/main/keySHA256: its key is neither stored nor in keys")
	to.wantDesired(nil)
	in.do("DELETE", "/v1/sites/chat", "", bearer(adminToken)).want(200)
	in.restore(e, "").want(200) // where its key is stored
	for _, recipient := range []string{"x", strings.Repeat("A", 43), strings.Repeat("!", 43)} {
		in.do("GET", "/v1/export?recipient="+recipient, "", bearer(adminToken)).wantDetail(400, "X25519")
	}
}

// What this instance cannot read, another one can: an export without it would be no whole one.
func TestExportOfWhatCannotBeRead(t *testing.T) {
	t.Parallel()
	in, _ := furnished(t)
	in.local.snapshot.Store(&registry.Snapshot{Problems: []registry.Problem{{Object: "site/next", Message: "it was written in a later format"}}})
	in.do("GET", "/v1/export", "", bearer(adminToken)).wantDetail(409, "site/next: it was written in a later format")
	in.local.snapshot.Store(nil)

	below := newRegistry(t)
	sealed := func(fill byte) registry.Registry {
		r, err := registry.Seal(below, bytes.Repeat([]byte{fill}, 32))
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	to := startWith(t, sealed(7), adminToken)
	key := exportKey(t, 1)
	e, _ := in.export(key)
	to.restore(open(t, key, e), "tokens=true").want(200)
	to.wantDesired(in.desired())
	blind := startWith(t, sealed(8), adminToken)
	blind.do("GET", "/v1/export?recipient="+key.Recipient(), "", bearer(adminToken)).wantDetail(409, "the key of certificate/main cannot be read here")
	blind.do("GET", "/v1/export", "", bearer(adminToken)).want(200)
}

func TestRestoreRefuses(t *testing.T) {
	t.Parallel()
	in, private := furnished(t)
	key := exportKey(t, 1)
	e, text := in.export(key)
	if err := exportKey(t, 2).Open(&e); err == nil || !strings.Contains(err.Error(), "another key file") {
		t.Errorf("opened with another key: %v", err)
	}
	opened := open(t, key, e)
	hash := spec.KeyHash(private)
	other := "x"
	if strings.HasPrefix(e.SealedKeys[hash], other) {
		other = "y"
	}
	for _, damaged := range []string{"", "AAAA", other + e.SealedKeys[hash][1:], e.SealedKeys[hash][:40]} {
		e := e
		e.SealedKeys = map[string]string{hash: damaged}
		if err := key.Open(&e); err == nil || !strings.Contains(err.Error(), hash+" of the export is damaged") {
			t.Errorf("%q: %v", damaged, err)
		}
	}

	to := startWith(t, newRegistry(t), adminToken)
	to.do("PUT", "/v1/upstreams/stays", `{}`, bearer(adminToken)).want(201)
	before := to.desired()
	edited := func(change func(e *api.Export)) api.Export {
		var out api.Export
		if err := json.Unmarshal([]byte(body(t, opened)), &out); err != nil {
			t.Fatal(err)
		}
		change(&out)
		return out
	}
	unsummed := func(change func(e *api.Export)) api.Export {
		return edited(func(e *api.Export) { e.Checksum = ""; change(e) })
	}
	set := func(objects map[string]json.RawMessage, name, value string) { objects[name] = json.RawMessage(value) }
	for says, bad := range map[string]api.Export{
		"/format: is 2, and this version of sluice restores 1": edited(func(e *api.Export) { e.Format = 2 }),
		"/checksum: the export is damaged":                     edited(func(e *api.Export) { set(e.State.Upstreams, "io", `{"service":"x"}`) }),
		"/keys/" + hash + ": is not the key of this name":      edited(func(e *api.Export) { e.Keys[hash] = strings.Replace(private, "M", "N", 1) }),
		"/state/certificates/main/key: does not belong here":   unsummed(func(e *api.Export) { set(e.State.Certificates, "main", body(t, makePair(t))) }),
		"/state/sites/chat/routes/0/upstream: there is no":     unsummed(func(e *api.Export) { delete(e.State.Upstreams, "io") }),
		"/state/sites/chat: is not site that":                  unsummed(func(e *api.Export) { set(e.State.Sites, "chat", `null`) }),
		"/state/upstreams/io/balance/method":                   unsummed(func(e *api.Export) { set(e.State.Upstreams, "io", `{"balance":{"method":"magic"}}`) }),
		"/state/upstreams/B~1C: ":                              unsummed(func(e *api.Export) { set(e.State.Upstreams, "B/C", `{}`) }),
		"/state/tokens/ops/hash: is missing":                   unsummed(func(e *api.Export) { set(e.State.Tokens, "ops", `{"role":"admin"}`) }),
		"/slots/io: are not the slots":                         unsummed(func(e *api.Export) { e.Slots["io"][0].Node = "x;" }),
	} {
		to.restore(bad, "replace=true&tokens=true").wantDetail(422, says)
	}
	to.do("POST", "/v1/restore", text[:len(text)/2], bearer(adminToken)).problem(400)
	to.do("POST", "/v1/restore", strings.Replace(text, `"format"`, `"formats"`, 1), bearer(adminToken)).wantDetail(422, "/formats: is unknown")
	to.restore(opened, "").wantDetail(409, "of its objects 1 are not as in the export, first upstream/stays")
	to.local.try = func(map[registry.Ref]*registry.Object) (controlplane.Trial, error) {
		return controlplane.Trial{Refused: []registry.Problem{{Object: "site/chat", Message: "nginx says no"}}}, nil
	}
	to.restore(opened, "replace=true").wantDetail(422, "/state/sites/chat: nginx says no")
	to.local.try = nil
	to.wantDesired(before)
	if tables, err := to.registry.ListSlots(t.Context()); err != nil || len(tables) > 0 {
		t.Errorf("slots: %v, %v", tables, err)
	}
	if strings.Contains(to.log.String()+to.audit.String(), strings.Split(private, "\n")[1]) {
		t.Error("the private key is in a log")
	}
}

// meddling does something before each commit.
type meddling struct {
	registry.Registry
	commits atomic.Int32
	before  func(n int32) error
}

func (m *meddling) Commit(ctx context.Context, tx registry.Tx) (registry.Committed, error) {
	if err := m.before(m.commits.Add(1)); err != nil {
		return registry.Committed{}, err
	}
	return m.Registry.Commit(ctx, tx)
}

const manyOf = 130

// many is a state that takes several transactions: by the number of its objects, and by their size.
func many(t *testing.T) api.Export {
	t.Helper()
	e := api.Export{Format: 1, Seq: 1, State: api.ExportedState{Upstreams: map[string]api.StoredObject{}, Sites: map[string]api.StoredObject{}}}
	for i := range manyOf {
		e.State.Upstreams[fmt.Sprintf("u%d", i)] = json.RawMessage(fmt.Sprintf(`{"service":"io","future":%q}`, strings.Repeat("x", 3000)))
		e.State.Sites[fmt.Sprintf("s%d", i)] = json.RawMessage(fmt.Sprintf(`{"hosts":["h%d.example"],"listeners":[{"port":8080}],"routes":[{"upstream":"u%d"}]}`, i, i))
	}
	return e
}

func TestRestoreOfMany(t *testing.T) {
	t.Parallel()
	e := many(t)
	broken := errors.New("the disk is full")
	r := &meddling{Registry: newRegistry(t), before: func(n int32) error {
		if n > 3 {
			return broken
		}
		return nil
	}}
	in := startWith(t, r, adminToken)
	in.restore(e, "").wantDetail(500, "objects are done; restore it again to go on")
	some := in.desired()
	if len(some) == 0 || len(some) == 2*manyOf {
		t.Fatalf("%d objects are stored", len(some))
	}
	// It goes on when others know nothing of it, without being told to replace anything.
	r.before = func(int32) error { return nil }
	var result api.ChangeResult
	in.restore(e, "").want(200).json(&result)
	unchanged := 0
	for _, c := range result.Changes {
		if c.Action == api.Unchanged {
			unchanged++
		}
	}
	if len(result.Changes) != 2*manyOf || unchanged != len(some) || len(in.desired()) != 2*manyOf || result.Seq != in.head() {
		t.Errorf("seq %d: %d changes, %d of them none after %d", result.Seq, len(result.Changes), unchanged, len(some))
	}
	for _, c := range result.Changes {
		o, err := in.registry.Get(t.Context(), registry.Ref{Kind: registry.Kind(c.Kind), Name: c.Name})
		if err != nil || o.Seq != c.Seq {
			t.Fatalf("%s/%s is at %d, the answer says %d: %v", c.Kind, c.Name, o.Seq, c.Seq, err)
		}
	}

	// To another state, in which hosts have moved between sites that are written in different transactions.
	moved := many(t)
	delete(moved.State.Sites, "s0")
	delete(moved.State.Upstreams, "u7")
	for i := range manyOf - 1 {
		moved.State.Sites[fmt.Sprintf("s%d", i+1)] = json.RawMessage(fmt.Sprintf(`{"hosts":["h%d.example"],"listeners":[{"port":8080,"proxyProtocol":true}],"routes":[{"upstream":"u0"}]}`, i))
	}
	in.restore(moved, "").wantDetail(409, "of its objects 131 are not as in the export")
	var dry api.ChangeResult
	in.restore(moved, "replace=true&dryRun=true").want(200).json(&dry)
	deleted := slices.DeleteFunc(dry.Changes, func(c api.Change) bool { return c.Action != api.Deleted })
	if len(deleted) != 2 || deleted[0].Name != "s0" || deleted[1].Name != "u7" {
		t.Errorf("%+v", deleted)
	}
	in.restore(moved, "replace=true").want(200)
	want := map[registry.Ref]string{}
	for name, value := range moved.State.Sites {
		want[registry.Ref{Kind: registry.KindSite, Name: name}] = string(value)
	}
	for name, value := range moved.State.Upstreams {
		want[registry.Ref{Kind: registry.KindUpstream, Name: name}] = string(value)
	}
	in.wantDesired(want)
}

// Whoever writes during a restore loses nothing: the restore stops.
func TestRestoreBesideAWriter(t *testing.T) {
	t.Parallel()
	below := newRegistry(t)
	r := &meddling{Registry: below}
	r.before = func(n int32) error {
		if n != 3 {
			return nil
		}
		_, err := below.Commit(t.Context(), registry.Tx{Ops: []registry.Op{{Ref: registry.Ref{Kind: registry.KindUpstream, Name: "u99"}, Value: json.RawMessage(`{"service":"mine"}`)}}})
		return err
	}
	in := startWith(t, r, adminToken)
	in.restore(many(t), "").wantDetail(409, "somebody else changed the desired state while it was restored")
	if o, err := below.Get(t.Context(), registry.Ref{Kind: registry.KindUpstream, Name: "u99"}); err != nil || string(o.Value) != `{"service":"mine"}` {
		t.Errorf("%s, %v", o.Value, err)
	}
}

func TestRestoreOfTokens(t *testing.T) {
	t.Parallel()
	in, _ := furnished(t)
	key := exportKey(t, 1)
	e, _ := in.export(key)
	opened := open(t, key, e)
	in.do("DELETE", "/v1/tokens/ops", "", bearer(adminToken)).want(204)
	in.token(`{"name": "new", "role": "viewer"}`)
	in.restore(opened, "replace=true").want(200)
	in.do("GET", "/v1/tokens/ops", "", bearer(adminToken)).want(404)
	in.restore(opened, "tokens=true").want(200)
	in.do("GET", "/v1/tokens/ops", "", bearer(adminToken)).want(200)
	in.do("GET", "/v1/tokens/new", "", bearer(adminToken)).want(200)
}

func TestRestoreReplacesKeys(t *testing.T) {
	t.Parallel()
	in, private := furnished(t)
	key := exportKey(t, 1)
	e, _ := in.export(key)
	other := makePair(t)
	in.do("PUT", "/v1/certificates/main", body(t, other), bearer(adminToken)).want(200)
	in.do("PUT", "/v1/certificates/more", body(t, makePair(t)), bearer(adminToken)).want(201)
	in.restore(open(t, key, e), "replace=true").want(200)
	in.wantSecrets(private)
}

func TestRestoreWaitsForRollouts(t *testing.T) {
	t.Parallel()
	in := startWith(t, newRegistry(t), adminToken)
	op := registry.Op{Ref: registry.Ref{Kind: registry.KindUpstream, Name: "u0"}, Value: json.RawMessage(`{}`)}
	if _, err := in.registry.Commit(t.Context(), registry.Tx{Ops: []registry.Op{op}, Rollout: &registry.RolloutSettings{Canary: 1, Share: 25}}); err != nil {
		t.Fatal(err)
	}
	in.restore(many(t), "replace=true").wantDetail(409, "the rollout of seq 1 is under way")
	in.do("POST", "/v1/rollouts/1/promote", "", bearer(adminToken)).want(200)
	in.restore(many(t), "replace=true").want(200)
}

func TestRestoreTooLarge(t *testing.T) {
	t.Parallel()
	in := startWith(t, newRegistry(t), adminToken)
	e := many(t)
	e.State.Upstreams["large"] = json.RawMessage(fmt.Sprintf(`{"future":%q}`, strings.Repeat("x", 200_000)))
	in.restore(e, "").wantDetail(413, "upstream/large alone is too large: the change has 400")
	in.wantDesired(nil)

	for path, limit := range map[string]int64{"/v1/restore": 128 << 20, "/v1/apply": 1 << 20} {
		r := httptest.NewRequestWithContext(t.Context(), http.MethodPost, path, io.LimitReader(endless{}, limit+1))
		r.Header.Set("Content-Type", "application/json")
		r.Header.Set("Authorization", "Bearer "+adminToken)
		w := httptest.NewRecorder()
		in.server.ServeHTTP(w, r)
		if w.Code != http.StatusRequestEntityTooLarge || !strings.Contains(w.Body.String(), fmt.Sprint(limit)) {
			t.Errorf("%s: %d: %s", path, w.Code, w.Body)
		}
	}
}

// vast is a registry with 52 MB of sites.
type vast struct{ registry.Registry }

func (v vast) List(ctx context.Context, kind registry.Kind, from string, limit int) (registry.Page, error) {
	page, err := v.Registry.List(ctx, kind, from, limit)
	if kind == registry.KindSite {
		value := json.RawMessage(`"` + strings.Repeat("x", 200_000) + `"`)
		for i := range 260 {
			page.Objects = append(page.Objects, registry.Object{Kind: kind, Name: fmt.Sprintf("s%03d", i), Seq: 1, Value: value})
		}
	}
	return page, err
}

func TestExportTooLarge(t *testing.T) {
	t.Parallel()
	in := startWith(t, vast{newRegistry(t)}, adminToken)
	in.do("GET", "/v1/export", "", bearer(adminToken)).wantDetail(413, "are the most that can be restored")
}

// endless is a body without an end.
type endless struct{}

func (endless) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}
