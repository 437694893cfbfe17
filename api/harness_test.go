package api_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/getkin/kin-openapi/openapi3filter"
	"github.com/getkin/kin-openapi/routers"
	"github.com/getkin/kin-openapi/routers/gorillamux"
	"go.uber.org/goleak"

	"sluice"
	"sluice/api"
	"sluice/registry"
	"sluice/registry/etcd"
)

var (
	document *openapi3.T
	router   routers.Router
	embedded *etcd.Embedded
	fleets   atomic.Int32
	answered sync.Map // operationId and status of every answer
)

func TestMain(m *testing.M) {
	flag.Parse()
	os.Exit(run(m))
}

// run starts one etcd for all tests; each takes a fleet of its own in it.
func run(m *testing.M) int {
	var err error
	fail := func(err error) int { fmt.Fprintln(os.Stderr, err); return 1 }
	if document, err = openapi3.NewLoader().LoadFromData(sluice.OpenAPI); err != nil {
		return fail(err)
	}
	if router, err = gorillamux.NewRouter(document); err != nil {
		return fail(err)
	}
	openapi3filter.RegisterBodyDecoder("text/event-stream", decodeEvents)
	openapi3filter.RegisterBodyDecoder("text/html", openapi3filter.FileBodyDecoder)
	openapi3filter.RegisterBodyDecoder("application/openapi+yaml", openapi3filter.FileBodyDecoder)
	dir, err := os.MkdirTemp("", "api")
	if err != nil {
		return fail(err)
	}
	defer os.RemoveAll(dir)
	quiet := slog.New(slog.DiscardHandler)
	if embedded, err = etcd.StartEmbedded(etcd.EmbeddedConfig{Dir: dir, Logger: quiet}); err != nil {
		return fail(err)
	}
	code := m.Run()
	embedded.Close()
	if filtered := flag.Lookup("test.run").Value.String() != "" || flag.Lookup("test.skip").Value.String() != ""; code == 0 && !filtered {
		code = checkAllAnswered()
	}
	if err := goleak.Find(); code == 0 && err != nil {
		return fail(err)
	}
	return code
}

// decodeEvents makes the list of a stream that the document describes.
func decodeEvents(body io.Reader, _ http.Header, _ *openapi3.SchemaRef, _ openapi3filter.EncodingFn) (any, error) {
	stream, err := io.ReadAll(body)
	if err != nil {
		return nil, err
	}
	events := []any{}
	for _, data := range eventData(string(stream)) {
		var event any
		if err := json.Unmarshal([]byte(data), &event); err != nil {
			return nil, err
		}
		events = append(events, event)
	}
	return events, nil
}

// eventData returns the data of each event of a stream.
func eventData(stream string) []string {
	var out []string
	for line := range strings.Lines(stream) {
		if data, ok := strings.CutPrefix(line, "data: "); ok {
			out = append(out, data)
		}
	}
	return out
}

// checkAllAnswered fails for an answer of the document that no test was given.
func checkAllAnswered() int {
	code := 0
	for _, e := range endpoints() {
		for status := range e.Responses.Map() {
			if _, ok := answered.Load(e.OperationID + " " + status); !ok && status != "default" {
				fmt.Fprintf(os.Stderr, "no test has %s %s (%s) answer %s\n", e.method, e.path, e.OperationID, status)
				code = 1
			}
		}
	}
	return code
}

// newRegistry returns a registry of its own.
func newRegistry(t *testing.T) *etcd.Registry {
	t.Helper()
	r, err := etcd.New(t.Context(), etcd.Config{Server: embedded, Fleet: fmt.Sprintf("f%d", fleets.Add(1)), Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	})
	return r
}

