package api

import (
	"encoding/json"
	"errors"
	"io"
	"mime"
	"net/http"

	"github.com/labstack/echo/v4"

	"sluice/controlplane/spec"
)

// binder reads bodies strictly. Echo's own binder drops what it does not know.
type binder struct{}

// Bind implements echo.Binder.
func (binder) Bind(v any, c echo.Context) error {
	r := c.Request()
	// Without this type a browser's page could send the body without asking first.
	want := "application/json"
	if r.Method == http.MethodPatch {
		want = "application/merge-patch+json"
	}
	if kind, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || kind != want {
		return newProblem(http.StatusUnsupportedMediaType, "send the body as "+want)
	}
	data, err := io.ReadAll(r.Body)
	if err != nil {
		if e, ok := errors.AsType[*http.MaxBytesError](err); ok {
			return problemf(http.StatusRequestEntityTooLarge, "the body has more than %d bytes: split the change", e.Limit)
		}
		return problemf(http.StatusBadRequest, "the body cannot be read: %s", err)
	}
	if len(data) == 0 {
		return newProblem(http.StatusBadRequest, "the body is missing: send a JSON object")
	}
	err = spec.UnmarshalStrict(data, v)
	field, ok := errors.AsType[spec.FieldError](err)
	switch {
	case err == nil:
		return nil
	case ok && json.Valid(data):
		return invalid([]spec.FieldError{field})
	default:
		return newProblem(http.StatusBadRequest, err.Error())
	}
}
