package api

import (
	"encoding/json"

	"sluice/controlplane/spec"
	"sluice/registry"
)

// object is a type of the desired state.
type object interface{ Validate() []spec.FieldError }

// kind is what the API knows of a kind of objects.
type kind struct {
	decode func(stored json.RawMessage) (object, error)
	// patch checks the fields of a merge patch.
	patch func(patch json.RawMessage) error
	// keep returns written with the fields of stored that this version does not know.
	keep func(stored, written json.RawMessage) json.RawMessage
}

// kinds are those that are written through the API, in the order in which they depend on each other.
var kinds = map[registry.Kind]kind{
	registry.KindCertificate: kindOf[spec.Certificate](),
	registry.KindUpstream:    kindOf[spec.Upstream](),
	registry.KindSite:        kindOf[spec.Site](),
	registry.KindOverride:    kindOf[spec.Override](),
	registry.KindApproval:    kindOf[spec.Approval](),
}

func kindOf[T object]() kind {
	return kind{
		decode: func(stored json.RawMessage) (object, error) {
			v, err := spec.Decode[T](stored)
			return v, err
		},
		patch: spec.CheckPatch[T],
		keep:  spec.KeepUnknown[T],
	}
}
