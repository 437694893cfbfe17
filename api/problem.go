package api

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"

	"sluice/controlplane/spec"
	"sluice/registry"
)

// retryAfter is how many seconds a caller is told to wait while the registry is away, or when he is too fast.
const retryAfter = 2

// Error lets a Problem travel as an error, through the server's handlers and out of the client.
func (p *Problem) Error() string {
	text := p.Detail
	if text == "" {
		text = p.Title
	}
	for _, e := range p.Errors {
		text += "\n  " + e.Error()
	}
	return text
}

// newProblem makes a Problem whose type is named after the status.
func newProblem(status int, detail string) *Problem {
	title := http.StatusText(status)
	if status == http.StatusUnprocessableEntity {
		title = "Invalid" // HTTP's own name for it tells people nothing
	}
	name := strings.ReplaceAll(strings.ToLower(title), " ", "-")
	return &Problem{Type: "urn:sluice:problem:" + name, Title: title, Status: status, Detail: detail}
}

func problemf(status int, format string, args ...any) *Problem {
	return newProblem(status, fmt.Sprintf(format, args...))
}

// invalid returns the problem of a body with fields that are wrong, or nil when there are none.
func invalid(fields []spec.FieldError) error {
	if len(fields) == 0 {
		return nil
	}
	p := newProblem(http.StatusUnprocessableEntity, fmt.Sprintf("%d fields are wrong", len(fields)))
	if len(fields) == 1 {
		p.Detail = "1 field is wrong"
	}
	p.Errors = fields
	return p
}

// registryError marks what went wrong in the registry, as opposed to here.
type registryError struct {
	err  error
	away bool // it did not answer
}

func (e *registryError) Error() string { return "registry: " + e.err.Error() }
func (e *registryError) Unwrap() error { return e.err }

// asProblem turns any error into what the caller may see. internal reports that it is our own fault, to be logged.
func asProblem(err error) (p *Problem, internal bool) {
	if p, ok := errors.AsType[*Problem](err); ok {
		return p, false
	}
	if e, ok := errors.AsType[*registry.TooLargeError](err); ok {
		return newProblem(http.StatusRequestEntityTooLarge, e.Error()), false
	}
	if e, ok := errors.AsType[*registry.ConflictError](err); ok {
		p := newProblem(http.StatusPreconditionFailed, e.Error())
		p.Object = e.Ref.String()
		return p, false
	}
	if errors.Is(err, registry.ErrNotFound) {
		return newProblem(http.StatusNotFound, err.Error()), false
	}
	if e, ok := errors.AsType[*registryError](err); ok {
		if e.away {
			return newProblem(http.StatusServiceUnavailable, "the registry did not answer, so it is not known whether anything changed; try again: "+e.err.Error()), false
		}
		return newProblem(http.StatusInternalServerError, "the registry refused: "+e.err.Error()), true
	}
	return newProblem(http.StatusInternalServerError, "something went wrong inside sluice; its log says what"), true
}

func (p *Problem) write(w http.ResponseWriter) {
	h := w.Header()
	h.Set("Content-Type", "application/problem+json")
	switch p.Status {
	case http.StatusServiceUnavailable, http.StatusTooManyRequests:
		h.Set("Retry-After", strconv.Itoa(retryAfter))
	case http.StatusUnauthorized:
		h.Set("WWW-Authenticate", `Bearer realm="sluice"`)
	}
	w.WriteHeader(p.Status)
	_ = json.NewEncoder(w).Encode(p) // the caller has gone: nobody is left to be told
}
