package api_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/getkin/kin-openapi/openapi3"
)

// violations are values that a schema refuses, just so.
func violations(s *openapi3.Schema) []any {
	out := []any{nil}
	switch {
	case s.Type.Is(openapi3.TypeString):
		out = append(out, 1, "", "nonsense", "!", []any{})
		if s.MaxLength != nil {
			out = append(out, strings.Repeat("a", int(*s.MaxLength)+1))
		}
	case s.Type.Is(openapi3.TypeInteger):
		out = append(out, "1", 1.5, true)
		if s.Min != nil {
			out = append(out, *s.Min-1)
		}
		if s.Max != nil {
			out = append(out, *s.Max+1)
		}
	case s.Type.Is(openapi3.TypeBoolean):
		out = append(out, "true", 1)
	case s.Type.Is(openapi3.TypeArray):
		out = append(out, "x", map[string]any{}, []any{})
		if s.MaxItems != nil {
			out = append(out, slices.Repeat([]any{"a"}, int(*s.MaxItems)+1))
		}
	case s.Type.Is(openapi3.TypeObject):
		out = append(out, "x", []any{}, map[string]any{"nonsense": 1})
		if s.MaxProps != nil {
			many := map[string]any{}
			for i := range *s.MaxProps + 1 {
				many[fmt.Sprint("k", i)] = "v"
			}
			out = append(out, many)
		}
	}
	return slices.DeleteFunc(out, func(v any) bool { return s.VisitJSON(v, openapi3.EnableFormatValidation()) == nil })
}

// violate calls send with a body for each way in which one value of it can be wrong. at makes a body of a value of the schema.
func violate(s *openapi3.Schema, value any, at func(any) any, send func(body any)) {
	for _, bad := range violations(s) {
		send(at(bad))
	}
	within := func(name string, s *openapi3.Schema) {
		members, _ := value.(map[string]any)
		child := members[name]
		if child == nil {
			child = s.Example
		}
		violate(s, child, func(v any) any {
			with := maps.Clone(members)
			if with == nil {
				with = map[string]any{}
			}
			with[name] = v
			return at(with)
		}, send)
	}
	for name, property := range s.Properties {
		within(name, property.Value)
	}
	if of := s.AdditionalProperties.Schema; of != nil {
		within("io/n1", of.Value)
		within("chat", of.Value)
	}
	if s.Items != nil {
		first := s.Items.Value.Example
		if items, ok := value.([]any); ok && len(items) > 0 {
			first = items[0]
		}
		violate(s.Items.Value, first, func(v any) any { return at([]any{v}) }, send)
	}
}

// Bodies are checked by the structs, not by the document: what the one refuses, the others refuse too, field by field.
func TestBodiesThatTheDocumentRefuses(t *testing.T) {
	t.Parallel()
	r := newRegistry(t)
	startWith(t, r, "").create()
	for _, e := range endpoints() {
		if e.RequestBody == nil || e.method == http.MethodPatch {
			continue
		}
		t.Run(e.OperationID, func(t *testing.T) {
			t.Parallel()
			schema := e.RequestBody.Value.Content.Get("application/json").Schema.Value
			c, sent := e.example(t, 1), 0
			var in *instance
			violate(schema, schema.Example, func(v any) any { return v }, func(body any) {
				text, err := json.Marshal(body)
				if err != nil {
					t.Fatal(err)
				}
				if sent%300 == 0 { // a caller of one may send no more at once
					in = startWith(t, r, "")
				}
				sent++
				if got := in.do(c.method, c.target, string(text)); got.status != http.StatusUnprocessableEntity {
					t.Errorf("%d: %.300s\n%.300s", got.status, text, got.body)
				}
			})
			if sent < 10 {
				t.Errorf("only %d bodies were tried", sent)
			}
		})
	}
}
