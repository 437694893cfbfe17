package api

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"sluice/controlplane"
)

// EventQuery says which events FollowEvents reads.
type EventQuery struct {
	After  string // the id of the last event that was read; empty: begin with what comes
	Types  string // with commas between them; empty: all
	Follow bool   // go on when there are no more
}

// reconnectEvery is the wait after a stream that ended.
const reconnectEvery = time.Second

// FollowEvents calls show with each event. When the instance goes away, it goes on with another one, or with the same when
// that is back: then the first event is a gap. It returns when ctx ends, when show returns an error, when the request is
// refused, or, unless it follows, when there are no more events or no instance answers.
func FollowEvents(ctx context.Context, o ClientOptions, q EventQuery, show func(controlplane.Event) error) error {
	transport := o.Transport
	if transport == nil {
		transport = &http.Transport{TLSClientConfig: o.TLS, ResponseHeaderTimeout: tryTime, ForceAttemptHTTP2: true}
	}
	for attempt := 0; ; attempt++ {
		base, err := parseBase(o.Addresses[attempt%len(o.Addresses)])
		if err != nil {
			return err
		}
		err = readEvents(ctx, transport, base, o.Token, &q, show)
		_, refused := errors.AsType[*Problem](err)
		stopped, _ := errors.AsType[*stopError](err)
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case stopped != nil:
			return stopped.err
		case refused:
			return err
		case !q.Follow && (err == nil || attempt+1 >= len(o.Addresses)):
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(reconnectEvery):
		}
	}
}

// stopError is what show returned.
type stopError struct{ err error }

func (e *stopError) Error() string { return e.err.Error() }

func readEvents(ctx context.Context, transport http.RoundTripper, base *url.URL, token string, q *EventQuery, show func(controlplane.Event) error) error {
	query := url.Values{}
	if q.Types != "" {
		query.Set("type", q.Types)
	}
	if !q.Follow {
		query.Set("once", "true")
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, join(base, &url.URL{Path: eventsPath, RawQuery: query.Encode()}).String(), http.NoBody)
	if err != nil {
		return err
	}
	if token != "" {
		r.Header.Set("Authorization", "Bearer "+token)
	}
	if q.After != "" {
		r.Header.Set("Last-Event-ID", q.After)
	}
	resp, err := transport.RoundTrip(r)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		var p Problem
		if err := json.NewDecoder(io.LimitReader(resp.Body, maxBody)).Decode(&p); err != nil || p.Title == "" {
			return fmt.Errorf("the answer is %s", resp.Status)
		}
		return &p
	}
	lines := bufio.NewReader(resp.Body)
	for {
		line, err := lines.ReadString('\n')
		if err != nil {
			if errors.Is(err, io.EOF) {
				return nil
			}
			return err
		}
		data, ok := strings.CutPrefix(strings.TrimSuffix(line, "\n"), "data: ")
		if !ok {
			continue
		}
		var e controlplane.Event
		if err := json.Unmarshal([]byte(data), &e); err != nil {
			return fmt.Errorf("decode an event: %w", err)
		}
		if q.After = e.ID; e.Type == "" {
			continue
		}
		if err := show(e); err != nil {
			return &stopError{err}
		}
	}
}
