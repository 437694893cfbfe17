package controlplane

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/pmezard/go-difflib/difflib"

	"sluice/registry"
	"sluice/templates"
)

// ground is what a change is tried on: what the loop compiled last. It is never changed.
type ground struct {
	snapshot registry.Snapshot
	good     Good
	facts    Facts
	compiled Compiled
	bundle   templates.Bundle
	stale    bool
}

// Trial is what a change would do at this gateway.
type Trial struct {
	How     How                // Nothing, or Reload
	Refused []registry.Problem // of the objects of the change; empty when all is well
	Files   []FileDiff         // sorted by path; without private keys
}

// FileDiff is what becomes of one rendered file.
type FileDiff struct {
	Path string `json:"path"`
	Diff string `json:"diff"` // unified
}

// errNoTrial says that nothing can be tried here now.
var errNoTrial = errors.New("this gateway has compiled nothing yet, or has no registry")

// Try compiles, renders and tests the desired state as it would be with changes (nil deletes), and changes nothing. It
// refuses only what is new: what was wrong before is no reason against a change of something else. An error says that it
// could not be tried, which is no reason either.
func (c *Controller) Try(ctx context.Context, changes map[registry.Ref]*registry.Object) (Trial, error) {
	g := c.ground.Load()
	if g == nil || g.stale {
		return Trial{}, errNoTrial
	}
	next := withChanges(g.snapshot, changes)
	facts := g.facts
	facts.Files = ReadFiles(CertificateFiles(next, g.good))
	compiled := Compile(next, g.good, facts)
	t := Trial{How: Nothing}
	for _, p := range compiled.Problems {
		if mine(p.Object, changes) && !slices.Contains(g.compiled.Problems, p) {
			p.Message, _, _ = strings.Cut(p.Message, "; until then ")
			t.Refused = append(t.Refused, p)
		}
	}
	if len(t.Refused) > 0 {
		return t, nil
	}
	bundle, err := c.Renderer.Render(compiled.Config)
	if err == nil && bundle.Revision != g.bundle.Revision {
		t.How, t.Files = Reload, diffFiles(g.bundle, bundle)
		err = c.Applier.Try(ctx, bundle)
	}
	if err == nil {
		return t, nil
	}
	for _, ref := range culprits(compiled.Config, err) {
		if _, ok := changes[ref]; ok {
			t.Refused = append(t.Refused, registry.Problem{Object: ref.String(), Message: err.Error()})
		}
	}
	if len(t.Refused) > 0 {
		return t, nil
	}
	return t, fmt.Errorf("try the change: %w", err)
}

// withChanges returns s as it would be with changes; nil deletes.
func withChanges(s registry.Snapshot, changes map[registry.Ref]*registry.Object) registry.Snapshot {
	next := s
	next.Seq++
	next.Objects = nil
	for _, o := range s.Objects {
		if _, changed := changes[o.Ref()]; !changed {
			next.Objects = append(next.Objects, o)
		}
	}
	for _, o := range changes {
		if o != nil {
			with := *o
			with.Seq = next.Seq
			next.Objects = append(next.Objects, with)
		}
	}
	slices.SortFunc(next.Objects, func(a, b registry.Object) int { return compareRefs(a.Ref(), b.Ref()) })
	return next
}

func mine(object string, changes map[registry.Ref]*registry.Object) bool {
	for ref := range changes {
		if ref.String() == object {
			return true
		}
	}
	return false
}

// diffFiles compares the files of two bundles. Those that only their owner may read are private keys: they are left out.
func diffFiles(before, after templates.Bundle) []FileDiff {
	var out []FileDiff
	merge(before.Files, after.Files, func(a, b *templates.File) int { return strings.Compare(a.Path, b.Path) }, func(was, is *templates.File) {
		var path, from, to string
		for _, side := range []struct {
			file *templates.File
			text *string
		}{{was, &from}, {is, &to}} {
			if side.file == nil {
				continue
			}
			if side.file.Mode.Perm()&0o077 == 0 {
				return
			}
			path, *side.text = side.file.Path, string(side.file.Data)
		}
		if from == to {
			return
		}
		text, err := difflib.GetUnifiedDiffString(difflib.UnifiedDiff{
			A: difflib.SplitLines(from), B: difflib.SplitLines(to), FromFile: path, ToFile: path, Context: 3,
		})
		if err == nil {
			out = append(out, FileDiff{path, text})
		}
	})
	return out
}
