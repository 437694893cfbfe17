package controlplane

import (
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"

	"sluice/controlplane/spec"
	"sluice/registry"
)

// TestReadingsChangeNothing compiles changes one after the other, with and without what was read before.
func TestReadingsChangeNothing(t *testing.T) {
	t.Parallel()
	object := func(kind registry.Kind, name string, seq registry.Seq, value string) registry.Object {
		return registry.Object{Kind: kind, Name: name, Seq: seq, Value: []byte(value)}
	}
	site := func(name string, seq registry.Seq, text string) registry.Object {
		return object(registry.KindSite, name, seq, fmt.Sprintf(`{"hosts": [%q], "listeners": [{"port": 8080}], "routes": [{"upstream": "io"}]%s}`, name, text))
	}
	base := []registry.Object{
		object(registry.KindOverride, "io/n1", 1, `{"weight": 3}`), site("a", 1, ""), site("b", 1, `, "groups": ["other"]`), object(registry.KindUpstream, "io", 1, `{}`),
	}
	nodes := []registry.Node{{Service: "io", ID: "n1", Address: "10.0.0.1", Port: 80}}
	readings := NewReadings()
	for i, with := range []registry.Object{
		base[1], site("a", 2, `, "accessLog": false`), site("a", 2, `, "accessLog": true`), site("a", 3, `, "nonsense": []`), site("a", 4, `, "routes": 5`), site("b", 5, ""),
		object(registry.KindUpstream, "io", 6, `{"balance": {"method": "fastest"}}`), object(registry.KindOverride, "io/n1", 7, `{"state": "disabled"}`), base[1],
	} {
		s := registry.Snapshot{Seq: with.Seq, Nodes: nodes}
		for _, o := range base {
			if o.Ref() == with.Ref() {
				o = with
			}
			s.Objects = append(s.Objects, o)
		}
		facts := Facts{Group: "default", Rendering: Rendering{AccessLog: "log"}}
		want := Compile(s, Good{}, facts)
		facts.Readings = readings
		for range 2 {
			if diff := cmp.Diff(want, Compile(s, Good{}, facts)); diff != "" {
				t.Errorf("change %d (-without +with):\n%s", i, diff)
			}
		}
	}
	Compile(registry.Snapshot{}, Good{}, Facts{Readings: readings})
	for i := range 200 {
		Recall[spec.Site](readings, site(fmt.Sprint(i), 1, ""))
	}
	Compile(registry.Snapshot{Objects: base}, Good{}, Facts{Group: "default", Readings: readings})
	if n := len(readings.known); n > len(base) {
		t.Errorf("%d readings are kept of %d objects", n, len(base))
	}
}
