package api_test

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"math"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"sluice/api"
	"sluice/controlplane"
	"sluice/controlplane/spec"
	"sluice/registry"
)

// answerTime is the most that any answer of the fuzzer takes, on a machine that is busy.
const answerTime = 15 * time.Second

// fuzzed is a server under fuzz, and what nobody may see of it.
type fuzzed struct {
	*instance
	tokens  map[spec.Role]string // the empty role has none
	secrets []string
	away    bool // it has no registry
	slow    int  // answers that a registry which is there, on a busy machine, did not give in time
}

// maxSlow is how many of them are no fault of the server: each is to be told as what it is.
const maxSlow = 5

// fuzz starts a server on a registry that holds what is not to be seen.
func fuzz(t *testing.T, r registry.Registry, pair spec.Certificate) *fuzzed {
	t.Helper()
	f := &fuzzed{instance: startWith(t, r, adminToken), tokens: map[spec.Role]string{"": "", spec.Admin: adminToken}}
	st := *f.local.status.Load()
	st.SeqLive = math.MaxInt64 // all that is waited for is live
	f.local.status.Store(&st)
	f.local.events.Add(controlplane.Event{Type: controlplane.EventChange, Seq: 1})
	for role, limits := range map[spec.Role]string{spec.Viewer: "", spec.Operator: "", spec.Registrar: `, "limits": {"services": ["io"]}`} {
		f.tokens[role] = f.token(fmt.Sprintf(`{"name": "fuzz-%s", "role": %q%s}`, role, role, limits))
		f.secrets = append(f.secrets, f.tokens[role])
	}
	f.secrets = append(f.secrets, adminToken)
	for line := range strings.Lines(pair.Key) {
		if !strings.HasPrefix(line, "---") {
			f.secrets = append(f.secrets, strings.TrimSpace(line))
		}
	}
	f.local.try = func(map[registry.Ref]*registry.Object) (controlplane.Trial, error) {
		return controlplane.Trial{How: controlplane.Reload, Files: []controlplane.FileDiff{{Path: "http/site-chat.conf", Diff: "+a\n"}}}, nil
	}
	f.do("PUT", "/v1/certificates/main", body(t, pair), bearer(adminToken)).want(201)
	f.do("PUT", "/v1/upstreams/chat", `{}`, bearer(adminToken)).want(201)
	return f
}

// send has the server answer a call, and checks what holds for every answer. What is no HTTP at all is not sent.
func (f *fuzzed) send(t *testing.T, c call, role spec.Role) {
	t.Helper()
	var head strings.Builder
	fmt.Fprintf(&head, "%s %s HTTP/1.1\r\nHost: 127.0.0.1\r\n", c.method, c.target)
	for _, h := range c.headers {
		head.WriteString(h + "\r\n")
	}
	if token := f.tokens[role]; token != "" {
		head.WriteString(bearer(token) + "\r\n")
	}
	r, err := http.ReadRequest(bufio.NewReader(strings.NewReader(head.String() + "\r\n")))
	if err != nil {
		return
	}
	r.RemoteAddr = "127.0.0.1:40000"
	r.Body = io.NopCloser(strings.NewReader(c.body))
	if c.cut {
		r.Body = io.NopCloser(io.MultiReader(strings.NewReader(c.body), broken{}))
	}
	follows := c.operation == "streamEvents" && !strings.Contains(c.target, "once=true")
	if follows {
		f.local.events.Add(controlplane.Event{Type: controlplane.EventNode})
		return // it has no end; TestEventsAreStreamed reads one
	}
	w := httptest.NewRecorder()
	began := time.Now()
	f.server.ServeHTTP(w, r)
	if took := time.Since(began); took > answerTime {
		t.Errorf("%s by %q took %s", c, role, took)
	}
	for _, wrong := range f.wrong(c, r, w) {
		t.Errorf("%s by %q: %s: %.600q", c, role, wrong, w.Body)
	}
}

// broken is a body whose sender has gone.
type broken struct{}

func (broken) Read([]byte) (int, error) { return 0, io.ErrUnexpectedEOF }

