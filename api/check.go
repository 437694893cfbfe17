package api

import (
	"context"
	"errors"
	"maps"
	"net/http"
	"slices"
	"strings"

	"sluice/controlplane"
	"sluice/controlplane/spec"
	"sluice/registry"
)

// check looks at the state as it would be after a change: whether what the edited objects name is there, whether what is
// deleted is still named, and whether sites contradict each other.
func (s *Server) check(ctx context.Context, p plan, after registry.View) error {
	if err := s.checkDropped(ctx, p, after); err != nil {
		return err
	}
	var missing []spec.FieldError
	sites := map[string]edit{}
	for _, e := range p.edits {
		var errs []spec.FieldError
		var err error
		switch object := e.object.(type) {
		case spec.Site:
			sites[e.Name] = e
			errs, err = s.checkReferences(ctx, object, after)
		case spec.Certificate:
			errs, err = s.checkStoredKey(ctx, object, after)
			if e.raw != nil && len(errs) > 0 {
				err = keyIsGone(e.Ref)
			}
		case nil:
			err = s.checkUnused(ctx, e.Ref, after)
		}
		if err != nil {
			return err
		}
		missing = append(missing, e.fields(errs)...)
	}
	if err := invalid(missing); err != nil {
		return err
	}
	return s.checkSockets(ctx, p, sites, after)
}

func (s *Server) checkReferences(ctx context.Context, site spec.Site, after registry.View) ([]spec.FieldError, error) {
	var missing []spec.FieldError
	for _, r := range site.References() {
		_, err := after.Get(ctx, target(r))
		if errors.Is(err, registry.ErrNotFound) {
			missing = append(missing, r.Missing())
		} else if err != nil {
			return nil, s.fault(err)
		}
	}
	return missing, nil
}

func target(r spec.Reference) registry.Ref {
	if r.Certificate {
		return registry.Ref{Kind: registry.KindCertificate, Name: r.Name}
	}
	return registry.Ref{Kind: registry.KindUpstream, Name: r.Name}
}

// checkUnused refuses to delete what a site names.
func (s *Server) checkUnused(ctx context.Context, gone registry.Ref, after registry.View) error {
	if gone.Kind != registry.KindUpstream && gone.Kind != registry.KindCertificate {
		return nil
	}
	objects, err := after.List(ctx, registry.KindSite)
	if err != nil {
		return s.fault(err)
	}
	var users []string
	for _, o := range objects {
		site, err := spec.Decode[spec.Site](o.Value)
		if err != nil {
			continue // a site that cannot be decoded is served as it last was good, or not at all
		}
		for _, r := range site.References() {
			if target(r) == gone {
				users = append(users, o.Ref().String())
				break
			}
		}
	}
	if len(users) > 0 {
		p := problemf(http.StatusConflict, "%s is used by %s: change or delete that first", gone, strings.Join(users, ", "))
		p.Object = gone.String()
		return p
	}
	return nil
}

// checkSockets looks whether the edited sites contradict others, or each other. Contradictions between sites that are
// not edited are no reason to refuse.
func (s *Server) checkSockets(ctx context.Context, p plan, edited map[string]edit, after registry.View) error {
	if len(edited) == 0 {
		return nil
	}
	others, err := s.otherSites(ctx, p, edited, after)
	if err != nil {
		return err
	}
	var sockets spec.Sockets
	for _, o := range others {
		sockets.Add(o.Name, o.Spec)
	}
	var clashes []spec.FieldError
	var first registry.Ref
	for _, name := range slices.Sorted(maps.Keys(edited)) {
		e := edited[name]
		site, _ := e.object.(spec.Site)
		found := sockets.Add(name, site)
		if len(found) > 0 && len(clashes) == 0 {
			first = e.Ref
		}
		clashes = append(clashes, e.fields(found)...)
	}
	if len(clashes) == 0 {
		return nil
	}
	problem := newProblem(http.StatusConflict, "sites contradict each other")
	problem.Object = first.String()
	problem.Errors = clashes
	return problem
}

// otherSites returns the sites that are not edited and may contradict those that are. They are read from memory when the
// Snapshot is of the same state: of thousands, to list them would take most of the time of a change.
func (s *Server) otherSites(ctx context.Context, p plan, edited map[string]edit, after registry.View) ([]named[spec.Site], error) {
	snapshot, _ := s.local.Snapshot()
	objects := snapshot.Objects
	if snapshot.Seq != after.Seq() {
		var err error
		if objects, err = after.List(ctx, registry.KindSite); err != nil {
			return nil, s.fault(err)
		}
	}
	changed := map[registry.Ref]bool{} // also by being deleted
	for _, e := range p.edits {
		changed[e.Ref] = true
	}
	var all, near []named[spec.Site]
	differ := false
	for _, o := range objects {
		if o.Kind != registry.KindSite || changed[o.Ref()] {
			continue
		}
		site, faults := controlplane.Recall[spec.Site](s.local.Readings(), o)
		if len(faults) > 0 {
			var err error
			if site, err = spec.Decode[spec.Site](o.Value); err != nil {
				continue // it is served as it last was good, or not at all
			}
		}
		is, shares := named[spec.Site]{o.Name, o.Seq, site}, false
		for _, e := range edited {
			object, _ := e.object.(spec.Site)
			differ, shares = differ || object.DiffersOnPort(site), shares || object.SharesHost(site)
		}
		if all = append(all, is); shares {
			near = append(near, is)
		}
	}
	if differ {
		return all, nil
	}
	return near, nil
}
