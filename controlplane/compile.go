package controlplane

import (
	"cmp"
	"fmt"
	"maps"
	"slices"

	"sluice/controlplane/spec"
	"sluice/registry"
	"sluice/templates"
)

// Facts is what Compile must know besides the Snapshot.
type Facts struct {
	Rendering
	Group    string // the sites that name it are this gateway's
	Files    map[string]FileFact
	Refused  map[Version]string // what nginx did not take, and its words
	Rulings  map[string]Ruling  // of the guard, by upstream; without one, all registered nodes are up
	Growing  map[string]bool    // upstreams that are being rolled out: see wantSlots
	Readings *Readings          // of earlier compiles, which save time; nil reads everything anew
}

// Rendering is how a gateway writes down what it serves. It is in its report: from that, any instance can tell what a change would do
// there.
type Rendering struct {
	Templates    string                 `json:"templates"` // Fingerprint of the Renderer
	Capabilities templates.Capabilities `json:"capabilities"`
	HTTPOnly     bool                   `json:"httpOnly,omitempty"` // nginx.conf is the operator's
	Dir          string                 `json:"dir,omitempty"`      // of the live configuration, with HTTPOnly: what relative paths can't express there
	AccessLog    string                 `json:"accessLog"`          // path
}

// FileFact is a file of this machine that a certificate names.
type FileFact struct {
	Data []byte
	Err  string // why it can't be read; empty when it can
}

// Good is what was last proven live: what Compile falls back to when something is bad now.
type Good struct {
	Objects map[registry.Ref]registry.Object
	Files   map[string][]byte
	Older   map[registry.Ref][]registry.Object // versions from the history of what was never live here, newest first
}

// Compiled is a configuration and what there is to say about it.
type Compiled struct {
	Config   templates.Config
	Used     Good                 // what Config was made of; it becomes the next Good when it is proven live
	Slots    []registry.SlotTable // tables that should be stored: until they are, nobody renders them
	Problems []registry.Problem   // sorted
	LeftOut  []Version            // of objects of which no version would do: the history may have one
	Nodes    int                  // that take connections, over all upstreams

	Certificates []CertificateStatus // that are rendered; sorted by name
	Upstreams    []UpstreamStatus    // sorted by name
	Members      []Member            // of the upstreams; sorted by upstream and id
	Exceptions   []NodeStatus        // nodes that are not plainly up, sorted by upstream and id
	Alarms       []registry.Problem  // sorted
}

// Compile decides everything that there is to decide about a gateway's configuration. It is pure. A bad object is kept as
// it last was good, or left out, and reported; it never stops the others.
func Compile(s registry.Snapshot, good Good, f Facts) Compiled {
	c := &compiler{
		snapshot:     s,
		good:         good,
		facts:        f,
		used:         Good{Objects: make(map[registry.Ref]registry.Object, len(s.Objects)), Files: map[string][]byte{}},
		objects:      make(map[registry.Ref]registry.Object, len(s.Objects)),
		upstreams:    map[string]*upstream{},
		certificates: map[string]*certificate{},
		overrides:    map[string]spec.Override{},
		sockets:      map[string]templates.Socket{},
		problems:     slices.Clone(s.Problems),
	}
	for _, o := range s.Objects {
		c.objects[o.Ref()] = o
	}
	f.Readings.Forget(len(s.Objects))
	c.readOverrides()
	c.addSites()
	return c.result()
}

// compiler is the state of one Compile.
type compiler struct {
	snapshot registry.Snapshot
	good     Good
	facts    Facts
	used     Good
	problems []registry.Problem
	leftOut  []Version

	objects      map[registry.Ref]registry.Object
	overrides    map[string]spec.Override    // by service/id
	upstreams    map[string]*upstream        // that a site of ours names; nil when it does not exist
	certificates map[string]*certificate     // likewise
	sockets      map[string]templates.Socket // by address
	taken        spec.Sockets
	sites        []templates.Site
}

