package controlplane

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"sluice/controlplane/spec"
	"sluice/registry"
)

// author is who puts the desired state back, in the history.
const author = "sluice"

// revert puts back what a rollout changed, as far as nobody has changed it since, and ends the rollout. later are those that
// wait behind it. Every part of it can be done again, by another instance too.
func (c *crew) revert(ctx context.Context, r registry.Rollout, later []registry.Rollout) error {
	for _, l := range later {
		if err := c.Registry.UpdateRollout(ctx, l.Seq, func(l *registry.Rollout) error { rebase(l, r); return nil }); err != nil {
			return err
		}
	}
	err := c.putBack(ctx, r)
	if broken, ok := errors.AsType[*brokenError](err); ok {
		message, _, _ := strings.Cut(r.Message, suffix)
		return c.Registry.UpdateRollout(ctx, r.Seq, func(r *registry.Rollout) error {
			if r.State == registry.RolloutReverting {
				r.Message = message + suffix + broken.Error()
			}
			return nil
		})
	}
	if err != nil {
		return err
	}
	var was, is registry.Rollout
	err = c.Registry.UpdateRollout(ctx, r.Seq, func(r *registry.Rollout) error {
		was = *r
		if r.State == registry.RolloutReverting {
			message, _, _ := strings.Cut(r.Message, suffix)
			endRollout(r, registry.RolloutReverted, message, time.Now())
			r.Keys = append(r.Keys, createdKeys(*r)...)
		}
		is = *r
		return nil
	})
	c.tell(was, is)
	return err
}

// rebase makes what stood before r the past of a rollout that waits behind it, where that was what r had made.
func rebase(later *registry.Rollout, r registry.Rollout) {
	for i, c := range later.Changes {
		j := slices.IndexFunc(r.Changes, func(o registry.RolledOut) bool { return o.Ref() == c.Ref() })
		if j < 0 || c.BeforeSeq != r.Changes[j].Seq && (!r.Changes[j].Deleted || c.BeforeSeq != 0) {
			continue
		}
		later.Changes[i].BeforeSeq, later.Changes[i].Before = r.Changes[j].BeforeSeq, r.Changes[j].Before
	}
}

func createdKeys(r registry.Rollout) []string {
	var keys []string
	for _, c := range r.Changes {
		if c.Kind == registry.KindSecret && c.BeforeSeq == 0 {
			keys = append(keys, c.Name)
		}
	}
	return keys
}

// putBack commits the desired state as it was before r.
func (c *crew) putBack(ctx context.Context, r registry.Rollout) error {
	for {
		ops, err := c.backOps(ctx, r)
		if err != nil || len(ops) == 0 {
			return err
		}
		done, err := c.Registry.Commit(ctx, registry.Tx{
			Ops: ops, Author: author, Reason: fmt.Sprintf("rollout of seq %d taken back: %s", r.Seq, r.Message), Check: whole(ops),
		})
		if _, ok := errors.AsType[*registry.ConflictError](err); ok {
			continue // somebody changed an object, or puts it back as well
		}
		if err == nil {
			c.Log.Warn("a rollout was taken back", "seq", r.Seq, "by", done.Seq, "why", r.Message)
		}
		return err
	}
}

// backOps are the operations that undo r where nothing has changed since.
func (c *crew) backOps(ctx context.Context, r registry.Rollout) ([]registry.Op, error) {
	var ops []registry.Op
	for _, change := range r.Changes {
		if change.Kind == registry.KindSecret {
			continue
		}
		is, err := c.Registry.Get(ctx, change.Ref())
		if err != nil && !errors.Is(err, registry.ErrNotFound) {
			return nil, err
		}
		there := err == nil
		if there == change.Deleted || there && is.Seq != change.Seq {
			continue
		}
		ops = append(ops, registry.Op{Ref: change.Ref(), Value: change.Before, IfSeq: &is.Seq})
	}
	return ops, nil
}

// brokenError says that the state would contradict itself.
type brokenError struct{ message string }

func (e *brokenError) Error() string { return e.message }

// suffix begins what a rollout's message says when it can't be taken back.
const suffix = "; the desired state can't be put back: "

// whole refuses a change that deletes what a site names.
func whole(ops []registry.Op) func(context.Context, registry.View) error {
	return func(ctx context.Context, after registry.View) error {
		sites, err := after.List(ctx, registry.KindSite)
		if err != nil {
			return err
		}
		for _, o := range sites {
			site, err := spec.Decode[spec.Site](o.Value)
			if err != nil {
				continue
			}
			for _, named := range site.References() {
				ref := registry.Ref{Kind: registry.KindUpstream, Name: named.Name}
				if named.Certificate {
					ref.Kind = registry.KindCertificate
				}
				if slices.ContainsFunc(ops, func(op registry.Op) bool { return op.Ref == ref && op.Value == nil }) {
					return &brokenError{fmt.Sprintf("%s would be deleted, and %s needs it; change that, or promote the rollout", ref, o.Ref())}
				}
			}
		}
		return nil
	}
}

// dropKeys deletes the secrets that a rollout which has ended left behind, unless a certificate names them.
func (c *crew) dropKeys(ctx context.Context, r registry.Rollout) error {
	named := func(certificates []registry.Object) map[string]bool {
		names := map[string]bool{}
		for _, o := range certificates {
			if cert, err := spec.Decode[spec.Certificate](o.Value); err == nil {
				names[cert.KeySHA256] = true
			}
		}
		return names
	}
	page, err := c.Registry.List(ctx, registry.KindCertificate, "", 0)
	if err != nil {
		return err
	}
	needed := named(page.Objects)
	var ops []registry.Op
	for _, key := range r.Keys {
		if !needed[key] {
			ops = append(ops, registry.Op{Ref: registry.Ref{Kind: registry.KindSecret, Name: key}})
		}
	}
	if len(ops) > 0 {
		_, err = c.Registry.Commit(ctx, registry.Tx{
			Ops: ops, Author: author, Reason: fmt.Sprintf("rollout of seq %d has ended: nobody needs these keys", r.Seq),
			Check: func(ctx context.Context, after registry.View) error {
				certificates, err := after.List(ctx, registry.KindCertificate)
				if err != nil {
					return err
				}
				needed := named(certificates)
				if slices.ContainsFunc(ops, func(op registry.Op) bool { return needed[op.Name] }) {
					return errors.New("a certificate names one of the keys by now")
				}
				return nil
			},
		})
	}
	if err != nil {
		return err
	}
	return c.Registry.UpdateRollout(ctx, r.Seq, func(r *registry.Rollout) error { r.Keys = nil; return nil })
}
