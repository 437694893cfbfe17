package api

import (
	"context"
	"net/http"
	"strings"
	"time"

	"sluice/controlplane"
	"sluice/controlplane/spec"
	"sluice/registry"
)

// tryLimit is how long a trial may take: a reload that is under way is waited for.
const tryLimit = 5 * time.Second

// changes are the objects that would be another; nil deletes.
func (p plan) changes() map[registry.Ref]*registry.Object {
	changes := map[registry.Ref]*registry.Object{}
	for i, op := range p.ops {
		if op.Kind == registry.KindApproval {
			continue
		}
		if i < len(p.edits) && !p.wouldChange(i) {
			continue
		}
		changes[op.Ref] = nil
		if op.Value != nil {
			changes[op.Ref] = &registry.Object{Kind: op.Kind, Name: op.Name, Value: op.Value}
		}
	}
	return changes
}

// try has the instance's own gateway compile, render and test the state with the change. What it refuses is an error; that
// nothing can be tried is none, and a nil Trial.
func (s *Server) try(ctx context.Context, p plan) (*controlplane.Trial, error) {
	changes := p.changes()
	if len(changes) == 0 {
		return &controlplane.Trial{How: controlplane.Nothing}, nil
	}
	limited, cancel := context.WithTimeout(ctx, tryLimit)
	defer cancel()
	trial, err := s.local.Try(limited, changes)
	if err != nil {
		s.log.Debug("a change was not tried before its commit", "error", err)
		return nil, nil
	}
	if len(trial.Refused) == 0 {
		return &trial, nil
	}
	var fields []spec.FieldError
	for _, refused := range trial.Refused {
		kind, name, _ := strings.Cut(refused.Object, "/")
		at, message := "", refused.String()
		for _, e := range p.edits {
			if string(e.Kind) == kind && e.Name == name {
				at, message = e.at+refused.Field, refused.Message
			}
		}
		fields = append(fields, spec.FieldError{Field: at, Message: message})
	}
	problem := newProblem(http.StatusUnprocessableEntity, "this instance's gateway would refuse it; nothing was changed")
	problem.Errors = fields
	return nil, problem
}

// preview tells what the change would do at each gateway; nil when nothing can be told. trial is nil when the instance's own
// could not try it.
func (s *Server) preview(ctx context.Context, p plan, trial *controlplane.Trial) (*Preview, error) {
	fleet, err := s.gateways(ctx)
	if err != nil {
		return nil, err
	}
	forecasts, err := s.local.Forecast(p.changes(), fleet)
	if err != nil {
		s.log.Debug("what a change would do at the gateways cannot be told", "error", err)
		if trial == nil {
			return nil, nil
		}
	}
	preview := &Preview{Files: []controlplane.FileDiff{}, Gateways: append([]Forecast{}, forecasts...)}
	if trial != nil {
		preview.How, preview.Files = trial.How, append(preview.Files, trial.Files...)
	}
	own := s.local.Status(ctx).Gateway
	for i := range preview.Gateways {
		f := &preview.Gateways[i]
		switch {
		case f.Gateway != own:
		case trial == nil:
			preview.How = f.How
		default:
			f.How, f.Tested = trial.How, true
		}
	}
	return preview, nil
}
