package consul

import (
	"strings"
	"testing"
)

func TestConfigValidate(t *testing.T) {
	t.Parallel()
	cases := []struct {
		name string
		cfg  Config
		want string // a part of the error; empty: none
	}{
		{"the agent of this machine", Config{Addresses: []string{"http://127.0.0.1:8500"}, Token: "t"}, ""},
		{"several", Config{Addresses: []string{"https://10.0.0.1:8501", "https://[fd00::1]:8501/"}, CAFile: "ca", CertFile: "c", KeyFile: "k", Token: "t"}, ""},
		{"none", Config{}, "name at least one"},
		{"no URL", Config{Addresses: []string{"10.0.0.1:8500"}}, "10.0.0.1:8500"},
		{"no scheme of Consul's", Config{Addresses: []string{"consul://10.0.0.1"}}, "is not a URL"},
		{"no host", Config{Addresses: []string{"https://"}}, "https://host:port"},
		{"a path", Config{Addresses: []string{"https://10.0.0.1:8501/v1"}}, "https://host:port"},
		{"certificates without TLS", Config{Addresses: []string{"http://127.0.0.1:8500"}, CAFile: "ca"}, "write https://"},
		{"a token in the clear", Config{Addresses: []string{"http://10.0.0.1:8500"}, Token: "t"}, "unencrypted"},
		{"half a certificate", Config{Addresses: []string{"https://10.0.0.1:8501"}, CertFile: "c"}, "certFile and keyFile"},
		{"a fleet that is a path", Config{Addresses: []string{"http://127.0.0.1:8500"}, Fleet: "a/b"}, "fleet"},
	}
	for _, tc := range cases {
		err := tc.cfg.Validate()
		if tc.want == "" && err != nil || tc.want != "" && (err == nil || !strings.Contains(err.Error(), tc.want)) {
			t.Errorf("%s: got %v, want %q", tc.name, err, tc.want)
		}
	}
	if _, err := New(t.Context(), Config{Addresses: []string{"https://127.0.0.1:1"}, CAFile: "config_test.go"}); err == nil || !strings.Contains(err.Error(), "no certificate") {
		t.Errorf("a CA file that is none: %v", err)
	}
}
