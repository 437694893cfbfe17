package api

import (
	"cmp"
	"context"
	"net/http"
	"slices"
	"time"

	"sluice/controlplane/spec"
	"sluice/registry"
)

// ListHistory implements StrictServerInterface.
func (s *Server) ListHistory(ctx context.Context, r ListHistoryRequestObject) (ListHistoryResponseObject, error) {
	p := r.Params
	l := newListing("", "", p.Limit)
	head, err := s.head(ctx)
	if err != nil {
		return nil, err
	}
	high := min(cmp.Or(registry.Seq(p.From), head), head)
	low := oldest(head)
	if p.Kind == "" && p.Name == "" { // else all of them are looked through
		low = max(low, floor(high, l.limit+1)) // one more: where the next page begins
	}
	entries, err := s.changes(ctx, low, high)
	if err != nil {
		return nil, err
	}
	out := ListHistory200JSONResponse{Items: []HistoryEntry{}, Seq: head}
	for _, c := range slices.Backward(entries) {
		if !touches(c, registry.Kind(p.Kind), p.Name) {
			continue
		}
		if len(out.Items) == l.limit {
			out.Next = int64(c.Seq)
			break
		}
		out.Items = append(out.Items, entryOf(c, false))
	}
	return out, nil
}

// floor is the seq below the last of so many changes that go down from high.
func floor(high registry.Seq, limit int) registry.Seq {
	return high - min(high, registry.Seq(limit))
}

// oldest is the seq below the first change that may be kept.
func oldest(head registry.Seq) registry.Seq { return floor(head, registry.MaxHistory) }

// DiffHistory implements StrictServerInterface.
func (s *Server) DiffHistory(ctx context.Context, r DiffHistoryRequestObject) (DiffHistoryResponseObject, error) {
	from, to := registry.Seq(r.Params.From), registry.Seq(r.Params.To)
	entries, err := s.span(ctx, min(from, to), max(from, to))
	if err != nil {
		return nil, err
	}
	out := DiffHistory200JSONResponse{From: from, To: to, Changes: []Change{}}
	for _, c := range sum(entries) {
		if from > to {
			c.Before, c.After = c.After, c.Before
		}
		if change := changeOf(c, true); change.Action != Unchanged {
			out.Changes = append(out.Changes, change)
		}
	}
	return out, nil
}

// GetHistory implements StrictServerInterface.
func (s *Server) GetHistory(ctx context.Context, r GetHistoryRequestObject) (GetHistoryResponseObject, error) {
	c, err := s.changeAt(ctx, r.Seq)
	if err != nil {
		return nil, err
	}
	others, err := s.reports(ctx)
	if err != nil {
		return nil, err
	}
	entry := entryOf(c, true)
	entry.Gateways = bare(s.outcomes(ctx, others, c.Seq, refsOf(c)))
	return GetHistory200JSONResponse(entry), nil
}

func refsOf(c registry.Change) []registry.Ref {
	var refs []registry.Ref
	for _, o := range c.Changes {
		refs = append(refs, registry.Ref{Kind: o.Kind, Name: o.Name})
	}
	return refs
}

// head returns the newest seq.
func (s *Server) head(ctx context.Context) (registry.Seq, error) {
	page, err := s.registry.List(ctx, registry.KindHistory, registry.HistoryName(^registry.Seq(0)), 1)
	return page.Seq, s.fault(err)
}

// changes returns the changes after low, up to high, ascending. Those that are too old are left out, whether or not they were
// tidied up already.
func (s *Server) changes(ctx context.Context, low, high registry.Seq) ([]registry.Change, error) {
	if high <= low {
		return nil, nil
	}
	page, err := s.registry.List(ctx, registry.KindHistory, registry.HistoryName(low+1), int(min(high-low, registry.MaxHistory)))
	if err != nil {
		return nil, s.fault(err)
	}
	var out []registry.Change
	for _, o := range page.Objects {
		c, err := spec.Decode[registry.Change](o.Value)
		if err != nil {
			s.log.Warn("a change of the history cannot be decoded", "object", o.Ref().String(), "error", err)
			continue
		}
		if c.Seq > low && c.Seq <= high && time.Since(c.At) < registry.HistoryAge {
			out = append(out, c)
		}
	}
	return out, nil
}

// changeAt returns one change.
func (s *Server) changeAt(ctx context.Context, number int64) (registry.Change, error) {
	if number < 1 {
		return registry.Change{}, newProblem(http.StatusNotFound, "the first change has seq 1")
	}
	entries, err := s.span(ctx, registry.Seq(number)-1, registry.Seq(number))
	if err != nil {
		return registry.Change{}, err
	}
	return entries[0], nil
}

// span returns the changes after low, up to high, all of them.
func (s *Server) span(ctx context.Context, low, high registry.Seq) ([]registry.Change, error) {
	head, err := s.head(ctx)
	if err != nil {
		return nil, err
	}
	if high > head {
		return nil, problemf(http.StatusNotFound, "there is no change %d yet: the newest is %d", high, head)
	}
	entries, err := s.changes(ctx, low, high)
	if err == nil && registry.Seq(len(entries)) != high-low {
		err = problemf(http.StatusNotFound, "change %d is not in the history any more: of the last %d changes, those of %d days are kept; GET /v1/history lists them",
			low+1, registry.MaxHistory, int(registry.HistoryAge/(24*time.Hour)))
	}
	return entries, err
}

func touches(c registry.Change, kind registry.Kind, name string) bool {
	if kind == "" && name == "" {
		return true
	}
	return slices.ContainsFunc(c.Changes, func(o registry.ObjectChanged) bool {
		return (kind == "" || o.Kind == kind) && (name == "" || o.Name == name)
	})
}

func entryOf(c registry.Change, differ bool) HistoryEntry {
	out := HistoryEntry{Seq: c.Seq, At: c.At, Author: c.Author, Reason: c.Reason, Changes: []Change{}}
	for _, o := range c.Changes {
		if o.Kind != registry.KindSecret { // they come and go with their certificates
			out.Changes = append(out.Changes, changeOf(o, differ))
		}
	}
	return out
}

func changeOf(o registry.ObjectChanged, differ bool) Change {
	out := Change{Kind: string(o.Kind), Name: o.Name, Action: Updated}
	switch {
	case o.Kind.Confidential() && o.Before != nil && o.After != nil: // their values are not in the history
		return out
	case o.Before == nil && o.After == nil, o.Before != nil && o.After != nil && registry.SameJSON(o.Before, o.After):
		out.Action = Unchanged
	case o.Before == nil:
		out.Action = Created
	case o.After == nil:
		out.Action = Deleted
	}
	if differ {
		out.Differences = differences(o.Before, o.After)
	}
	return out
}

// sum makes one change of each object out of many, sorted by kind and name. Those of confidential kinds are left out.
func sum(entries []registry.Change) []registry.ObjectChanged {
	at := map[registry.Ref]int{}
	var out []registry.ObjectChanged
	for _, c := range entries {
		for _, o := range c.Changes {
			if o.Kind.Confidential() {
				continue
			}
			ref := registry.Ref{Kind: o.Kind, Name: o.Name}
			i, ok := at[ref]
			if !ok {
				at[ref] = len(out)
				out = append(out, o)
				continue
			}
			out[i].After = o.After
		}
	}
	slices.SortFunc(out, func(a, b registry.ObjectChanged) int {
		return cmp.Or(cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.Name, b.Name))
	})
	return out
}
