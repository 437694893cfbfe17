package api

// QueryParameters is for the test that holds it against openapi.yaml.
func QueryParameters() map[string][]string { return queryParameters }
