package api

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"sluice/controlplane"
)

const (
	eventsPath = "/v1/events"
	// heartbeat keeps proxies from ending a stream on which nothing happens.
	heartbeat = 15 * time.Second
	// slowReader is how long one write to a reader may take; then he is cut off, and can resume where he was.
	slowReader = 10 * time.Second
)

// eventTypes are the types of which a reader can choose; a gap is always told.
var eventTypes = []controlplane.EventType{
	controlplane.EventChange, controlplane.EventNode, controlplane.EventApply, controlplane.EventAlarm, controlplane.EventRegistry,
}

// StreamEvents implements StrictServerInterface.
func (s *Server) StreamEvents(ctx context.Context, r StreamEventsRequestObject) (StreamEventsResponseObject, error) {
	stream := eventStream{ctx: ctx, still: callerOf(ctx).still, closing: s.closing, events: s.local.Events(), last: r.Params.LastEventID, follow: !r.Params.Once}
	for name := range strings.SplitSeq(r.Params.Type, ",") {
		switch t := controlplane.EventType(name); {
		case name == "":
		case !slices.Contains(eventTypes, t):
			return nil, problemf(http.StatusBadRequest, "type %q is unknown: choose of %v, with commas between them", name, eventTypes)
		default:
			stream.types = append(stream.types, t)
		}
	}
	return stream, nil
}

// eventStream is an answer that goes on until the reader, or this instance, leaves.
type eventStream struct {
	ctx     context.Context
	still   func(context.Context) bool // says whether the reader may go on; nil when he always may
	closing <-chan struct{}
	events  *controlplane.Events
	types   []controlplane.EventType // empty: all
	last    string                   // the id after which it begins; empty: with what comes
	follow  bool                     // else it ends when there are no more
}

// VisitStreamEventsResponse implements StreamEventsResponseObject.
func (e eventStream) VisitStreamEventsResponse(w http.ResponseWriter) error {
	control := http.NewResponseController(w)
	_ = control.SetReadDeadline(time.Time{}) // the server's is for requests that are read; a test's server has none
	h := w.Header()
	h.Set("Content-Type", "text/event-stream")
	h.Set("X-Accel-Buffering", "no") // an nginx in front must not gather them
	w.WriteHeader(http.StatusOK)
	write := func(text string) error {
		if e.still != nil && !e.still(e.ctx) {
			return errNoToken
		}
		_ = control.SetWriteDeadline(time.Now().Add(slowReader)) // what can't be written within that shows in Write
		if _, err := w.Write([]byte(text)); err != nil {
			return err
		}
		return control.Flush()
	}
	beat := time.NewTicker(heartbeat)
	defer beat.Stop()
	if err := write(": sluice events\n\n"); err != nil {
		return nil // the reader has gone
	}
	last := e.last
	for {
		events, newest, more := e.events.Since(last)
		last = newest
		var b strings.Builder
		for _, ev := range events {
			if ev.Type != controlplane.EventGap && len(e.types) > 0 && !slices.Contains(e.types, ev.Type) {
				continue
			}
			data, err := json.Marshal(ev)
			if err != nil {
				return fmt.Errorf("encode an event: %w", err)
			}
			fmt.Fprintf(&b, "id: %s\nevent: %s\ndata: %s\n\n", ev.ID, ev.Type, data)
		}
		if b.Len() > 0 {
			if err := write(b.String()); err != nil {
				return nil // the reader has gone, or his token was revoked or has expired
			}
		}
		if !e.follow {
			return nil
		}
		select {
		case <-e.ctx.Done():
			return nil
		case <-e.closing:
			return nil
		case <-more:
		case <-beat.C:
			if err := write(": still here\n\n"); err != nil {
				return nil // the reader has gone
			}
		}
	}
}
