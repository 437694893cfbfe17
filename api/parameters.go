package api

import (
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/labstack/echo/v4"

	"sluice/controlplane/spec"
)

// parameter is what the document says of one parameter of an operation.
type parameter struct {
	*openapi3.Parameter
	takes string // what its value is, and what it is for, to people
}

func newParameter(p *openapi3.Parameter) (parameter, error) {
	schema := p.Schema.Value
	var takes string
	switch {
	case schema.Type.Is(openapi3.TypeBoolean):
		takes = "true or false"
	case schema.Type.Is(openapi3.TypeInteger):
		takes = "a whole number" + between(schema.Min, schema.Max)
	case schema.Type.Is(openapi3.TypeString) && len(schema.Enum) > 0:
		var values []string
		for _, v := range schema.Enum {
			values = append(values, fmt.Sprint(v))
		}
		takes = "one of " + strings.Join(values, ", ")
	case schema.Format == "date-time":
		takes = "a time"
	case schema.Type.Is(openapi3.TypeString):
		takes = "a text"
		if schema.MaxLength != nil {
			takes += between(&schema.MinLength, schema.MaxLength) + " characters"
		} else if schema.MinLength > 0 {
			takes += " that is not empty"
		}
	default:
		return parameter{}, fmt.Errorf("openapi.yaml: parameter %s: nothing reads one of type %v", p.Name, schema.Type.Slice())
	}
	if p.Example != nil {
		takes += fmt.Sprintf(", as %v", p.Example)
	}
	return parameter{p, takes + ". " + strings.Join(strings.Fields(plainText(p.Description)), " ")}, nil
}

func between[T uint64 | float64](low, high *T) string {
	switch {
	case low == nil && high == nil:
		return ""
	case high == nil:
		return fmt.Sprintf(" of at least %v", *low)
	case low == nil || *low == 0:
		return fmt.Sprintf(" of at most %v", *high)
	default:
		return fmt.Sprintf(" of %v to %v", *low, *high)
	}
}

// wrong says what is wrong with the values that a request gives the parameter, and how to mend it; "" when nothing is.
func (p parameter) wrong(values []string) string {
	switch {
	case len(values) > 1:
		return fmt.Sprintf("is there %d times: give it once", len(values))
	case len(values) == 1 && p.fits(values[0]):
		return ""
	case len(values) == 1:
		return fmt.Sprintf("%.100q is not %s", withoutTokens(values[0]), p.takes)
	case p.Required:
		return "is missing: give " + p.takes
	default:
		return ""
	}
}

func (p parameter) fits(text string) bool {
	var value any = text
	var err error
	switch schema := p.Schema.Value; {
	case schema.Type.Is(openapi3.TypeBoolean):
		value = text == "true"
		if text != "true" && text != "false" {
			return false
		}
	case schema.Type.Is(openapi3.TypeInteger):
		value, err = strconv.ParseInt(text, 10, 64)
	}
	return err == nil && utf8.ValidString(text) && p.Schema.Value.VisitJSON(value) == nil
}

// checkParameters holds what a request says outside of its body against the document. Query parameters that the operation
// does not know are refused: ?dryrun=true must not apply.
func (s *Server) checkParameters(next echo.HandlerFunc) echo.HandlerFunc {
	return func(c echo.Context) error {
		r := c.Request()
		op, known := s.operations[r.Method+" "+c.Path()]
		if !known {
			return next(c)
		}
		query, err := url.ParseQuery(r.URL.RawQuery)
		if err != nil { // of which everybody else drops a part without a word
			return problemf(http.StatusBadRequest, "the query cannot be read: %s", err)
		}
		if err := op.checkNames(query); err != nil {
			return err
		}
		var errs []spec.FieldError
		for _, p := range op.parameters {
			var values []string
			switch p.In {
			case openapi3.ParameterInPath:
				value, ok := pathValue(c, p.Name)
				if !ok {
					return echo.ErrNotFound
				}
				values = []string{value}
			case openapi3.ParameterInQuery:
				values = query[p.Name]
			case openapi3.ParameterInHeader:
				values = r.Header.Values(p.Name)
			}
			if why := p.wrong(values); why != "" {
				errs = append(errs, spec.FieldError{Field: p.Name, Message: why})
			}
		}
		if len(errs) > 0 {
			p := problemf(http.StatusBadRequest, "%d parameters are wrong", len(errs))
			if len(errs) == 1 {
				p.Detail = "1 parameter is wrong"
			}
			p.Errors = errs
			return p
		}
		return next(c)
	}
}

// pathValue returns one segment of the path. Echo takes all that is left for the last parameter, slashes too; then ok is
// false: those that belong to a value are sent as %2F.
func pathValue(c echo.Context, name string) (value string, ok bool) {
	value = c.Param(name)
	if strings.Contains(value, "/") {
		return "", false
	}
	if c.Request().URL.RawPath != "" { // else it is unescaped already
		value, _ = url.PathUnescape(value) // never fails: what net/http could not unescape it has refused
	}
	return value, true
}

func (o operation) checkNames(query url.Values) error {
	var known []string
	for _, p := range o.parameters {
		if p.In == openapi3.ParameterInQuery {
			known = append(known, p.Name)
		}
	}
	for name := range query {
		switch {
		case slices.Contains(known, name):
		case len(known) == 0:
			return problemf(http.StatusBadRequest, "unknown query parameter %q: there are none here", name)
		default:
			return problemf(http.StatusBadRequest, "unknown query parameter %q: there is %s", name, strings.Join(known, ", "))
		}
	}
	return nil
}
