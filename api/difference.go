package api

import (
	"bytes"
	"encoding/json"
	"maps"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"sluice/registry"
)

// differences returns where two versions of an object differ, sorted by path. nil stands for an object that is not there.
func differences(before, after json.RawMessage) []Difference {
	switch {
	case before == nil && after == nil:
		return nil
	case before == nil || after == nil:
		return []Difference{{Before: before, After: after}}
	}
	a, errA := decodeAny(before)
	b, errB := decodeAny(after)
	if errA != nil || errB != nil {
		return []Difference{{Before: before, After: after}}
	}
	return differ(nil, "", a, b)
}

// decodeAny keeps numbers as they are written.
func decodeAny(raw json.RawMessage) (any, error) {
	d := json.NewDecoder(bytes.NewReader(raw))
	d.UseNumber()
	var v any
	err := d.Decode(&v)
	return v, err
}

func differ(out []Difference, at string, a, b any) []Difference {
	switch x := a.(type) {
	case map[string]any:
		if y, ok := b.(map[string]any); ok {
			return differObjects(out, at, x, y)
		}
	case []any:
		if y, ok := b.([]any); ok {
			return differLists(out, at, x, y)
		}
	}
	if reflect.DeepEqual(a, b) {
		return out
	}
	return append(out, Difference{Path: at, Before: encodeAny(a), After: encodeAny(b)})
}

func differObjects(out []Difference, at string, a, b map[string]any) []Difference {
	keys := map[string]bool{}
	for key := range a {
		keys[key] = true
	}
	for key := range b {
		keys[key] = true
	}
	for _, key := range slices.Sorted(maps.Keys(keys)) {
		at := at + "/" + escapePointer(key)
		x, had := a[key]
		y, has := b[key]
		switch {
		case !had:
			out = append(out, Difference{Path: at, After: encodeAny(y)})
		case !has:
			out = append(out, Difference{Path: at, Before: encodeAny(x)})
		default:
			out = differ(out, at, x, y)
		}
	}
	return out
}

func differLists(out []Difference, at string, a, b []any) []Difference {
	for i := range max(len(a), len(b)) {
		at := at + "/" + strconv.Itoa(i)
		switch {
		case i >= len(a):
			out = append(out, Difference{Path: at, After: encodeAny(b[i])})
		case i >= len(b):
			out = append(out, Difference{Path: at, Before: encodeAny(a[i])})
		default:
			out = differ(out, at, a[i], b[i])
		}
	}
	return out
}

func encodeAny(v any) json.RawMessage {
	raw, err := registry.MarshalJSON(v)
	if err != nil {
		return json.RawMessage("null") // it was decoded from JSON
	}
	return raw
}

func escapePointer(key string) string { return strings.NewReplacer("~", "~0", "/", "~1").Replace(key) }
