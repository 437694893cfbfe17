package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
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

// Fingerprint changes when a file of the directory does.
func (r *renderer) Fingerprint() string {
	if r.dir == "" {
		return ""
	}
	entries, err := os.ReadDir(r.dir)
	if err != nil {
		return err.Error()
	}
	var b strings.Builder
	for _, e := range entries {
		// Stat follows links, as a mounted ConfigMap has them.
		if info, err := os.Stat(filepath.Join(r.dir, e.Name())); err == nil {
			fmt.Fprintln(&b, e.Name(), info.Size(), info.ModTime().UnixNano())
		}
	}
	return b.String()
}

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
