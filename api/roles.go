package api

import (
	"errors"
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"strings"

	"github.com/goccy/go-yaml"

	"sluice"
	"sluice/controlplane/spec"
)

// anyRole is the x-role of an operation that every caller may use who is known.
const anyRole spec.Role = "any"

// operation is what access needs to know of an operation.
type operation struct {
	id    string
	role  spec.Role // empty: it asks nobody who he is
	query []string  // the query parameters that it knows
}

var pathParameter = regexp.MustCompile(`\{([A-Za-z]+)\}`)

// readOperations reads who may use which operation, and how, from openapi.yaml, by method and echo's path: x-role is the least role,
// and "security: []" says that nobody is asked. An operation that says neither is an error: nothing is open by oversight.
func readOperations() (map[string]operation, error) {
	type parameter struct {
		Ref      string `yaml:"$ref"`
		In, Name string
	}
	type item struct {
		ID         string    `yaml:"operationId"`
		Security   *[]any    `yaml:"security"`
		Role       spec.Role `yaml:"x-role"`
		Parameters []parameter
	}
	var doc struct {
		Components struct{ Parameters map[string]parameter }
		Paths      map[string]struct {
			Get, Put, Post, Patch, Delete *item
		}
	}
	if err := yaml.Unmarshal(sluice.OpenAPI, &doc); err != nil {
		return nil, fmt.Errorf("read openapi.yaml: %w", err)
	}
	operations := map[string]operation{}
	var errs []error
	for path, p := range doc.Paths {
		at := pathParameter.ReplaceAllString(path, ":$1")
		for method, op := range map[string]*item{
			http.MethodGet: p.Get, http.MethodPut: p.Put, http.MethodPost: p.Post, http.MethodPatch: p.Patch, http.MethodDelete: p.Delete,
		} {
			if op == nil {
				continue
			}
			open := op.Security != nil && len(*op.Security) == 0
			if open != (op.Role == "") || !open && op.Role != anyRole && !slices.Contains(spec.Roles(), op.Role) {
				errs = append(errs, fmt.Errorf(`openapi.yaml: %s needs "x-role: ROLE", one of any, %v; or "security: []", and no role`, op.ID, spec.Roles()))
			}
			var query []string
			for _, p := range op.Parameters {
				if name, ok := strings.CutPrefix(p.Ref, "#/components/parameters/"); ok {
					p = doc.Components.Parameters[name]
				}
				if p.In == "query" {
					query = append(query, p.Name)
				}
			}
			operations[method+" "+at] = operation{op.ID, op.Role, query}
		}
	}
	return operations, errors.Join(errs...)
}

// may says whether a role is enough for an operation that needs another.
func may(has, needs spec.Role) bool {
	switch needs {
	case anyRole:
		return true
	case spec.Viewer:
		return has == spec.Viewer || has == spec.Operator || has == spec.Admin
	case spec.Registrar:
		return has == spec.Registrar || has == spec.Operator || has == spec.Admin
	case spec.Operator:
		return has == spec.Operator || has == spec.Admin
	default:
		return has == spec.Admin
	}
}
