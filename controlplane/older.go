package controlplane

import (
	"context"
	"encoding/json"
	"slices"
	"time"

	"sluice/registry"
)

const (
	// maxOlder is how many earlier versions of an object are tried.
	maxOlder = 8
	// historyStep is how many entries of the history are read at a time.
	historyStep = 100
)

// older are earlier versions of objects that were never live on this gateway and that are refused as they are: another
// gateway serves them as they last were, and so should this one.
type older struct {
	versions map[registry.Ref][]registry.Object
	looked   map[Version]bool // whose history was read
	looking  bool
	next     time.Time // after a history that could not be read
	found    chan history
}

// history is what was found of objects.
type history struct {
	of       []Version
	versions map[registry.Ref][]registry.Object
	err      error
}

// lookUp starts to read the history of what was left out, when it was not read yet.
func (l *loop) lookUp(ctx context.Context) {
	o := &l.older
	unknown := slices.DeleteFunc(slices.Clone(l.missing), func(v Version) bool { return o.looked[v] || v.Kind.Confidential() })
	if len(unknown) == 0 || o.looking || l.stale {
		return
	}
	if time.Now().Before(o.next) {
		l.until(o.next)
		return
	}
	o.looking = true
	go func() {
		versions, err := l.readOlder(ctx, unknown)
		o.found <- history{unknown, versions, err}
	}()
}

// found takes what the history had.
func (l *loop) found(h history) {
	o := &l.older
	o.looking = false
	if h.err != nil {
		o.next = time.Now().Add(retryMin)
		l.Log.Warn("the history of what was left out can't be read; it is tried again", "error", h.err)
		return
	}
	versions, looked := map[registry.Ref][]registry.Object{}, map[Version]bool{}
	for _, v := range l.missing {
		looked[v] = o.looked[v] || slices.Contains(h.of, v)
	}
	for _, ob := range l.snapshot.Objects { // what is deleted, or changed since, needs them no more
		ref := ob.Ref()
		if list := h.versions[ref]; len(list) > 0 {
			versions[ref] = list
		} else if list := o.versions[ref]; len(list) > 0 {
			versions[ref] = list
		}
	}
	o.versions, o.looked = versions, looked
	if len(h.versions) > 0 {
		l.change()
	}
}

// readOlder returns the versions that objects had before these, newest first, as far as the history goes back: not beyond a
// deletion, since what was deleted has no right to come back.
func (c *Controller) readOlder(ctx context.Context, of []Version) (map[registry.Ref][]registry.Object, error) {
	ctx, cancel := context.WithTimeout(ctx, reportEvery)
	defer cancel()
	open := map[registry.Ref]registry.Seq{}
	var newest registry.Seq
	for _, v := range of {
		open[v.Ref] = v.Seq
		newest = max(newest, v.Seq)
	}
	versions := map[registry.Ref][]registry.Object{}
	for end := newest; end > 1 && len(open) > 0; {
		begin := max(end, historyStep+1) - historyStep
		page, err := c.Registry.List(ctx, registry.KindHistory, registry.HistoryName(begin), int(end-begin))
		if err != nil {
			return nil, err
		}
		if len(page.Objects) == 0 {
			break // older entries are trimmed
		}
		for _, o := range slices.Backward(page.Objects) {
			var entry registry.Change
			if json.Unmarshal(o.Value, &entry) != nil || entry.Seq >= end {
				continue
			}
			for _, changed := range entry.Changes {
				ref := registry.Ref{Kind: changed.Kind, Name: changed.Name}
				before, wanted := open[ref]
				switch {
				case !wanted || entry.Seq >= before:
				case changed.After == nil:
					delete(open, ref)
				default:
					versions[ref] = append(versions[ref], registry.Object{Kind: ref.Kind, Name: ref.Name, Seq: entry.Seq, Value: changed.After})
					if len(versions[ref]) == maxOlder {
						delete(open, ref)
					}
				}
			}
		}
		end = begin
	}
	return versions, nil
}
