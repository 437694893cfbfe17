package spec

import (
	"bytes"
	"encoding"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"reflect"
	"slices"
	"strings"
	"unicode/utf8"
)

// Decode decodes an object as the registry holds it: fields that this version does not know are skipped, since a newer
// version may have written them.
func Decode[T any](value json.RawMessage) (T, error) {
	var v T
	if err := json.Unmarshal(value, &v); err != nil {
		return v, fmt.Errorf("decode %T: %w", v, err)
	}
	return v, nil
}

// UnmarshalStrict decodes JSON as it comes from people. Other than json.Unmarshal it refuses keys that are unknown, that
// are there twice, or that differ in case, null, text after the value, and what is not UTF-8. The error is a FieldError.
func UnmarshalStrict(data []byte, v any) error {
	if !utf8.Valid(data) {
		return FieldError{Message: "is not text in UTF-8"}
	}
	if err := checkStrict(data, reflect.TypeOf(v), false); err != nil {
		return err.FieldError
	}
	if err := json.Unmarshal(data, v); err != nil {
		return FieldError{Message: err.Error()}
	}
	return nil
}

// strictError is a FieldError with the place in the text.
type strictError struct {
	FieldError
	offset int64
}

// stricter walks JSON beside the type that it is for. It goes only as deep as the type does.
type stricter struct {
	dec   *json.Decoder
	nulls bool // null leaves the default, as a key without a value does in YAML
}

func checkStrict(data []byte, t reflect.Type, nulls bool) *strictError {
	s := stricter{json.NewDecoder(bytes.NewReader(data)), nulls}
	if err := s.value("", t); err != nil {
		return err
	}
	if _, err := s.dec.Token(); !errors.Is(err, io.EOF) {
		return s.fail("", "there is more text after the end of the object")
	}
	return nil
}

func (s stricter) fail(at, format string, args ...any) *strictError {
	return &strictError{FieldError{at, fmt.Sprintf(format, args...)}, s.dec.InputOffset()}
}

func (s stricter) syntax(at string, err error) *strictError {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return s.fail(at, "the JSON text ends too early")
	}
	e := s.fail(at, "is not JSON: %s", err)
	if syntax, ok := errors.AsType[*json.SyntaxError](err); ok {
		e.offset = syntax.Offset
	}
	return e
}

func (s stricter) value(at string, t reflect.Type) *strictError {
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	target := reflect.New(t)
	text, isText := target.Interface().(encoding.TextUnmarshaler)
	if _, ok := target.Interface().(json.Unmarshaler); ok && !isText || t.Kind() == reflect.Interface {
		if err := s.dec.Decode(target.Interface()); err != nil {
			return s.syntax(at, err)
		}
		return nil
	}
	token, err := s.dec.Token()
	if err != nil {
		return s.syntax(at, err)
	}
	if token == nil {
		if s.nulls {
			return nil
		}
		return s.fail(at, "is null: leave it out, or give a value")
	}
	if isText {
		str, ok := token.(string)
		if !ok {
			return s.fail(at, "must be a text in quotes")
		}
		if err := text.UnmarshalText([]byte(str)); err != nil {
			return s.fail(at, "%s", err)
		}
		return nil
	}
	switch t.Kind() {
	case reflect.Struct:
		return s.object(at, token, fields(t))
	case reflect.Map:
		return s.entries(at, token, t.Elem())
	case reflect.Slice:
		return s.list(at, token, t.Elem())
	default:
		return s.scalar(at, token, target)
	}
}

func (s stricter) object(at string, token json.Token, known map[string]reflect.Type) *strictError {
	return s.each(at, token, func(key string) (reflect.Type, string) {
		if t, ok := known[key]; ok {
			return t, ""
		}
		for name := range known {
			if strings.EqualFold(name, key) {
				return nil, fmt.Sprintf("is unknown: write %q", name)
			}
		}
		return nil, "is unknown: there are " + strings.Join(slices.Sorted(maps.Keys(known)), ", ")
	})
}

func (s stricter) entries(at string, token json.Token, elem reflect.Type) *strictError {
	return s.each(at, token, func(string) (reflect.Type, string) { return elem, "" })
}

// each walks the members of a JSON object; member returns the type of one, or why it may not be there.
func (s stricter) each(at string, open json.Token, member func(key string) (reflect.Type, string)) *strictError {
	if open != json.Delim('{') {
		return s.fail(at, "must be an object with named fields")
	}
	seen := map[string]bool{}
	for s.dec.More() {
		token, err := s.dec.Token()
		if err != nil {
			return s.syntax(at, err)
		}
		key, _ := token.(string) // the decoder takes nothing else for a key
		at := at + "/" + escapePointer(key)
		if seen[key] {
			return s.fail(at, "is there twice: leave one out")
		}
		seen[key] = true
		t, why := member(key)
		if t == nil {
			return s.fail(at, "%s", why)
		}
		if err := s.value(at, t); err != nil {
			return err
		}
	}
	return s.end(at)
}

func (s stricter) list(at string, open json.Token, elem reflect.Type) *strictError {
	if open != json.Delim('[') {
		return s.fail(at, "must be a list")
	}
	for i := 0; s.dec.More(); i++ {
		if err := s.value(fmt.Sprintf("%s/%d", at, i), elem); err != nil {
			return err
		}
	}
	return s.end(at)
}

func (s stricter) end(at string) *strictError {
	if _, err := s.dec.Token(); err != nil {
		return s.syntax(at, err)
	}
	return nil
}

func (s stricter) scalar(at string, token json.Token, target reflect.Value) *strictError {
	if delim, ok := token.(json.Delim); ok {
		return s.fail(at, "must be %s, not %s", kindWord(target.Type().Elem()), delimWord(delim))
	}
	again, err := json.Marshal(token)
	if err == nil {
		err = json.Unmarshal(again, target.Interface())
	}
	t := target.Type().Elem()
	if err != nil {
		return s.fail(at, "must be %s", kindWord(t))
	}
	if t.Kind() == reflect.String && t.Name() != "string" && token == "" {
		return s.fail(at, "is empty: leave it out, or give a value") // a type of its own has values of its own
	}
	return nil
}

func delimWord(d json.Delim) string {
	if d == '[' {
		return "a list"
	}
	return "an object"
}

func kindWord(t reflect.Type) string {
	switch t.Kind() {
	case reflect.Bool:
		return "true or false"
	case reflect.String:
		return "a text in quotes"
	case reflect.Float32, reflect.Float64:
		return "a number"
	default:
		return "a whole number"
	}
}

// fields returns the types of t's fields by their JSON names.
func fields(t reflect.Type) map[string]reflect.Type {
	out := map[string]reflect.Type{}
	for _, f := range reflect.VisibleFields(t) {
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		switch {
		case !f.IsExported() || name == "-" || f.Anonymous && name == "":
		case name == "":
			out[f.Name] = f.Type
		default:
			out[name] = f.Type
		}
	}
	return out
}
