package api

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"sluice/controlplane"
	"sluice/controlplane/spec"
	"sluice/registry"
)

// maxWait is the longest that a write waits for the gateways.
const maxWait = 5 * time.Minute

// While a write waits, it looks at the own gateway this often, and this often at the reports of the others, which come
// once a second.
const (
	lookEvery    = 100 * time.Millisecond
	reportsEvery = 500 * time.Millisecond
)

// parseWait reads the parameter wait; zero is not to wait.
func parseWait(text string) (time.Duration, error) {
	if text == "" {
		return 0, nil
	}
	wait, err := time.ParseDuration(text)
	if err != nil || wait <= 0 || wait > maxWait {
		return 0, problemf(http.StatusBadRequest, "wait is a time of at most %s, as 30s, not %q", maxWait, text)
	}
	return wait, nil
}

// waitOf is how much longer than others a request may take.
func waitOf(query url.Values) time.Duration {
	wait, err := parseWait(query.Get("wait"))
	if err != nil {
		return 0
	}
	return wait
}

// waiter waits until a change is live on all gateways.
type waiter struct {
	server *Server
	limit  time.Duration
	failed map[string]time.Time // the newest failure of each gateway before the change
}

// newWaiter is called before the change, so that failures that follow are told from older ones. nil does not wait.
func (s *Server) newWaiter(ctx context.Context, limit time.Duration) (*waiter, error) {
	if limit == 0 {
		return nil, nil
	}
	w := &waiter{server: s, limit: limit, failed: map[string]time.Time{}}
	fleet, err := s.gateways(ctx)
	if err != nil {
		return nil, err
	}
	for _, st := range fleet {
		if st.Failure != nil {
			w.failed[st.Gateway] = st.Failure.At
		}
	}
	return w, nil
}

// wait returns what became of a change on each gateway: when it is decided on all of them, or when the time is over.
func (w *waiter) wait(ctx context.Context, seq registry.Seq, changed []registry.Ref) []GatewayOutcome {
	ctx, cancel := context.WithTimeout(ctx, w.limit)
	defer cancel()
	look := time.NewTicker(lookEvery)
	defer look.Stop()
	var others []controlplane.Status
	var asked time.Time
	for {
		if time.Since(asked) > reportsEvery {
			asked = time.Now()
			if reports, err := w.server.reports(ctx); err == nil {
				others = reports
			} else if ctx.Err() == nil {
				w.server.log.Warn("waiting without the other gateways' reports", "error", err)
			}
		}
		outcomes := w.server.outcomes(ctx, others, seq, changed)
		if ctx.Err() != nil || !slices.ContainsFunc(outcomes, func(o gatewayOutcome) bool { return !o.Live && !w.refused(o) }) {
			return bare(outcomes)
		}
		select {
		case <-ctx.Done():
		case <-look.C:
		}
	}
}

// refused reports whether a gateway has tried the change and will not have it soon.
func (w *waiter) refused(o gatewayOutcome) bool {
	f := o.status.Failure
	return o.left || f != nil && o.status.SeqWanted >= o.seq && f.At.After(w.failed[o.Gateway])
}

// reports returns the reports of all gateways but the own one.
func (s *Server) reports(ctx context.Context) ([]controlplane.Status, error) {
	page, err := s.registry.List(ctx, registry.KindGateway, "", 0)
	if err != nil {
		return nil, s.fault(err)
	}
	own := s.local.Status(ctx).Gateway
	var out []controlplane.Status
	for _, o := range page.Objects {
		if o.Name == own {
			continue // its report is older than what it says itself
		}
		status, err := spec.Decode[controlplane.Status](o.Value)
		if err != nil {
			s.log.Warn("a gateway's report cannot be decoded", "gateway", o.Name, "error", err)
			continue
		}
		out = append(out, status)
	}
	return out, nil
}

// gatewayOutcome is a GatewayOutcome and what it was made from.
type gatewayOutcome struct {
	GatewayOutcome
	status controlplane.Status
	seq    registry.Seq
	left   bool // it is live without an object that was changed, or the change was taken back
}

// outcomes tells what became of a change on the own gateway and on others; sorted by name.
func (s *Server) outcomes(ctx context.Context, others []controlplane.Status, seq registry.Seq, changed []registry.Ref) []gatewayOutcome {
	var out []gatewayOutcome
	back := s.takenBack(seq)
	for _, st := range append(slices.Clip(others), s.local.Status(ctx)) {
		o := gatewayOutcome{status: st, seq: seq}
		o.Gateway, o.Group, o.SeqLive, o.RevisionLive = st.Gateway, st.Group, st.SeqLive, st.RevisionLive
		switch problems := problemsOf(st, changed); {
		case back != "":
			o.left, o.Why = true, back
		case st.SeqLive < seq:
			o.Why = waitsFor(st)
		case len(problems) > 0:
			o.left, o.Why = true, strings.Join(problems, "\n")
		default:
			o.Live = true
		}
		out = append(out, o)
	}
	slices.SortFunc(out, func(a, b gatewayOutcome) int { return strings.Compare(a.Gateway, b.Gateway) })
	return out
}

func bare(outcomes []gatewayOutcome) []GatewayOutcome {
	out := make([]GatewayOutcome, len(outcomes))
	for i, o := range outcomes {
		out[i] = o.GatewayOutcome
	}
	return out
}

// problemsOf returns what a gateway says of objects: that it left one out, or keeps it as it was before.
func problemsOf(st controlplane.Status, objects []registry.Ref) []string {
	var out []string
	for _, p := range st.Problems {
		if slices.ContainsFunc(objects, func(r registry.Ref) bool { return r.String() == p.Object }) {
			out = append(out, p.String())
		}
	}
	return out
}

// waitsFor says why a gateway is not where it should be.
func waitsFor(st controlplane.Status) string {
	switch {
	case st.Failure != nil:
		return "the last good configuration serves: " + st.Failure.Message
	case st.Rollout != nil && st.Rollout.State == controlplane.PartWaits:
		return fmt.Sprintf("it waits for its wave of the rollout of seq %d", st.Rollout.Seq)
	case st.Wait != nil:
		return fmt.Sprintf("waiting: %s; %s", st.Wait.What, st.Wait.Why)
	case !st.Registry.Connected:
		return "it has no registry: " + st.Registry.Error
	default:
		return fmt.Sprintf("it is at seq %d, %s", st.SeqLive, st.Phase)
	}
}
