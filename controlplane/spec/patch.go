package spec

import (
	"bytes"
	"encoding"
	"encoding/json"
	"maps"
	"reflect"
)

// MergePatch returns target changed by a JSON merge patch (RFC 7396). Both are JSON objects.
func MergePatch(target, patch json.RawMessage) (json.RawMessage, error) {
	t, err := decodeAny(target)
	if err != nil {
		return nil, err
	}
	p, err := decodeAny(patch)
	if err != nil {
		return nil, err
	}
	return encodeAny(merge(t, p))
}

func merge(target, patch any) any {
	changes, ok := patch.(map[string]any)
	if !ok {
		return patch
	}
	out := map[string]any{}
	if object, ok := target.(map[string]any); ok {
		maps.Copy(out, object)
	}
	for key, value := range changes {
		if value == nil {
			delete(out, key)
			continue
		}
		out[key] = merge(out[key], value)
	}
	return out
}

// CheckPatch returns what is wrong with the fields of a merge patch for a T, as a FieldError. It may remove a field that
// this version does not know, but not set it.
func CheckPatch[T any](patch json.RawMessage) error {
	if err := checkStrict(patch, reflect.TypeFor[map[string]any](), false); err != nil {
		return err.FieldError
	}
	p, err := decodeAny(patch)
	if err != nil {
		return err
	}
	set, err := encodeAny(withoutNulls(p))
	if err != nil {
		return err
	}
	if err := checkStrict(set, reflect.TypeFor[T](), false); err != nil {
		return err.FieldError
	}
	return nil
}

func withoutNulls(v any) any {
	object, ok := v.(map[string]any)
	if !ok {
		return v
	}
	out := map[string]any{}
	for key, value := range object {
		if value != nil {
			out[key] = withoutNulls(value)
		}
	}
	return out
}

// KeepUnknown returns written, a T, with those fields of stored that T does not have: a newer version wrote them, and what
// this one writes must not take them away. Entries of lists are told apart by their place, so they keep theirs only in a
// list that has as many as before.
func KeepUnknown[T any](stored, written json.RawMessage) json.RawMessage {
	s, errS := decodeAny(stored)
	w, errW := decodeAny(written)
	if errS != nil || errW != nil {
		return written
	}
	kept, found := keep(reflect.TypeFor[T](), s, w)
	if !found {
		return written
	}
	out, err := encodeAny(kept)
	if err != nil {
		return written
	}
	return out
}

// keep changes written, and tells whether it did.
func keep(t reflect.Type, stored, written any) (any, bool) {
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	switch reflect.New(t).Interface().(type) {
	case json.Unmarshaler, encoding.TextUnmarshaler:
		return written, false
	}
	found := false
	switch was := stored.(type) {
	case map[string]any:
		is, ok := written.(map[string]any)
		if !ok || t.Kind() != reflect.Struct && t.Kind() != reflect.Map {
			return written, false
		}
		var known map[string]reflect.Type
		if t.Kind() == reflect.Struct {
			known = fields(t)
		}
		for key, value := range was {
			field, ok := known[key]
			switch now, there := is[key]; {
			case known != nil && !ok:
				is[key], found = value, true
			case there && known == nil:
				kept, more := keep(t.Elem(), value, now)
				is[key], found = kept, found || more
			case there:
				kept, more := keep(field, value, now)
				is[key], found = kept, found || more
			}
		}
	case []any:
		is, ok := written.([]any)
		if !ok || len(is) != len(was) || t.Kind() != reflect.Slice {
			return written, false
		}
		for i, value := range was {
			kept, more := keep(t.Elem(), value, is[i])
			is[i], found = kept, found || more
		}
	}
	return written, found
}

// decodeAny keeps numbers as they are written.
func decodeAny(raw json.RawMessage) (any, error) {
	d := json.NewDecoder(bytes.NewReader(raw))
	d.UseNumber()
	var v any
	err := d.Decode(&v)
	return v, err
}

func encodeAny(v any) (json.RawMessage, error) {
	var buf bytes.Buffer
	e := json.NewEncoder(&buf)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		return nil, err
	}
	return bytes.TrimSuffix(buf.Bytes(), []byte("\n")), nil
}
