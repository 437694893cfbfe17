package api

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync/atomic"
	"time"
)

const (
	// tryTime is for one instance, when the caller sets no limit of its own.
	tryTime = 10 * time.Second
	// maxAnswer is far beyond the largest list.
	maxAnswer = 64 << 20
)

// ClientOptions say whom a client asks.
type ClientOptions struct {
	// Addresses of instances, as "http://10.0.0.1:7070" or "10.0.0.1:7070". Any of them answers for the whole fleet: when
	// one fails, the next is asked.
	Addresses []string
	Token     string
	TLS       *tls.Config       // for https; nil is the ordinary way
	Transport http.RoundTripper // nil is a transport of its own
}

// NewFailoverClient returns a client for the API that asks another instance when one fails.
func NewFailoverClient(o ClientOptions) (*ClientWithResponses, error) {
	if len(o.Addresses) == 0 {
		return nil, errors.New("no address of an instance was given")
	}
	f := &failover{transport: o.Transport}
	for _, address := range o.Addresses {
		base, err := parseBase(address)
		if err != nil {
			return nil, err
		}
		f.bases = append(f.bases, base)
	}
	if f.transport == nil {
		f.transport = &http.Transport{
			DialContext:         (&net.Dialer{Timeout: 2 * time.Second}).DialContext,
			TLSClientConfig:     o.TLS,
			TLSHandshakeTimeout: 5 * time.Second,
			MaxIdleConnsPerHost: 2,
			IdleConnTimeout:     time.Minute,
			ForceAttemptHTTP2:   true,
		}
	}
	return NewClientWithResponses("http://sluice", WithHTTPClient(f), WithRequestEditorFn(leaveOut), WithRequestEditorFn(func(_ context.Context, r *http.Request) error {
		if o.Token != "" {
			r.Header.Set("Authorization", "Bearer "+o.Token)
		}
		return nil
	}))
}

// leaveOut takes parameters away that were not set: the generated code sends the empty value of each.
func leaveOut(_ context.Context, r *http.Request) error {
	query := r.URL.Query()
	maps.DeleteFunc(query, func(name string, values []string) bool {
		return values[0] == "" || name == "limit" && values[0] == "0"
	})
	r.URL.RawQuery = query.Encode()
	maps.DeleteFunc(r.Header, func(_ string, values []string) bool { return values[0] == "" })
	return nil
}

func parseBase(address string) (*url.URL, error) {
	text := strings.TrimSpace(address)
	if !strings.Contains(text, "://") {
		text = "http://" + text
	}
	base, err := url.Parse(text)
	if err != nil || base.Host == "" || base.Scheme != "http" && base.Scheme != "https" || base.RawQuery != "" || base.User != nil {
		return nil, fmt.Errorf("%q is not the address of an instance: write it as http://127.0.0.1:7070", address)
	}
	return base, nil
}

// failover asks one instance after another until one answers, and begins with the one that answered last. All requests
// of the API may be repeated: they are idempotent.
type failover struct {
	bases     []*url.URL
	transport http.RoundTripper
	first     atomic.Int64
}

// Do implements HttpRequestDoer.
func (f *failover) Do(r *http.Request) (*http.Response, error) {
	var errs []error
	first := int(f.first.Load())
	for i := range f.bases {
		at := (first + i) % len(f.bases)
		last := i == len(f.bases)-1
		resp, err := f.try(r, f.bases[at], len(f.bases)-i)
		switch {
		case err == nil && (last || !elsewhere(resp.StatusCode)):
			f.first.Store(int64(at))
			return resp, nil
		case err == nil:
			err = errors.New(resp.Status)
		}
		errs = append(errs, fmt.Errorf("ask %s: %w", f.bases[at], err))
		if r.Context().Err() != nil {
			break
		}
	}
	return nil, errors.Join(errs...)
}

// elsewhere reports whether another instance may do better: this one's registry, or a proxy before it, is away.
func elsewhere(status int) bool {
	return status == http.StatusBadGateway || status == http.StatusServiceUnavailable || status == http.StatusGatewayTimeout
}

// try sends r to one instance. When the caller's time is limited, each instance that is left gets its share, so that one
// that hangs does not use up all of it.
func (f *failover) try(r *http.Request, base *url.URL, left int) (*http.Response, error) {
	wait := waitOf(r.URL.Query()) // each instance may take that long before its answer
	limit := tryTime + wait
	if deadline, ok := r.Context().Deadline(); ok {
		limit = wait + max(time.Until(deadline)-wait, 0)/time.Duration(left)
	}
	ctx, cancel := context.WithTimeout(r.Context(), limit)
	defer cancel()
	sent := r.Clone(ctx)
	sent.Host = ""
	sent.URL = join(base, r.URL)
	if r.GetBody != nil {
		body, err := r.GetBody()
		if err != nil {
			return nil, err
		}
		sent.Body = body
	}
	resp, err := f.transport.RoundTrip(sent)
	if err != nil {
		return nil, err
	}
	// The answer is read here, since ctx ends here.
	data, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	_ = resp.Body.Close()
	if err != nil {
		return nil, fmt.Errorf("read the answer: %w", err)
	}
	resp.Body = io.NopCloser(bytes.NewReader(data))
	return resp, nil
}

// join puts the path and query of u below base; escaped slashes stay escaped.
func join(base, u *url.URL) *url.URL {
	out := *base
	prefix := strings.TrimSuffix(base.Path, "/")
	out.Path = prefix + u.Path
	out.RawPath = strings.TrimSuffix(base.EscapedPath(), "/") + u.EscapedPath()
	out.RawQuery = u.RawQuery
	return &out
}

// Answer is what every answer of the generated client is.
type Answer interface {
	StatusCode() int
	Status() string
	GetBody() []byte
}

// Check returns err, or the error that the answer stands for: a *Problem where the server sent one, nil below 400.
func Check(a Answer, err error) error {
	if err != nil || a.StatusCode() < http.StatusBadRequest {
		return err
	}
	var p Problem
	if err := json.Unmarshal(a.GetBody(), &p); err != nil || p.Title == "" {
		return fmt.Errorf("the answer is %s: is there a sluice at this address?", a.Status())
	}
	return &p
}
