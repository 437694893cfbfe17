package api_test

import (
	"encoding"
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/google/go-cmp/cmp"

	"sluice/api"
	"sluice/controlplane"
	"sluice/controlplane/spec"
	"sluice/registry"
)

// goTypes are the structs that openapi.yaml names with x-go-type.
var goTypes = map[string]reflect.Type{
	"spec.FieldError":                reflect.TypeFor[spec.FieldError](),
	"spec.Duration":                  reflect.TypeFor[spec.Duration](),
	"spec.Size":                      reflect.TypeFor[spec.Size](),
	"spec.Upstream":                  reflect.TypeFor[spec.Upstream](),
	"spec.Balance":                   reflect.TypeFor[spec.Balance](),
	"spec.Method":                    reflect.TypeFor[spec.Method](),
	"spec.Passive":                   reflect.TypeFor[spec.Passive](),
	"spec.Keepalive":                 reflect.TypeFor[spec.Keepalive](),
	"spec.Guard":                     reflect.TypeFor[spec.Guard](),
	"spec.Approval":                  reflect.TypeFor[spec.Approval](),
	"spec.Check":                     reflect.TypeFor[spec.Check](),
	"spec.CheckType":                 reflect.TypeFor[spec.CheckType](),
	"spec.CheckTLS":                  reflect.TypeFor[spec.CheckTLS](),
	"spec.Identity":                  reflect.TypeFor[spec.Identity](),
	"spec.Site":                      reflect.TypeFor[spec.Site](),
	"spec.Listener":                  reflect.TypeFor[spec.Listener](),
	"spec.TLSPolicy":                 reflect.TypeFor[spec.TLSPolicy](),
	"spec.ClientAddress":             reflect.TypeFor[spec.ClientAddress](),
	"spec.Route":                     reflect.TypeFor[spec.Route](),
	"spec.RouteKind":                 reflect.TypeFor[spec.RouteKind](),
	"spec.Retries":                   reflect.TypeFor[spec.Retries](),
	"spec.Certificate":               reflect.TypeFor[spec.Certificate](),
	"spec.State":                     reflect.TypeFor[spec.State](),
	"spec.Override":                  reflect.TypeFor[spec.Override](),
	"spec.Document":                  reflect.TypeFor[spec.Document](),
	"registry.Seq":                   reflect.TypeFor[registry.Seq](),
	"registry.Slot":                  reflect.TypeFor[registry.Slot](),
	"registry.Node":                  reflect.TypeFor[registry.Node](),
	"registry.Problem":               reflect.TypeFor[registry.Problem](),
	"controlplane.Status":            reflect.TypeFor[controlplane.Status](),
	"controlplane.UpstreamStatus":    reflect.TypeFor[controlplane.UpstreamStatus](),
	"controlplane.NodeStatus":        reflect.TypeFor[controlplane.NodeStatus](),
	"controlplane.NodeState":         reflect.TypeFor[controlplane.NodeState](),
	"controlplane.Phase":             reflect.TypeFor[controlplane.Phase](),
	"controlplane.LastApplied":       reflect.TypeFor[controlplane.LastApplied](),
	"controlplane.How":               reflect.TypeFor[controlplane.How](),
	"controlplane.Wait":              reflect.TypeFor[controlplane.Wait](),
	"controlplane.Event":             reflect.TypeFor[controlplane.Event](),
	"controlplane.FileDiff":          reflect.TypeFor[controlplane.FileDiff](),
	"controlplane.EventType":         reflect.TypeFor[controlplane.EventType](),
	"controlplane.CertificateStatus": reflect.TypeFor[controlplane.CertificateStatus](),
	"spec.Token":                     reflect.TypeFor[spec.Token](),
	"spec.Limits":                    reflect.TypeFor[spec.Limits](),
	"spec.Role":                      reflect.TypeFor[spec.Role](),
	"controlplane.Failure":           reflect.TypeFor[controlplane.Failure](),
	"controlplane.RegistryHealth":    reflect.TypeFor[controlplane.RegistryHealth](),
	"controlplane.Live":              reflect.TypeFor[controlplane.Live](),
	"controlplane.Generation":        reflect.TypeFor[controlplane.Generation](),
	"controlplane.Worker":            reflect.TypeFor[controlplane.Worker](),
	"controlplane.RolloutPart":       reflect.TypeFor[controlplane.RolloutPart](),
	"controlplane.PartState":         reflect.TypeFor[controlplane.PartState](),
	"registry.RolloutState":          reflect.TypeFor[registry.RolloutState](),
	"controlplane.Sockets":           reflect.TypeFor[controlplane.Sockets](),
	"controlplane.Rendering":         reflect.TypeFor[controlplane.Rendering](),
	"controlplane.Forecast":          reflect.TypeFor[controlplane.Forecast](),
	"controlplane.Touched":           reflect.TypeFor[controlplane.Touched](),
	"controlplane.Findings":          reflect.TypeFor[controlplane.Findings](),
	"controlplane.FailingNode":       reflect.TypeFor[controlplane.FailingNode](),
	"controlplane.HeldNode":          reflect.TypeFor[controlplane.HeldNode](),
}

