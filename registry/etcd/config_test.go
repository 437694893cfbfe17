package etcd

import (
	"context"
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
		{"a socket", Config{Endpoints: []string{"unix:///run/etcd.sock"}}, ""},
		{"several", Config{Endpoints: []string{"https://10.0.0.1:2379", "https://[fd00::1]:2379"}, CAFile: "ca", CertFile: "c", KeyFile: "k"}, ""},
		{"a password on loopback", Config{Endpoints: []string{"http://127.0.0.1:2379"}, Username: "u", Password: "p"}, ""},
		{"none", Config{}, "name at least one"},
		{"no URL", Config{Endpoints: []string{"10.0.0.1:2379"}}, "10.0.0.1:2379"},
		{"no scheme of etcd's", Config{Endpoints: []string{"etcd://10.0.0.1"}}, "is not a URL"},
		{"no host", Config{Endpoints: []string{"https://"}}, "https://host:port"},
		{"no path", Config{Endpoints: []string{"unix://"}}, "unix:///path"},
		{"a path", Config{Endpoints: []string{"https://10.0.0.1:2379/v3"}}, "https://host:port"},
		{"certificates without TLS", Config{Endpoints: []string{"http://10.0.0.1:2379"}, CAFile: "ca"}, "write https://"},
		{"a password in the clear", Config{Endpoints: []string{"http://10.0.0.1:2379"}, Username: "u", Password: "p"}, "unencrypted"},
		{"two schemes", Config{Endpoints: []string{"https://10.0.0.1:2379", "http://10.0.0.2:2379"}}, "one scheme"},
		{"half a certificate", Config{Endpoints: []string{"https://10.0.0.1:2379"}, CertFile: "c"}, "certFile and keyFile"},
		{"half a login", Config{Endpoints: []string{"https://10.0.0.1:2379"}, Username: "u"}, "username and password"},
		{"a fleet that is a path", Config{Endpoints: []string{"unix:///s"}, Fleet: "a/b"}, "fleet"},
	}
	for _, tc := range cases {
		err := tc.cfg.Validate()
		switch {
		case tc.want == "" && err != nil:
			t.Errorf("%s: %v", tc.name, err)
		case tc.want != "" && (err == nil || !strings.Contains(err.Error(), tc.want)):
			t.Errorf("%s: got %v, want an error with %q", tc.name, err, tc.want)
		}
	}
	if _, err := New(context.Background(), Config{Endpoints: []string{"https://127.0.0.1:1"}, CAFile: "/nonexistent"}); err == nil {
		t.Error("a CA file that does not exist was taken")
	}
}
