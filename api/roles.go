package api

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"sync"

	"github.com/getkin/kin-openapi/openapi3"

	"sluice"
	"sluice/controlplane/spec"
)

// anyRole is the x-role of an operation that every caller may use who is known.
const anyRole spec.Role = "any"

// operation is what has to be known of an operation before it is called.
type operation struct {
	id         string
	role       spec.Role // empty: it asks nobody who he is
	parameters []parameter
}

// document is openapi.yaml as it is read once.
var document = sync.OnceValues(func() (*openapi3.T, error) {
	doc, err := openapi3.NewLoader().LoadFromData(sluice.OpenAPI)
	if err != nil {
		return nil, fmt.Errorf("read openapi.yaml: %w", err)
	}
	return doc, nil
})

var pathParameter = regexp.MustCompile(`\{([A-Za-z]+)\}`)

// readOperations reads who may use which operation, and how, from openapi.yaml, by method and echo's path: x-role is the least role,
// and "security: []" says that nobody is asked. An operation that says neither is an error: nothing is open by oversight.
func readOperations() (map[string]operation, error) {
	doc, err := document()
	if err != nil {
		return nil, err
	}
	operations := map[string]operation{}
	var errs []error
	for path, item := range doc.Paths.Map() {
		at := pathParameter.ReplaceAllString(path, ":$1")
		for method, op := range item.Operations() {
			text, _ := op.Extensions["x-role"].(string)
			role := spec.Role(text)
			open := op.Security != nil && len(*op.Security) == 0
			if open != (role == "") || !open && role != anyRole && !slices.Contains(spec.Roles(), role) {
				errs = append(errs, fmt.Errorf(`openapi.yaml: %s needs "x-role: ROLE", one of any, %v; or "security: []", and no role`, op.OperationID, spec.Roles()))
			}
			var parameters []parameter
			for _, ref := range slices.Concat(item.Parameters, op.Parameters) {
				p, err := newParameter(ref.Value)
				errs = append(errs, err)
				parameters = append(parameters, p)
			}
			operations[method+" "+at] = operation{op.OperationID, role, parameters}
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
