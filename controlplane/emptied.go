package controlplane

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"sluice/registry"
)

// approveRegistry names the approval that lets go of objects which the registry lost.
const approveRegistry = "registry"

// putBackAfter is how long a registry must be seen empty before what was there is put back: somebody may be restoring it.
const putBackAfter = time.Second

// desire is what the registry holds, and what it held before it lost it. A deletion is a change, with a Seq of its own: so
// objects that are gone although the Seq did not grow were not deleted by anybody through sluice, and stand.
type desire struct {
	raw     registry.Snapshot // as the registry, or the disk, had it last
	seen    bool              // raw came from the registry: somebody else may have changed what only the disk knows
	kept    map[registry.Ref]registry.Object
	slots   []registry.SlotTable // that the last Snapshot had, or that are kept; sorted by upstream
	emptied time.Time            // when objects were last found missing; zero when they were not
	back    bool                 // all that is kept was seen in the registry by this process
}

// take returns what stands when the registry says s.
func (d *desire) take(s registry.Snapshot, now time.Time) registry.Snapshot {
	have := make(map[registry.Ref]bool, len(s.Objects))
	for _, o := range s.Objects {
		have[o.Ref()] = true
	}
	kept := map[registry.Ref]registry.Object{}
	for ref, o := range d.kept {
		if !have[ref] {
			kept[ref] = o
		}
	}
	if s.Seq <= d.raw.Seq {
		for _, o := range d.raw.Objects {
			if !have[o.Ref()] && o.Kind != registry.KindRollout { // those are dropped without a Seq
				if len(d.kept) == 0 {
					d.emptied, d.back = now, d.seen
				}
				kept[o.Ref()] = o
			}
		}
	}
	if s.Seq < d.raw.Seq {
		d.emptied = now
	}
	if d.approved(s) {
		clear(kept)
	}
	d.raw, d.seen, d.kept = s, true, kept
	return d.stand(s)
}

// approved tells whether ops let go of what the registry lost.
func (d *desire) approved(s registry.Snapshot) bool {
	for _, o := range s.Objects {
		if o.Kind == registry.KindApproval && o.Name == approveRegistry {
			a, ok := newCourt(registry.Snapshot{Objects: []registry.Object{o}}).approvals[o.Name]
			return ok && a.At != nil && !a.At.Before(d.emptied)
		}
	}
	return false
}

// stand adds what is kept to s.
func (d *desire) stand(s registry.Snapshot) registry.Snapshot {
	if len(d.kept) > 0 {
		s.Objects = slices.Clone(s.Objects)
		for _, o := range d.kept {
			s.Objects = append(s.Objects, o)
		}
		slices.SortFunc(s.Objects, func(a, b registry.Object) int { return compareRefs(a.Ref(), b.Ref()) })
	}
	// A table is never deleted. Without it an ip_hash upstream would have no servers, and its clients other ones after.
	missing := false
	for _, t := range d.slots {
		if _, ok := findSlots(s.Slots, t.Upstream); !ok {
			if !missing {
				s.Slots, missing = slices.Clone(s.Slots), true
			}
			s.Slots = append(s.Slots, registry.SlotTable{Upstream: t.Upstream, Slots: t.Slots})
		}
	}
	if missing {
		slices.SortFunc(s.Slots, func(a, b registry.SlotTable) int { return cmp.Compare(a.Upstream, b.Upstream) })
	}
	d.slots = s.Slots
	return s
}

func findSlots(tables []registry.SlotTable, upstream string) (registry.SlotTable, bool) {
	i, ok := slices.BinarySearchFunc(tables, upstream, func(t registry.SlotTable, name string) int { return cmp.Compare(t.Upstream, name) })
	if !ok {
		return registry.SlotTable{}, false
	}
	return tables[i], true
}

// empty tells whether the registry holds nothing at all, as one that was wiped.
func (d *desire) empty() bool { return d.raw.Seq == 0 && len(d.raw.Objects) == 0 }

// alarm says what the registry lost; empty when it lost nothing.
func (d *desire) alarm(putBack error) string {
	if len(d.kept) == 0 {
		return ""
	}
	text := fmt.Sprintf("%s are missing that were there before, and nobody deleted them through sluice: they stand. ", plural(len(d.kept), "object", "objects"))
	switch {
	case putBack != nil:
		text += "They could not be put back: " + putBack.Error()
	case d.empty() && d.back:
		text += "The registry is empty: they are put back"
	case d.empty():
		text += "The registry is empty, and this gateway knows them from its disk alone: write them again with sluice apply"
	default:
		text += "Write them again with sluice apply"
	}
	return text + ", or let them go with sluice approve " + approveRegistry
}

// errNotEmpty says that somebody has written to the registry in the meantime.
var errNotEmpty = errors.New("the registry is not empty any more")

// putBack writes to an empty registry what it held before: all of it or nothing, and only while there is nothing else.
func (c *Controller) putBack(ctx context.Context, objects []registry.Object, slots []registry.SlotTable) error {
	pause := time.NewTimer(putBackAfter)
	defer pause.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-pause.C:
	}
	page, err := c.Registry.List(ctx, registry.KindUpstream, "", 1)
	if err != nil {
		return err
	}
	if page.Seq != 0 {
		return errNotEmpty
	}
	for _, t := range slots { // before the objects: without a table, an ip_hash upstream has no servers
		err := c.Registry.PutSlots(ctx, registry.SlotTable{Upstream: t.Upstream, Slots: t.Slots})
		if _, conflict := errors.AsType[*registry.ConflictError](err); err != nil && !conflict {
			return err
		}
	}
	tx := registry.Tx{Author: "gateway/" + c.Gateway, Reason: "the registry was found empty: what was live is put back", Check: onlyThese(objects)}
	for _, o := range objects {
		tx.Ops = append(tx.Ops, registry.Op{Ref: o.Ref(), Value: o.Value, IfSeq: new(registry.Seq)})
	}
	done, err := c.Registry.Commit(ctx, tx)
	if _, ok := errors.AsType[*registry.ConflictError](err); ok {
		return errNotEmpty
	}
	if err == nil {
		c.Log.Warn("the registry was found empty: what was live was put back", "objects", len(objects), "seq", done.Seq)
	}
	return err
}

// onlyThese refuses a state that holds anything else.
func onlyThese(objects []registry.Object) func(context.Context, registry.View) error {
	return func(ctx context.Context, after registry.View) error {
		n := 0
		for _, kind := range registry.DesiredKinds() {
			list, err := after.List(ctx, kind)
			if err != nil {
				return err
			}
			n += len(list)
		}
		if n != len(objects) {
			return errNotEmpty
		}
		return nil
	}
}