func (c call) String() string {
	return fmt.Sprintf("%s: %s %.300q %.300q %.900q", c.operation, c.method, c.target, c.headers, c.body)
}

// wrong says what is wrong with an answer.
func (f *fuzzed) wrong(c call, r *http.Request, w *httptest.ResponseRecorder) []string {
	var out []string
	wrong := func(format string, args ...any) { out = append(out, fmt.Sprintf(format, args...)) }
	resp, got := w.Result(), w.Body.Bytes()
	defer resp.Body.Close()
	readiness := c.operation == "getReadiness"
	unavailable := resp.StatusCode == http.StatusServiceUnavailable
	if unavailable && !f.away && !readiness {
		f.slow++
	}
	if resp.StatusCode >= 500 && !unavailable || f.slow > maxSlow {
		wrong("a fault of the server, %d", resp.StatusCode)
	}
	if resp.StatusCode >= 400 && !readiness {
		var p api.Problem
		if err := json.Unmarshal(got, &p); err != nil || p.Status != resp.StatusCode || resp.Header.Get("Content-Type") != "application/problem+json" || p.Detail == "" {
			wrong("%d without a problem", resp.StatusCode)
		}
	}
	if err := validate(r, []byte(c.body), resp, got); err != nil {
		wrong("%d: %v", resp.StatusCode, err)
	}
	for _, secret := range f.secrets {
		if bytes.Contains(got, []byte(secret)) || strings.Contains(fmt.Sprint(resp.Header), secret) {
			wrong("it has a secret")
		}
	}
	return out
}

// checkLogs looks for secrets, and for what the server takes for its own fault.
func (f *fuzzed) checkLogs(t *testing.T) {
	t.Helper()
	events, _, _ := f.local.events.Since("0-0")
	for name, text := range map[string]string{"log": f.log.String(), "audit log": f.audit.String(), "events": fmt.Sprint(events)} {
		for _, secret := range f.secrets {
			if strings.Contains(text, secret) {
				t.Errorf("the %s has a secret", name)
			}
		}
		for line := range strings.Lines(text) {
			if strings.Contains(line, "level=ERROR") {
				t.Errorf("the %s has an error: %.600s", name, line)
			}
		}
	}
}

// run sends so many calls of a seed, by each role in turn.
func (f *fuzzed) run(t *testing.T, seed uint64, pair spec.Certificate, calls int) {
	t.Helper()
	c := newCaller(seed, pair)
	roles := append(spec.Roles(), spec.Operator, spec.Operator, spec.Admin, spec.Operator, "")
	for i := range calls {
		next := c.next()
		role := roles[i%len(roles)]
		f.send(t, next, role)
		if t.Failed() {
			t.Fatalf("seed %d, call %d", seed, i)
		}
	}
	f.checkLogs(t)
}

// callsOfSeed are about as many as the callers of one server may send at once.
const callsOfSeed = 700

func TestFuzz(t *testing.T) {
	t.Parallel()
	for seed := range uint64(6) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			pair := makePair(t)
			fuzz(t, newRegistry(t), pair).run(t, seed, pair, callsOfSeed)
		})
	}
}

func TestFuzzOnConsul(t *testing.T) {
	t.Parallel()
	pair := makePair(t)
	fuzz(t, newConsul(t), pair).run(t, 50, pair, callsOfSeed)
}

// While the registry is away, each answer says so, or does without.
func TestFuzzWithoutRegistry(t *testing.T) {
	t.Parallel()
	pair := makePair(t)
	f := fuzz(t, newRegistry(t), pair)
	away := brokenRegistry{Registry: f.registry, err: fmt.Errorf("dial: %w", registry.ErrAway)}
	server, err := api.New(api.Options{Registry: away, Local: f.local, Token: adminToken, Logger: slog.New(slog.NewTextHandler(f.log, nil)), Audit: slog.New(slog.NewJSONHandler(f.audit, nil))})
	if err != nil {
		t.Fatal(err)
	}
	f.server, f.away = server, true
	f.run(t, 100, pair, callsOfSeed)
}