// enums are the values of the Go types that have constants.
var enums = map[string][]string{
	"Method":    text(spec.RoundRobin, spec.LeastConn, spec.IPHash, spec.Hash, spec.Random),
	"CheckType": text(spec.CheckTCP, spec.CheckHTTP, spec.CheckEngineIO, spec.CheckNone),
	"Role":      text(spec.Roles()...),
	"EventType": text(controlplane.EventChange, controlplane.EventNode, controlplane.EventApply, controlplane.EventAlarm, controlplane.EventRegistry, controlplane.EventGap),
	"RouteKind": text(spec.SocketIO, spec.WebSocket, spec.HTTP),
	"State":     text(spec.Active, spec.Draining, spec.Disabled),
	"Phase":     text(controlplane.Starting, controlplane.InStep, controlplane.Applying, controlplane.Waiting, controlplane.Failed),
	"NodeState": text(controlplane.NodeUp, controlplane.NodeSuspect, controlplane.NodeHeld, controlplane.NodeUnhealthy, controlplane.NodeIgnored,
		controlplane.NodeFlapping, controlplane.NodeStranger, controlplane.NodeDraining, controlplane.NodeDisabled),
	"RolloutState": text(registry.RolloutRunning, registry.RolloutPaused, registry.RolloutReverting, registry.RolloutDone, registry.RolloutPromoted,
		registry.RolloutReverted, registry.RolloutMerged),
	"PartState": text(controlplane.PartWaits, controlplane.PartApplying, controlplane.PartLive, controlplane.PartRefused),
	"How":       text(controlplane.Nothing, controlplane.Reload, controlplane.Start),
}

func text[T ~string](values ...T) []string {
	var out []string
	for _, v := range values {
		out = append(out, string(v))
	}
	return out
}

func goTypeOf(ref *openapi3.SchemaRef) (reflect.Type, bool) {
	name, _ := ref.Value.Extensions["x-go-type"].(string)
	t, ok := goTypes[name]
	return t, ok
}

// TestSchemasAgreeWithStructs goes both ways: a field that one side has, the other has with the same type.
func TestSchemasAgreeWithStructs(t *testing.T) {
	t.Parallel()
	used := map[string]bool{}
	for name, ref := range document.Components.Schemas {
		goType, _ := ref.Value.Extensions["x-go-type"].(string)
		if goType == "" || goType == "json.RawMessage" { // any object
			continue
		}
		used[goType] = true
		want, ok := goTypes[goType]
		if !ok {
			t.Errorf("schema %s names %s, which this test does not know: add it", name, goType)
			continue
		}
		for _, difference := range differences(name, ref, want) {
			t.Error(difference)
		}
		if want.Kind() == reflect.Struct && (ref.Value.AdditionalProperties.Has == nil || *ref.Value.AdditionalProperties.Has) {
			t.Errorf("schema %s takes unknown fields: set additionalProperties: false", name)
		}
	}
	for name := range goTypes {
		if !used[name] {
			t.Errorf("no schema names %s any more: remove it here", name)
		}
	}
	for name, values := range enums {
		var have []string
		for _, v := range document.Components.Schemas[name].Value.Enum {
			have = append(have, fmt.Sprint(v))
		}
		if diff := cmp.Diff(values, have); diff != "" {
			t.Errorf("the enumeration of %s (- Go, + schema):\n%s", name, diff)
		}
	}
}

