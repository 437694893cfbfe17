package controlplane

import (
	"bytes"
	"encoding/json"
	"sync"

	"sluice/controlplane/spec"
	"sluice/registry"
)

// Readings remember what objects were read as: of thousands, a change alters a few. Only the same text has the same reading,
// so that a Compile with them comes to the same as one without. What they hand out is shared, and never changed. They may
// be used by several at once.
type Readings struct {
	mu    sync.Mutex
	known map[registry.Ref]reading
}

type reading struct {
	text   json.RawMessage
	value  any
	faults []spec.FieldError
}

// NewReadings returns Readings of nothing.
func NewReadings() *Readings { return &Readings{known: map[registry.Ref]reading{}} }

// Recall decodes and validates an object that may have been read before; r may be nil.
func Recall[T interface{ Validate() []spec.FieldError }](r *Readings, o registry.Object) (T, []spec.FieldError) {
	if r == nil {
		return read[T](o)
	}
	r.mu.Lock()
	is := r.known[o.Ref()]
	r.mu.Unlock()
	if value, ok := is.value.(T); ok && bytes.Equal(is.text, o.Value) {
		return value, is.faults
	}
	value, faults := read[T](o)
	r.mu.Lock()
	r.known[o.Ref()] = reading{o.Value, value, faults}
	r.mu.Unlock()
	return value, faults
}

// Forget begins anew when most readings are of what is not there any more.
func (r *Readings) Forget(objects int) {
	if r == nil {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.known) > 2*objects+100 {
		clear(r.known)
	}
}
