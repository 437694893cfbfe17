// Package templates renders a gateway's configuration: Config -> Bundle. It is pure, and decides nothing. Each template is
// a file that an operator can replace; the data it gets are the view types of the Go file of the same noun, whose strings
// are quoted already.
package templates

import (
	"bytes"
	"crypto/sha256"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"text/template"
)

//go:embed *.tmpl
var embedded embed.FS

// Set is the templates of a gateway, parsed. It is safe for concurrent use.
type Set struct {
	root *template.Template
}

// New returns the embedded templates, each replaced by the file of the same name in overrideDir, if there is one; an empty
// overrideDir replaces none. A file *.tmpl that would replace nothing is an error, since it is a misspelling; other files
// are left alone.
func New(overrideDir string) (*Set, error) {
	sources, err := readSources(overrideDir)
	if err != nil {
		return nil, err
	}
	s := &Set{root: template.New("").Option("missingkey=error")}
	for _, source := range sources {
		if _, err := s.root.New(source.name).Parse(string(source.text)); err != nil {
			// The package's own message is "template: NAME:LINE: what"; NAME alone would not say which directory.
			return nil, fmt.Errorf("parse template %s", filepath.Join(filepath.Dir(source.path), strings.TrimPrefix(err.Error(), "template: ")))
		}
	}
	return s, nil
}

// Fingerprint returns 16 hex digits of a hash of the templates that New would return, which are the same on every machine that has the
// same; when there are none, why.
func Fingerprint(overrideDir string) string {
	sources, err := readSources(overrideDir)
	if err != nil {
		return err.Error()
	}
	hash := sha256.New()
	for _, source := range sources {
		fmt.Fprintf(hash, "%s %d\n%s", source.name, len(source.text), source.text)
	}
	return fmt.Sprintf("%.8x", hash.Sum(nil))
}

// source is the text of a template.
type source struct {
	name string
	path string // of the file that replaces the embedded one; empty when none does
	text []byte
}

// readSources returns the embedded templates, or the files in overrideDir that replace them, sorted by name.
func readSources(overrideDir string) ([]source, error) {
	names, err := fs.Glob(embedded, "*.tmpl")
	if err != nil {
		return nil, fmt.Errorf("list embedded templates: %w", err)
	}
	overrides, err := findOverrides(overrideDir, names)
	if err != nil {
		return nil, err
	}
	sources := make([]source, len(names))
	for i, name := range names {
		s := source{name: name, path: overrides[name]}
		if s.path == "" {
			s.text, err = embedded.ReadFile(name)
		} else {
			s.text, err = os.ReadFile(s.path)
		}
		if err != nil {
			return nil, fmt.Errorf("read template: %w", err)
		}
		sources[i] = s
	}
	return sources, nil
}

// findOverrides returns the paths of the files in dir that replace one of names.
func findOverrides(dir string, names []string) (map[string]string, error) {
	found := map[string]string{}
	if dir == "" {
		return found, nil
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("read template overrides: %w", err)
	}
	var errs []error
	for _, e := range entries {
		path := filepath.Join(dir, e.Name())
		switch {
		case filepath.Ext(e.Name()) != ".tmpl":
		case !slices.Contains(names, e.Name()):
			errs = append(errs, fmt.Errorf("template override %s has no template to replace: rename it to one of %s", path, strings.Join(names, ", ")))
		default:
			found[e.Name()] = path
		}
	}
	return found, errors.Join(errs...)
}

// execute renders one template.
func (s *Set) execute(name string, view any) ([]byte, error) {
	var out bytes.Buffer
	if err := s.root.ExecuteTemplate(&out, name, view); err != nil {
		// The message names template, line and column.
		return nil, fmt.Errorf("render: %w", err)
	}
	return out.Bytes(), nil
}
