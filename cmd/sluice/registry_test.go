package main

import (
	"slices"
	"strings"
	"testing"
)

func TestEndpoints(t *testing.T) {
	t.Parallel()
	for url, want := range map[string]string{
		"etcd://a:2379,b:2379":    "http://a:2379 http://b:2379",
		"etcds://a:2379":          "https://a:2379",
		"etcd:///run/etcd.sock":   "unix:///run/etcd.sock",
		"consul://127.0.0.1:8500": "http://127.0.0.1:8500",
		"consuls://a:8501,b:8501": "https://a:8501 https://b:8501",
		"consul://":               "",
		"http://a:8500":           "",
		"a:8500":                  "",
	} {
		got, err := endpoints(url)
		if (err != nil) != (want == "") || !slices.Equal(got, strings.Fields(want)) {
			t.Errorf("%s: got %q, %v; want %q", url, got, err, want)
		}
	}
}
