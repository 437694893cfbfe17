package api

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"sluice/controlplane"
	"sluice/registry"
)

// paceOf returns the settings of the rollout of a change; nil when all gateways are to have it at once: nothing of it is
// rolled out, or no group has two gateways.
func (s *Server) paceOf(ctx context.Context, p plan) (*registry.RolloutSettings, error) {
	if s.pace.Canary == 0 || !slices.ContainsFunc(p.edits, func(e edit) bool { return e.Kind.RolledOut() }) {
		return nil, nil
	}
	fleet, err := s.gateways(ctx)
	if err != nil {
		return nil, err
	}
	groups := map[string]bool{}
	for _, g := range fleet {
		if groups[g.Group] {
			return &s.pace, nil
		}
		groups[g.Group] = true
	}
	return nil, nil
}

// ListRollouts implements StrictServerInterface.
func (s *Server) ListRollouts(ctx context.Context, r ListRolloutsRequestObject) (ListRolloutsResponseObject, error) {
	p := r.Params
	l := newListing("", "", p.Limit)
	page, err := s.registry.List(ctx, registry.KindRollout, "", 0)
	if err != nil {
		return nil, s.fault(err)
	}
	fleet, err := s.gateways(ctx)
	if err != nil {
		return nil, err
	}
	out := ListRollouts200JSONResponse{Items: []Rollout{}}
	for _, o := range slices.Backward(page.Objects) {
		r, err := registry.DecodeRollout(o.Value)
		if err != nil {
			s.log.Warn("a rollout was left out of a list", "object", o.Ref().String(), "error", err)
			continue
		}
		if p.From > 0 && r.Seq > registry.Seq(p.From) || p.State != "" && r.State != p.State {
			continue
		}
		if len(out.Items) == l.limit {
			out.Next = int64(r.Seq)
			break
		}
		out.Items = append(out.Items, rolloutOf(r, fleet))
	}
	return out, nil
}

// GetRollout implements StrictServerInterface.
func (s *Server) GetRollout(ctx context.Context, r GetRolloutRequestObject) (GetRolloutResponseObject, error) {
	out, err := s.rollout(ctx, registry.Seq(r.Seq))
	return GetRollout200JSONResponse(out), err
}

func (s *Server) rollout(ctx context.Context, seq registry.Seq) (Rollout, error) {
	o, err := s.registry.Get(ctx, registry.RolloutRef(seq))
	if errors.Is(err, registry.ErrNotFound) {
		return Rollout{}, noRollout(seq)
	}
	if err != nil {
		return Rollout{}, s.fault(err)
	}
	r, err := registry.DecodeRollout(o.Value)
	if err != nil {
		return Rollout{}, problemf(http.StatusInternalServerError, "%s cannot be decoded", o.Ref())
	}
	fleet, err := s.gateways(ctx)
	return rolloutOf(r, fleet), err
}

func noRollout(seq registry.Seq) error {
	return problemf(http.StatusNotFound, "there is no rollout of seq %d: GET /v1/rollouts lists those that are kept", seq)
}

// SteerRollout implements StrictServerInterface.
func (s *Server) SteerRollout(ctx context.Context, r SteerRolloutRequestObject) (SteerRolloutResponseObject, error) {
	action, err := steering(r.Action, author(ctx))
	if err != nil {
		return nil, err
	}
	seq := registry.Seq(r.Seq)
	var refused error
	err = s.registry.UpdateRollout(ctx, seq, func(o *registry.Rollout) error { refused = action(o); return refused })
	switch {
	case errors.Is(err, registry.ErrNotFound):
		return nil, noRollout(seq)
	case refused != nil:
		return nil, problemf(http.StatusConflict, "the rollout of seq %d cannot be changed so: %v", seq, refused)
	case err != nil:
		return nil, s.fault(err)
	}
	s.log.Info("rollout steered", "seq", seq, "action", r.Action, "author", author(ctx))
	out, err := s.rollout(ctx, seq)
	return SteerRollout200JSONResponse(out), err
}

func steering(action, who string) (func(*registry.Rollout) error, error) {
	switch action {
	case "pause":
		return controlplane.PauseRollout, nil
	case "resume":
		return controlplane.ResumeRollout, nil
	case "abort":
		return controlplane.AbortRollout(who), nil
	case "promote":
		return controlplane.PromoteRollout(who, time.Now()), nil
	default:
		return nil, problemf(http.StatusBadRequest, "%q is nothing that can be done with a rollout: pause, resume, abort or promote it", action)
	}
}

func rolloutOf(r registry.Rollout, fleet []controlplane.Status) Rollout {
	out := Rollout{
		Seq: r.Seq, At: r.At, Author: r.Author, Reason: r.Reason, State: r.State, Message: r.Message, Ended: r.Ended,
		Covers: r.Covers, Into: int64(r.Into), Canary: r.Settings.Canary, Share: r.Settings.Share, Soak: float32(r.Settings.Soak),
		Changes: []Change{}, Gateways: []RolloutGateway{},
	}
	for _, c := range r.Changes {
		if c.Kind == registry.KindSecret { // they come and go with their certificates
			continue
		}
		change := Change{Kind: string(c.Kind), Name: c.Name, Action: Updated}
		switch {
		case c.Deleted:
			change.Action = Deleted
		case c.BeforeSeq == 0:
			change.Action = Created
		}
		out.Changes = append(out.Changes, change)
	}
	for name, release := range r.Released {
		g := RolloutGateway{Gateway: name, Group: release.Group, State: "gone", Wave: release.Wave + 1, Since: release.At}
		for _, st := range fleet {
			if st.Gateway == name {
				g.State = "released"
				if st.Rollout != nil && st.Rollout.Seq == r.Seq && !r.HasEnded() {
					g.State, g.Message = RolloutGatewayState(st.Rollout.State), st.Rollout.Message
				}
			}
		}
		out.Gateways = append(out.Gateways, g)
	}
	for _, st := range fleet {
		if _, released := r.Released[st.Gateway]; !released && !r.HasEnded() && st.Rollout != nil && st.Rollout.Seq == r.Seq {
			out.Gateways = append(out.Gateways, RolloutGateway{Gateway: st.Gateway, Group: st.Group, State: RolloutGatewayState(st.Rollout.State)})
		}
	}
	slices.SortFunc(out.Gateways, func(a, b RolloutGateway) int { return strings.Compare(a.Gateway, b.Gateway) })
	return out
}

// takenBack says why a change is live nowhere any more although every gateway has its seq; "" when it was not taken back.
func (s *Server) takenBack(seq registry.Seq) string {
	snapshot, ok := s.local.Snapshot()
	if !ok {
		return ""
	}
	for range 2 { // it may have gone on its way with another one
		i := slices.IndexFunc(snapshot.Objects, func(o registry.Object) bool { return o.Ref() == registry.RolloutRef(seq) })
		if i < 0 {
			return ""
		}
		r, err := registry.DecodeRollout(snapshot.Objects[i].Value)
		switch {
		case err != nil:
			return ""
		case r.State == registry.RolloutMerged:
			seq = r.Into
		case r.State == registry.RolloutReverting || r.State == registry.RolloutReverted:
			return fmt.Sprintf("the rollout was taken back: %s", r.Message)
		default:
			return ""
		}
	}
	return ""
}
