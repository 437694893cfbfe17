// Package sluice holds the contract of the REST API. It is at the root because go:embed cannot look upwards.
package sluice

import _ "embed"

// OpenAPI is the text of openapi.yaml.
//
//go:embed openapi.yaml
var OpenAPI []byte
