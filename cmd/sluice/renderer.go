package main

import (
	"sync"

	"sluice/templates"
)

// renderer renders with the embedded templates and the overrides of a directory, read again when they change: so a broken
// override can be mended while sluice runs.
type renderer struct {
	dir string // of overrides; empty for none

	mu    sync.Mutex
	print string
	set   *templates.Set
}

// Fingerprint implements controlplane.Renderer.
func (r *renderer) Fingerprint() string { return templates.Fingerprint(r.dir) }

// Render implements controlplane.Renderer.
func (r *renderer) Render(cfg templates.Config) (templates.Bundle, error) {
	set, err := r.load()
	if err != nil {
		return templates.Bundle{}, err
	}
	return set.Render(cfg)
}

// load returns the templates as they are now.
func (r *renderer) load() (*templates.Set, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	fingerprint := r.Fingerprint()
	if r.set != nil && fingerprint == r.print {
		return r.set, nil
	}
	set, err := templates.New(r.dir)
	if err != nil {
		return nil, err
	}
	r.set, r.print = set, fingerprint
	return set, nil
}