// instance is a server under test.
type instance struct {
	t        *testing.T
	url      string
	registry registry.Registry
	local    *fakeLocal
	client   *api.ClientWithResponses
	log      *lockedBuffer
	audit    *lockedBuffer
	server   *api.Server
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

func start(t *testing.T) *instance { return startWith(t, newRegistry(t), "") }

func startWith(t *testing.T, r registry.Registry, token string) *instance {
	t.Helper()
	local := newLocal("edge-1")
	in := startLocal(t, r, local, token)
	in.local = local
	return in
}

func startLocal(t *testing.T, r registry.Registry, local api.Local, token string) *instance {
	t.Helper()
	return startOptions(t, api.Options{Registry: r, Local: local, Token: token})
}

func startOptions(t *testing.T, o api.Options) *instance {
	t.Helper()
	local, _ := o.Local.(*fakeLocal)
	in := &instance{t: t, registry: o.Registry.(registry.Registry), local: local, log: &lockedBuffer{}, audit: &lockedBuffer{}}
	o.Logger = slog.New(slog.NewTextHandler(in.log, nil))
	o.Audit = slog.New(slog.NewJSONHandler(in.audit, nil))
	server, err := api.New(o)
	if err != nil {
		t.Fatal(err)
	}
	in.server = server
	listening := httptest.NewServer(server)
	t.Cleanup(listening.Close)
	in.url = listening.URL
	transport := &validating{t: t, next: &http.Transport{}}
	t.Cleanup(transport.next.CloseIdleConnections)
	in.client, err = api.NewFailoverClient(api.ClientOptions{Addresses: []string{in.url}, Token: o.Token, Transport: transport})
	if err != nil {
		t.Fatal(err)
	}
	return in
}

// validating holds every answer, and every request that was taken, against openapi.yaml.
type validating struct {
	t    *testing.T
	next *http.Transport
}

func (v *validating) RoundTrip(r *http.Request) (*http.Response, error) {
	var sent []byte
	if r.Body != nil {
		var err error
		if sent, err = io.ReadAll(r.Body); err != nil {
			return nil, err
		}
		r.Body = io.NopCloser(bytes.NewReader(sent))
	}
	resp, err := v.next.RoundTrip(r)
	if err != nil {
		return nil, err
	}
	got, err := io.ReadAll(resp.Body)
	_ = resp.Body.Close()
	resp.Body = io.NopCloser(bytes.NewReader(got))
	if err != nil {
		return nil, err
	}
	if err := validate(r, sent, resp, got); err != nil {
		v.t.Errorf("%s %s: %s: %v\nrequest %s\nanswer %s", r.Method, r.URL.Path, resp.Status, err, sent, got)
	}
	return resp, nil
}

func validate(r *http.Request, sent []byte, resp *http.Response, got []byte) error {
	route, params, err := router.FindRoute(r)
	if err != nil {
		if resp.StatusCode >= 400 && resp.StatusCode < 500 || resp.StatusCode == http.StatusServiceUnavailable {
			return nil
		}
		return err
	}
	answered.Store(fmt.Sprint(route.Operation.OperationID, " ", resp.StatusCode), true)
	// What any operation may answer is said once, in the default response; the rest must be listed.
	anywhere := []int{http.StatusBadRequest, http.StatusForbidden, http.StatusMethodNotAllowed, http.StatusTooManyRequests, http.StatusInternalServerError}
	if route.Operation.Responses.Status(resp.StatusCode) == nil && !slices.Contains(anywhere, resp.StatusCode) {
		return errors.New("the document does not list this status for the operation")
	}
	options := &openapi3filter.Options{AuthenticationFunc: openapi3filter.NoopAuthenticationFunc, IncludeResponseStatus: true}
	again := r.Clone(context.Background())
	again.Body = io.NopCloser(bytes.NewReader(sent))
	input := &openapi3filter.RequestValidationInput{Request: again, PathParams: params, Route: route, Options: options}
	if resp.StatusCode < 300 {
		if err := openapi3filter.ValidateRequest(context.Background(), input); err != nil {
			return fmt.Errorf("the server took a request that the document refuses: %w", err)
		}
	}
	return openapi3filter.ValidateResponse(context.Background(), &openapi3filter.ResponseValidationInput{
		RequestValidationInput: input, Status: resp.StatusCode, Header: resp.Header,
		Body: io.NopCloser(bytes.NewReader(got)), Options: options,
	})
}

// answer is what came back.
type answer struct {
	t      *testing.T
	status int
	etag   string
	header http.Header
	body   string
}

// do sends a request as curl would; headers are "Name: value".
func (in *instance) do(method, path, body string, headers ...string) answer {
	in.t.Helper()
	r, err := http.NewRequestWithContext(in.t.Context(), method, in.url+path, strings.NewReader(body))
	if err != nil {
		in.t.Fatal(err)
	}
	if body != "" {
		r.Header.Set("Content-Type", "application/json")
	}
	for _, h := range headers {
		name, value, _ := strings.Cut(h, ": ")
		if name == "Host" {
			r.Host = value
			continue
		}
		r.Header.Set(name, value)
	}
	transport := &validating{t: in.t, next: &http.Transport{DisableKeepAlives: true}}
	resp, err := transport.RoundTrip(r)
	if err != nil {
		in.t.Fatal(err)
	}
	got, err := io.ReadAll(resp.Body)
	if err != nil {
		in.t.Fatal(err)
	}
	return answer{in.t, resp.StatusCode, resp.Header.Get("ETag"), resp.Header, strings.TrimSpace(string(got))}
}

func (a answer) want(status int) answer {
	a.t.Helper()
	if a.status != status {
		a.t.Fatalf("status %d, want %d: %s", a.status, status, a.body)
	}
	return a
}

// problem checks the status and returns the problem.
func (a answer) problem(status int) api.Problem {
	a.t.Helper()
	a.want(status)
	var p api.Problem
	if err := json.Unmarshal([]byte(a.body), &p); err != nil || p.Status != status || !strings.HasPrefix(p.Type, "urn:sluice:problem:") {
		a.t.Fatalf("no problem+json of status %d: %v: %s", status, err, a.body)
	}
	return p
}

// wantDetail checks that the problem says text, in its detail or in one of its errors.
func (a answer) wantDetail(status int, text string) {
	a.t.Helper()
	p := a.problem(status)
	lines := []string{p.Detail}
	for _, e := range p.Errors {
		lines = append(lines, e.Error())
	}
	if !slices.ContainsFunc(lines, func(l string) bool { return strings.Contains(l, text) }) {
		a.t.Errorf("the problem does not say %q: %q", text, lines)
	}
}

func (a answer) json(v any) {
	a.t.Helper()
	if err := json.Unmarshal([]byte(a.body), v); err != nil {
		a.t.Fatalf("%v: %s", err, a.body)
	}
}
