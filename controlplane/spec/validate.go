package spec

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// FieldError says what is wrong with one field, and how to mend it. It never holds a key's text.
type FieldError struct {
	Field   string `json:"field"` // a JSON pointer into the object; empty for the whole of it
	Message string `json:"message"`
}

func (e FieldError) Error() string {
	if e.Field == "" {
		return e.Message
	}
	return e.Field + ": " + e.Message
}

// nameRule is what ValidName takes, in words.
const nameRule = "use 1 to 63 lower-case letters, digits, dots, dashes and underscores, with a letter or digit at both ends"

var name = regexp.MustCompile(`^[a-z0-9]([a-z0-9._-]{0,61}[a-z0-9])?$`)

// ValidName reports whether s can name an object, a group or a service: 1 to 63 lower-case letters, digits, dots, dashes
// and underscores, with a letter or digit at both ends.
func ValidName(s string) bool { return name.MatchString(s) }

// CheckName returns what is wrong with s as the name of an object of the named kind, or nil.
func CheckName(s string) []FieldError {
	if ValidName(s) {
		return nil
	}
	return []FieldError{{Message: fmt.Sprintf("%q is not a name: %s", s, nameRule)}}
}

// checker gathers what is wrong below one place of an object.
type checker struct {
	at   string
	errs *[]FieldError
}

func newChecker() checker { return checker{errs: new([]FieldError)} }

// in returns the checker for a place below: a field's name, a map's key or an index.
func (c checker) in(path ...any) checker {
	for _, p := range path {
		switch p := p.(type) {
		case string:
			c.at += "/" + escapePointer(p)
		default:
			c.at += "/" + escapePointer(fmt.Sprint(p))
		}
	}
	return c
}

var pointerEscapes = strings.NewReplacer("~", "~0", "/", "~1") // building one costs more than all else of a validation

// escapePointer escapes one reference token of a JSON pointer (RFC 6901).
func escapePointer(s string) string { return pointerEscapes.Replace(s) }

func (c checker) add(format string, args ...any) {
	*c.errs = append(*c.errs, FieldError{Field: c.at, Message: fmt.Sprintf(format, args...)})
}

// merge takes over errors of an object that is at this place.
func (c checker) merge(errs []FieldError) {
	for _, e := range errs {
		*c.errs = append(*c.errs, FieldError{Field: c.at + e.Field, Message: e.Message})
	}
}

// checkOwner checks the owner of an object, which may be left out.
func checkOwner(c checker, owner string) {
	if owner != "" {
		c.in("owner").name(owner)
	}
}

func (c checker) name(s string) {
	if !ValidName(s) {
		c.add("%q is not a name: %s", s, nameRule)
	}
}

func (c checker) number(p *int, low, high int) {
	if p != nil && (*p < low || *p > high) {
		c.add("%d is not between %d and %d", *p, low, high)
	}
}

// duration checks the range and the resolution, which is that of the nginx directive.
func (c checker) duration(p *Duration, low, high, step time.Duration) {
	if p == nil {
		return
	}
	d := time.Duration(*p)
	switch {
	case d < low || d > high:
		c.add("%s is not between %s and %s", short(d), short(low), short(high))
	case d%step != 0:
		c.add("%s is not a multiple of %s, which is as fine as nginx takes it", short(d), short(step))
	}
}

func (c checker) size(p *Size, low, high Size) {
	if p != nil && (*p < low || *p > high) {
		c.add("%s is not between %s and %s", p, low, high)
	}
}

// text checks free text, which never gets into nginx's configuration.
func (c checker) text(s string, limit int) {
	if len(s) > limit || !printable(s) {
		c.add("must be printable text of at most %d bytes", limit)
	}
}

// short writes d without the zero units of time.Duration's String: 1h, not 1h0m0s.
func short(d time.Duration) string {
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

func printable(s string) bool {
	return utf8.ValidString(s) && strings.IndexFunc(s, func(r rune) bool { return !unicode.IsPrint(r) }) < 0
}

// list writes the values that a field takes.
func list[T ~string](values ...T) string {
	quoted := make([]string, len(values))
	for i, v := range values {
		quoted[i] = strconv.Quote(string(v))
	}
	return strings.Join(quoted, ", ")
}

// oneOf checks an enumeration; the empty value stands for the default.
func oneOf[T ~string](c checker, v T, values ...T) {
	if v == "" {
		return
	}
	for _, known := range values {
		if v == known {
			return
		}
	}
	c.add("%q is unknown: use one of %s", v, list(values...))
}
