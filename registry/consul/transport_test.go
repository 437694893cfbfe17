package consul

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"sluice/registry"
)

// crowded is an agent that refuses the first requests, as one with too many connections does, and notes what it was sent.
type crowded struct {
	refuse int

	mu   sync.Mutex
	sent []string
}

func (c *crowded) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.sent = append(c.sent, fmt.Sprint(string(body), err))
	if len(c.sent) <= c.refuse {
		http.Error(w, "Your IP is issuing too many concurrent connections, please rate limit your calls", http.StatusTooManyRequests)
		return
	}
	fmt.Fprint(w, "true")
}

func TestCrowdedAgentIsAskedAgain(t *testing.T) {
	t.Parallel()
	c := &crowded{refuse: 2}
	server := httptest.NewServer(c)
	t.Cleanup(server.Close)
	client := &http.Client{Transport: refusing{http.DefaultTransport}}

	post := func(within time.Duration, body string) error {
		ctx, cancel := context.WithTimeout(t.Context(), within)
		defer cancel()
		req, err := http.NewRequestWithContext(ctx, http.MethodPost, server.URL, strings.NewReader(body))
		if err != nil {
			return err
		}
		resp, err := client.Do(req)
		if err != nil {
			return err
		}
		return resp.Body.Close()
	}
	if err := post(10*time.Second, "what is sent"); err != nil {
		t.Fatal(err)
	}
	if want := "what is sent<nil>"; !slices.Equal(c.sent, []string{want, want, want}) {
		t.Errorf("the agent was sent %q, want the same three times", c.sent)
	}

	c.refuse = 1000
	err := post(200*time.Millisecond, "x")
	if r := new(refusal); !errors.As(err, &r) || r.status != http.StatusTooManyRequests || !away(err) {
		t.Errorf("the error is %v, want the agent's own words, and that it is overwhelmed", err)
	}
}

// One slow request says nothing of Consul while those that began later are answered.
func TestSlowRequestIsNoOutage(t *testing.T) {
	t.Parallel()
	r, err := New(t.Context(), Config{Addresses: []string{"http://127.0.0.1:1"}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = r.Close() })
	began := time.Now()
	slow := registry.Away(errors.New("no answer within 5s"))
	r.note(began, nil)
	r.note(began.Add(-time.Second), slow)
	if h := r.Health(); !h.Connected {
		t.Errorf("after a slow request: %+v, want it connected", h)
	}
	r.note(time.Now(), slow)
	if h := r.Health(); h.Connected || h.Error != slow.Error() {
		t.Errorf("after a request that began since the last answer: %+v, want it away", h)
	}
}