// differences compares a schema with a Go type; it stops at schemas that name a Go type of their own.
func differences(at string, ref *openapi3.SchemaRef, goType reflect.Type) []string {
	for goType.Kind() == reflect.Pointer {
		goType = goType.Elem()
	}
	schema := ref.Value
	kind := func(want string) []string {
		if !schema.Type.Is(want) {
			return []string{fmt.Sprintf("%s is %v in the schema, %s in Go", at, schema.Type, goType)}
		}
		return nil
	}
	_, isText := reflect.New(goType).Interface().(encoding.TextUnmarshaler)
	switch {
	case goType == reflect.TypeFor[time.Time]():
		if schema.Format != "date-time" {
			return []string{at + " is a time: it needs the format date-time"}
		}
		return kind("string")
	case isText, goType.Kind() == reflect.String:
		return kind("string")
	}
	switch goType.Kind() {
	case reflect.Bool:
		return kind("boolean")
	case reflect.Int, reflect.Int64, reflect.Uint64:
		return kind("integer")
	case reflect.Float64:
		return kind("number")
	case reflect.Slice:
		return append(kind("array"), reference(at+"/-", schema.Items, goType.Elem())...)
	case reflect.Map:
		return append(kind("object"), reference(at+"/*", schema.AdditionalProperties.Schema, goType.Elem())...)
	case reflect.Struct:
		return append(kind("object"), structDifferences(at, schema, goType)...)
	default:
		return []string{fmt.Sprintf("%s: %s has no counterpart in JSON", at, goType)}
	}
}

func structDifferences(at string, schema *openapi3.Schema, goType reflect.Type) []string {
	var out []string
	known := map[string]bool{}
	for _, f := range reflect.VisibleFields(goType) {
		name, options, _ := strings.Cut(f.Tag.Get("json"), ",")
		if name == "-" {
			continue
		}
		known[name] = true
		property, ok := schema.Properties[name]
		if !ok {
			out = append(out, fmt.Sprintf("%s/%s is in Go only", at, name))
			continue
		}
		if always := !strings.Contains(options, "omit"); always && !slices.Contains(schema.Required, name) {
			out = append(out, fmt.Sprintf("%s/%s is always written: the schema must require it", at, name))
		}
		out = append(out, reference(at+"/"+name, property, f.Type)...)
	}
	for name := range schema.Properties {
		if !known[name] {
			out = append(out, fmt.Sprintf("%s/%s is in the schema only", at, name))
		}
	}
	return out
}

// reference compares a part of a schema. One that names a Go type must name the one that is there.
func reference(at string, ref *openapi3.SchemaRef, goType reflect.Type) []string {
	if ref == nil {
		return []string{at + " has no schema"}
	}
	for goType.Kind() == reflect.Pointer {
		goType = goType.Elem()
	}
	if named, ok := goTypeOf(ref); ok {
		if named != goType {
			return []string{fmt.Sprintf("%s is %s in the schema, %s in Go", at, named, goType)}
		}
		return nil
	}
	return differences(at, ref, goType)
}

// TestExamplesAreGood holds the examples against their schemas, and against what the server itself says of them.
func TestExamplesAreGood(t *testing.T) {
	t.Parallel()
	validators := map[string]func([]byte) []spec.FieldError{
		"Upstream": validator[spec.Upstream], "Site": validator[spec.Site], "Certificate": validator[spec.Certificate],
		"Override": validator[spec.Override], "Approval": validator[spec.Approval], "Route": validator[spec.Route], "Document": validator[spec.Document],
	}
	for name, ref := range document.Components.Schemas {
		if ref.Value.Example == nil {
			continue
		}
		if err := ref.Value.VisitJSON(ref.Value.Example, openapi3.EnableFormatValidation()); err != nil {
			t.Errorf("the example of %s: %v", name, err)
		}
		if validate, ok := validators[name]; ok {
			data, err := json.Marshal(ref.Value.Example)
			if err != nil {
				t.Fatal(err)
			}
			if errs := validate(data); errs != nil {
				t.Errorf("the example of %s: %v", name, errs)
			}
		}
	}
}

func validator[T interface{ Validate() []spec.FieldError }](data []byte) []spec.FieldError {
	var v T
	if err := spec.UnmarshalStrict(data, &v); err != nil {
		return []spec.FieldError{{Message: err.Error()}}
	}
	return v.Validate()
}

// TestRegistrationCarriesTheNode fails when a Node gets a field that registering through the API would lose.
func TestRegistrationCarriesTheNode(t *testing.T) {
	t.Parallel()
	node, registration := reflect.TypeFor[registry.Node](), reflect.TypeFor[api.Registration]()
	for _, f := range reflect.VisibleFields(node) {
		if f.Name == "Service" || f.Name == "ID" { // in the path
			continue
		}
		if g, ok := registration.FieldByName(f.Name); !ok || g.Type != f.Type {
			t.Errorf("a Registration has no %s %s", f.Name, f.Type)
		}
	}
}
