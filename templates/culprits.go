package templates

import (
	"regexp"
	"slices"
)

// ObjectError says why an object can't be rendered.
type ObjectError struct {
	Object string // "site/chat", or what else it is: "configuration", "control"
	Err    error
}

func (e *ObjectError) Error() string { return e.Object + ": " + e.Err.Error() }

func (e *ObjectError) Unwrap() error { return e.Err }

// culprit finds the files that nginx names when it refuses a configuration: those of an object by file and line, those of
// a certificate by their path. Other mentions of a file, as of one that a full disk has not taken, accuse nobody.
var culprit = regexp.MustCompile(`\bin http/(site|upstream)-([a-z0-9._-]+)\.conf:[0-9]+|"certs/([a-z0-9._-]+)\.(?:pem|key)"`)

// Culprits returns the objects that an error of Render, or nginx's own words about a Bundle, are about, as "site/chat";
// sorted.
func Culprits(err error) []string {
	var objects []string
	var walk func(error)
	walk = func(err error) {
		switch e := err.(type) { //nolint:errorlint // this is the walk that errors.As can't do: over all of a tree
		case *ObjectError:
			objects = append(objects, e.Object)
		case interface{ Unwrap() []error }:
			for _, part := range e.Unwrap() {
				walk(part)
			}
		case interface{ Unwrap() error }:
			walk(e.Unwrap())
		}
	}
	walk(err)
	for _, m := range culprit.FindAllStringSubmatch(err.Error(), -1) {
		if m[3] != "" {
			objects = append(objects, "certificate/"+m[3])
		} else {
			objects = append(objects, m[1]+"/"+m[2])
		}
	}
	slices.Sort(objects)
	return slices.Compact(objects)
}
