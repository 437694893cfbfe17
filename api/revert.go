package api

import (
	"context"
	"fmt"
	"net/http"

	"sluice/registry"
)

// Revert implements StrictServerInterface.
func (s *Server) Revert(ctx context.Context, r RevertRequestObject) (RevertResponseObject, error) {
	p := r.Params
	c := change{reason: p.XChangeReason, dryRun: p.DryRun, wait: p.Wait}
	if p.Back {
		seq := registry.Seq(r.Seq)
		head, err := s.head(ctx)
		if err != nil {
			return nil, err
		}
		entries, err := s.span(ctx, seq, max(seq, head))
		if err != nil {
			return nil, err
		}
		c.edits = undo(sum(entries), false)
		c.reasonOr(fmt.Sprintf("back to seq %d", seq))
	} else {
		entry, err := s.changeAt(ctx, r.Seq)
		if err != nil {
			return nil, err
		}
		c.edits = undo(entry.Changes, true)
		c.reasonOr(fmt.Sprintf("revert of seq %d", entry.Seq))
	}
	return s.changeMany(ctx, c)
}

func (c *change) reasonOr(reason string) {
	if c.reason == "" {
		c.reason = reason
	}
}

// undo returns the edits that bring objects back to what they were before, to the byte. When it is strict, they must be
// what the change made of them. What the API does not write as an object stays: a private key goes with its certificate,
// and a token that was revoked never comes back.
func undo(changed []registry.ObjectChanged, strict bool) []edit {
	var out []edit
	for _, o := range changed {
		if _, ok := kinds[o.Kind]; !ok {
			continue
		}
		e := edit{Ref: registry.Ref{Kind: o.Kind, Name: o.Name}, raw: o.Before}
		if strict {
			e.undoes = &o
		}
		out = append(out, e)
	}
	return out
}

// checkUndone refuses to undo the change of an object that was changed again since.
func (e edit) checkUndone(now registry.Object) error {
	if e.undoes == nil {
		return nil
	}
	same := now.Seq == 0 && e.undoes.After == nil
	if now.Seq > 0 && e.undoes.After != nil {
		same = registry.SameJSON(now.Value, e.undoes.After)
	}
	if same {
		return nil
	}
	p := problemf(http.StatusConflict, "%s was changed since: undo that change first, or go back to a seq with ?back=true", e.Ref)
	p.Object = e.String()
	return p
}
