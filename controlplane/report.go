package controlplane

import (
	"cmp"
	"context"
	"encoding/json"
	"reflect"
	"time"

	"sluice/registry"
)

func compareRefs(a, b registry.Ref) int {
	return cmp.Or(cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.Name, b.Name))
}

// publish makes the loop's state the gateway's status, when it says something new.
func (l *loop) publish() {
	s := Status{Gateway: l.Gateway, Group: l.Group, Version: l.Version, Stale: l.stale, SeqWanted: l.snapshot.Seq,
		Applied: l.applied, Wait: l.wait, Failure: l.failure}
	if l.wanted != nil {
		s.RevisionWanted, s.Nodes, s.Problems = l.wanted.bundle.Revision, l.wanted.Nodes, l.wanted.Problems
		s.Certificates = l.wanted.Certificates
		s.Upstreams, s.Exceptions, s.Alarms = l.wanted.Upstreams, l.wanted.Exceptions, l.wanted.Alarms
		if more := len(s.Exceptions) - MaxExceptions; more > 0 {
			s.Exceptions, s.MoreExceptions = s.Exceptions[:MaxExceptions], more
		}
	}
	if text := l.desire.alarm(l.puttingOut); text != "" {
		s.Alarms = append([]registry.Problem{{Object: "registry", Message: text}}, s.Alarms...)
	}
	s.Findings = l.findings()
	if l.live != nil {
		s.RevisionLive, s.SeqLive = l.live.bundle.Revision, l.live.seq
	}
	s.Rollout = l.part()
	switch {
	case l.applying:
		s.Phase = Applying
	case l.failure != nil:
		s.Phase = Failed
	case l.wait != nil:
		s.Phase = Waiting
	case l.live == nil:
		s.Phase = Starting
	default:
		s.Phase = InStep
	}
	if !reflect.DeepEqual(s, l.published) {
		l.published = s
		l.Controller.publish(s)
	}
}

// report keeps the gateway's report in the registry. It is refreshed under a lease, so it is gone when the gateway is.
func (c *Controller) report(ctx context.Context) error {
	refresh := time.NewTicker(reportEvery)
	defer refresh.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-refresh.C:
		case <-c.changed:
		}
		if err := c.send(ctx); err != nil && ctx.Err() == nil {
			c.Log.Debug("the report was not stored", "error", err)
		}
		pause := time.NewTimer(reportMin)
		select {
		case <-ctx.Done():
			pause.Stop()
			return ctx.Err()
		case <-pause.C:
		}
	}
}

func (c *Controller) send(ctx context.Context) error {
	value, err := json.Marshal(c.Status(ctx))
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, reportEvery)
	defer cancel()
	return c.Registry.Hold(ctx, registry.Object{Kind: registry.KindGateway, Name: c.Gateway, Value: value}, reportTTL)
}
