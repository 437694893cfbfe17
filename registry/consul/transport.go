package consul

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/hashicorp/consul/api"

	"sluice/registry"
)

// Limits on connections. A Consul agent refuses more than 200 of one address (http_max_conns_per_client), other programs
// of this machine included, and counts one that we closed until it has noticed.
const (
	maxBlocking = 150 // queries that wait for a change, at once; the rest take turns
	maxRequests = 30  // all other requests: more at once would make a busy agent slower, not faster
)

// newTransport returns a transport of its own with so many connections to each agent: the Consul client's would close one
// after nearly every query.
func (c Config) newTransport(conns int) (*http.Transport, error) {
	conf, err := c.tls()
	if err != nil {
		return nil, err
	}
	return &http.Transport{
		Proxy:               http.ProxyFromEnvironment,
		DialContext:         (&net.Dialer{Timeout: 5 * time.Second, KeepAlive: 15 * time.Second}).DialContext,
		TLSClientConfig:     conf,
		TLSHandshakeTimeout: 5 * time.Second,
		MaxConnsPerHost:     conns,
		MaxIdleConnsPerHost: conns,
		IdleConnTimeout:     90 * time.Second,
	}, nil
}

// newClient returns a client of the agent at address.
func (c Config) newClient(address string, t *http.Transport) (*api.Client, error) {
	return api.NewClient(&api.Config{
		Address: strings.TrimSuffix(address, "/"), Token: c.Token, Datacenter: c.Datacenter, Namespace: c.Namespace,
		HttpClient: &http.Client{Transport: refusing{t}},
	})
}

// refusal is an answer of Consul that is an error, with its status: the Consul client gives only some of them a type.
type refusal struct {
	status int
	text   string
}

func (e *refusal) Error() string { return fmt.Sprintf("consul answers %d: %s", e.status, e.text) }

// refusing makes an error of every answer that is one. "Not found" and "conflict" are not: the client looks at these.
type refusing struct{ next http.RoundTripper }

// An agent that has too many connections or requests says so before it does anything: it is asked again after this long, at
// first and at most, for as long as the request's context lasts.
const (
	crowdedMin = 50 * time.Millisecond
	crowdedMax = 800 * time.Millisecond
)

func (t refusing) RoundTrip(req *http.Request) (*http.Response, error) {
	for wait := crowdedMin; ; wait = min(2*wait, crowdedMax) {
		resp, err := t.ask(req)
		var r *refusal
		if !errors.As(err, &r) || r.status != http.StatusTooManyRequests || req.Body != nil && req.GetBody == nil {
			return resp, err
		}
		select {
		case <-req.Context().Done():
			return nil, err
		case <-time.After(registry.Jitter(wait)):
		}
		if req = req.Clone(req.Context()); req.GetBody != nil {
			if req.Body, err = req.GetBody(); err != nil {
				return nil, fmt.Errorf("ask consul again: %w", err)
			}
		}
	}
}

func (t refusing) ask(req *http.Request) (*http.Response, error) {
	resp, err := t.next.RoundTrip(req)
	if err != nil || resp.StatusCode < 400 || resp.StatusCode == http.StatusNotFound || resp.StatusCode == http.StatusConflict {
		return resp, err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(io.LimitReader(resp.Body, 1<<10))
	if err != nil {
		return nil, fmt.Errorf("read the answer %d of consul: %w", resp.StatusCode, err)
	}
	return nil, &refusal{resp.StatusCode, strings.TrimSpace(string(text))}
}

// away reports whether err means that Consul can't be reached, has no leader or is overwhelmed, as opposed to an answer.
func away(err error) bool {
	var r *refusal
	if errors.As(err, &r) {
		return r.status >= 500 || r.status == http.StatusTooManyRequests
	}
	return err != nil && !notFound(err)
}

// denied reports whether Consul does not let us.
func denied(err error) bool {
	var r *refusal
	return errors.As(err, &r) && (r.status == http.StatusForbidden || r.status == http.StatusUnauthorized)
}

// notFound reports whether Consul has not got what was asked for.
func notFound(err error) bool {
	var s api.StatusError
	return errors.As(err, &s) && s.Code == http.StatusNotFound
}
