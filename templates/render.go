package templates

import (
	"errors"
	"fmt"
	"io/fs"
)

// Modes of the files: nginx's workers may be another user, and nobody but the master reads keys.
const (
	modePublic fs.FileMode = 0o644
	modeSecret fs.FileMode = 0o600
)

// Render writes a configuration down. It is pure: the same Config gives the same bytes. What has no safe form, or refers to
// something that is not there, is an error that names the object; then nothing is rendered.
func (s *Set) Render(cfg Config) (Bundle, error) {
	b := newBuilder(cfg)
	pages := b.pages()
	if err := b.err(); err != nil {
		return Bundle{}, err
	}
	files := make([]File, 0, len(pages)+2*len(cfg.Certificates))
	for _, p := range pages {
		data, err := s.execute(p.template, p.view)
		if err != nil {
			return Bundle{}, fmt.Errorf("%s: %w", p.path, err)
		}
		files = append(files, File{Path: p.path, Data: data, Mode: modePublic})
	}
	for _, c := range cfg.Certificates {
		files = append(files,
			File{Path: certificatePath(c.Name), Data: c.Chain, Mode: modePublic},
			File{Path: keyPath(c.Name), Data: c.Key, Mode: modeSecret})
	}
	sortFiles(files)
	return Bundle{Files: files, Revision: Revision(files)}, nil
}

// RenderControl writes the files that belong to one machine and one reload. They stand beside those of the Bundle of the
// same Config, which include them.
func (s *Set) RenderControl(cfg Config, ctl Control) ([]File, error) {
	b := newBuilder(cfg)
	pages := b.controlPages(ctl)
	if err := b.err(); err != nil {
		return nil, err
	}
	var files []File
	for _, p := range pages {
		data, err := s.execute(p.template, p.view)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", p.path, err)
		}
		files = append(files, File{Path: p.path, Data: data, Mode: modePublic})
	}
	sortFiles(files)
	return files, nil
}

// page is a file to render.
type page struct {
	path     string
	template string
	view     any
}

// builder makes the views of a Config, and gathers what it has to refuse.
type builder struct {
	cfg          Config
	base         token           // what relative paths start with: empty, or Config.Dir with HTTPOnly
	upstreams    map[string]bool // those that a route can name
	certificates map[string]bool
	sockets      map[string]*socketPlan // by Address, as the Config spells it
	trusts       map[token]trustView    // by id
	refused      []error
}

func newBuilder(cfg Config) *builder {
	b := &builder{
		cfg:          cfg,
		upstreams:    make(map[string]bool, len(cfg.Upstreams)),
		certificates: make(map[string]bool, len(cfg.Certificates)),
		sockets:      make(map[string]*socketPlan, len(cfg.Sockets)),
		trusts:       map[token]trustView{},
	}
	if cfg.HTTPOnly {
		b.base = value(b, "configuration", "directory", directory, cfg.Dir)
	}
	return b
}

// refuse notes why an object cannot be rendered.
func (b *builder) refuse(object, format string, args ...any) {
	b.refused = append(b.refused, &ObjectError{Object: object, Err: fmt.Errorf(format, args...)})
}

// maxRefused bounds the message: a thousand nodes with the same fault need not all be named.
const maxRefused = 20

func (b *builder) err() error {
	if more := len(b.refused) - maxRefused; more > 0 {
		return errors.Join(append(b.refused[:maxRefused:maxRefused], fmt.Errorf("and %d more", more))...)
	}
	return errors.Join(b.refused...)
}

// value returns what write makes of v, or notes that the object's field was refused.
func value[T any](b *builder, object, field string, write func(T) (token, error), v T) token {
	t, err := write(v)
	if err != nil {
		b.refuse(object, "%s: %w", field, err)
	}
	return t
}

// pages returns all files of the Bundle but the certificates.
func (b *builder) pages() []page {
	b.addCertificates()
	b.addSockets()
	upstreams := b.upstreamPages()
	sites := b.sitePages()
	var pages []page
	if !b.cfg.HTTPOnly {
		pages = append(pages, page{"nginx.conf", "nginx.conf.tmpl", nil})
	}
	sockets := page{"http/sockets.conf", "sockets.conf.tmpl", b.defaultServers()}
	http := b.httpPage(append(append(upstreams, sockets), sites...))
	pages = append(pages, http, sockets)
	pages = append(pages, upstreams...)
	return append(pages, sites...)
}