func (c *compiler) result() Compiled {
	cfg := templates.Config{
		Capabilities: c.facts.Capabilities,
		HTTPOnly:     c.facts.HTTPOnly,
		Dir:          c.facts.Dir,
		Sites:        c.sites,
	}
	slices.SortFunc(cfg.Sites, func(a, b templates.Site) int { return cmp.Compare(a.Name, b.Name) })
	r := Compiled{Used: c.used, LeftOut: c.leftOut}
	for _, name := range slices.Sorted(maps.Keys(c.upstreams)) {
		u := c.upstreams[name]
		if u == nil {
			continue
		}
		if u.slots != nil {
			r.Slots = append(r.Slots, *u.slots)
		}
		r.Upstreams = append(r.Upstreams, u.status)
		r.Members = append(r.Members, u.members...)
		r.Exceptions = append(r.Exceptions, u.exceptions...)
		if u.status.Alarm != "" {
			r.Alarms = append(r.Alarms, registry.Problem{Object: "upstream/" + name, Message: u.status.Alarm})
		}
		if u.up > 0 {
			cfg.Upstreams = append(cfg.Upstreams, u.config)
			r.Nodes += u.up
		}
	}
	for _, name := range slices.Sorted(maps.Keys(c.certificates)) {
		if cert := c.certificates[name]; cert != nil && cert.used {
			cfg.Certificates = append(cfg.Certificates, cert.config)
			r.Certificates = append(r.Certificates, CertificateStatus{Name: name, NotAfter: cert.notAfter})
		}
	}
	for _, address := range slices.Sorted(maps.Keys(c.sockets)) {
		cfg.Sockets = append(cfg.Sockets, c.sockets[address])
	}
	slices.SortFunc(c.problems, compareProblems)
	r.Config, r.Problems = cfg, slices.Compact(c.problems)
	return r
}

func compareProblems(a, b registry.Problem) int {
	return cmp.Or(cmp.Compare(a.Object, b.Object), cmp.Compare(a.Field, b.Field), cmp.Compare(a.Message, b.Message))
}

func (c *compiler) problem(ref registry.Ref, field, format string, args ...any) {
	c.problems = append(c.problems, registry.Problem{
		Object: ref.String(), Field: field, Message: fmt.Sprintf(format, args...),
	})
}

// candidates returns the versions of an object to try, the wanted one first, then the last good one.
func (c *compiler) candidates(ref registry.Ref) []registry.Object {
	var list []registry.Object
	wanted, ok := c.objects[ref]
	if !ok {
		return nil // deleted on purpose: the last good one has nothing to say
	}
	list = append(list, wanted)
	if good, ok := c.good.Objects[ref]; ok && good.Seq != wanted.Seq {
		list = append(list, good)
	}
	return append(list, c.good.Older[ref]...)
}

// choose uses the first version of an object that try takes, and reports the faults of the wanted one. When no version
// will do, the object is left out.
func (c *compiler) choose(ref registry.Ref, try func(registry.Object) []spec.FieldError) {
	var wanted []spec.FieldError
	candidates := c.candidates(ref)
	for i, o := range candidates {
		var faults []spec.FieldError
		if words, refused := c.facts.Refused[Version{ref, o.Seq}]; refused {
			faults = []spec.FieldError{{Message: words}}
		} else {
			faults = try(o)
		}
		if len(faults) == 0 {
			c.used.Objects[ref] = o
			if i > 0 {
				c.report(ref, wanted, fmt.Sprintf("; until then it stays as it was at seq %d", o.Seq))
			}
			return
		}
		if i == 0 {
			wanted = faults
		}
	}
	c.report(ref, wanted, "; until then it is left out")
	if len(candidates) > 0 {
		c.leftOut = append(c.leftOut, Version{ref, candidates[0].Seq})
	}
}

func (c *compiler) report(ref registry.Ref, faults []spec.FieldError, consequence string) {
	for _, f := range faults {
		c.problem(ref, f.Field, "%s%s", f.Message, consequence)
	}
}

// read decodes and validates an object.
func read[T interface{ Validate() []spec.FieldError }](o registry.Object) (T, []spec.FieldError) {
	value, err := spec.Decode[T](o.Value)
	if err != nil {
		return value, []spec.FieldError{{Message: err.Error()}}
	}
	return value, value.Validate()
}

func (c *compiler) readOverrides() {
	for _, o := range c.snapshot.Objects {
		if o.Kind != registry.KindOverride {
			continue
		}
		c.choose(o.Ref(), func(o registry.Object) []spec.FieldError {
			override, faults := Recall[spec.Override](c.facts.Readings, o)
			if len(faults) == 0 {
				c.overrides[o.Name] = override
			}
			return faults
		})
	}
}
