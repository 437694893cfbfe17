package api_test

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"sluice/api"
	"sluice/registry"
)

// tokenRegistry has nothing but tokens.
type tokenRegistry struct {
	brokenRegistry
	mu     sync.Mutex
	tokens map[string]string // objects by name
	hangs  bool
	reads  int
}

func (r *tokenRegistry) Get(ctx context.Context, ref registry.Ref) (registry.Object, error) {
	r.mu.Lock()
	r.reads++
	value, ok, hangs := r.tokens[ref.Name], r.tokens[ref.Name] != "", r.hangs
	r.mu.Unlock()
	if hangs {
		<-ctx.Done()
		return registry.Object{}, fmt.Errorf("etcd at 10.9.9.9:2379: %w", ctx.Err())
	}
	if !ok {
		return registry.Object{}, registry.ErrNotFound
	}
	return registry.Object{Kind: ref.Kind, Name: ref.Name, Seq: 1, Value: []byte(value)}, nil
}

func (r *tokenRegistry) hang(hangs bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.hangs = hangs
}

// viewer makes a token of a name.
func (r *tokenRegistry) viewer(name string) string {
	text := "sluice_" + name + "_" + strings.Repeat("ab", 32)
	sum := sha256.Sum256([]byte(text))
	r.mu.Lock()
	defer r.mu.Unlock()
	r.tokens[name] = `{"role": "viewer", "hash": "` + hex.EncodeToString(sum[:]) + `"}`
	return text
}

func (r *tokenRegistry) revoke(name string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.tokens, name)
}

// asking returns what a server says to a token that is shown at GET of a path, and after how long.
func asking(t *testing.T, r *tokenRegistry, path string) func(token string) (int, time.Duration, string) {
	t.Helper()
	server, err := api.New(api.Options{Registry: r, Local: newLocal("x"), Token: adminToken, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	return func(token string) (int, time.Duration, string) {
		began := time.Now()
		req := httptest.NewRequestWithContext(t.Context(), http.MethodGet, path, nil)
		req.Header.Set("Authorization", "Bearer "+token)
		w := httptest.NewRecorder()
		server.ServeHTTP(w, req)
		return w.Code, time.Since(began), w.Body.String()
	}
}

// Wrong tokens from an address do not keep out the good ones that are used there.
func TestWrongTokensDoNotKeepOutGoodOnes(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := &tokenRegistry{tokens: map[string]string{}}
		ask, good := asking(t, r, "/v1/self"), r.viewer("good")
		if code, _, _ := ask(good); code != 200 {
			t.Fatalf("the good token: %d", code)
		}
		last := 0
		for i := range 100 {
			last, _, _ = ask(fmt.Sprintf("sluice_n%d_%s", i, strings.Repeat("0", 64)))
		}
		if last != 429 {
			t.Errorf("the hundredth wrong token: %d", last)
		}
		if r.reads > 30 {
			t.Errorf("the registry was asked %d times", r.reads)
		}
		time.Sleep(3 * time.Second) // what was read of the good one is old now
		for i := range 100 {
			last, _, _ = ask(fmt.Sprintf("sluice_m%d_%s", i, strings.Repeat("0", 64)))
		}
		if code, _, body := ask(good); code != 200 || last != 429 {
			t.Errorf("the good token: %d %s; a wrong one %d", code, body, last)
		}
	})
}

// While the registry hangs, a token that was good a moment ago is taken, at once; a revoked one is refused soon after it is back.
func TestTokensWhileTheRegistryHangs(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := &tokenRegistry{tokens: map[string]string{}}
		ask, good, other := asking(t, r, "/v1/self"), r.viewer("good"), r.viewer("other")
		ask(good)
		r.hang(true)
		time.Sleep(time.Minute)
		var wg sync.WaitGroup
		var slow sync.Map
		for range 20 {
			wg.Go(func() {
				code, took, body := ask(good)
				if code != 200 || took > time.Second {
					t.Errorf("%d after %s: %s", code, took, body)
				}
				if took > 0 {
					slow.Store(took, true)
				}
			})
			synctest.Wait()
		}
		wg.Wait()
		n := 0
		slow.Range(func(any, any) bool { n++; return true })
		if n > 1 {
			t.Errorf("%d requests waited for the registry, want one", n)
		}
		if code, took, body := ask(other); code != 503 || took > 2*time.Second || strings.Contains(body, "10.9.9.9") {
			t.Errorf("one that was never seen: %d after %s: %s", code, took, body)
		}
		r.revoke("good")
		r.hang(false)
		time.Sleep(2 * time.Second)
		if code, _, _ := ask(good); code != 401 {
			t.Errorf("revoked: %d", code)
		}
		r.hang(true)
		other = r.viewer("good")
		time.Sleep(2 * time.Second)
		if code, _, _ := ask(other); code != 503 {
			t.Errorf("what was never read while the registry hangs: %d", code)
		}
	})
}

// After an hour without the registry, no token is taken any more.
func TestTokensOfAnHourAgo(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := &tokenRegistry{tokens: map[string]string{}}
		ask, good := asking(t, r, "/v1/self"), r.viewer("good")
		ask(good)
		r.hang(true)
		time.Sleep(59 * time.Minute)
		if code, _, _ := ask(good); code != 200 {
			t.Errorf("after 59 minutes: %d", code)
		}
		time.Sleep(2 * time.Minute)
		if code, _, _ := ask(good); code != 503 {
			t.Errorf("after 61 minutes: %d", code)
		}
	})
}

// What is refused counts as well: a token that may do nothing can't be used to keep the server busy.
func TestRefusedRequestsAreLimited(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := &tokenRegistry{tokens: map[string]string{}}
		ask, viewer := asking(t, r, "/v1/tokens"), r.viewer("eyes")
		codes := map[int]int{}
		for range 1000 {
			code, _, _ := ask(viewer)
			codes[code]++
		}
		if codes[403] > 400 || codes[403]+codes[429] != 1000 {
			t.Errorf("%v", codes)
		}
	})
}
