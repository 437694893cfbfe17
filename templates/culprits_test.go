package templates_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"sluice/templates"
)

func TestCulprits(t *testing.T) {
	t.Parallel()
	refused := errors.Join(
		&templates.ObjectError{Object: "site/b", Err: errors.New("host: bad")},
		fmt.Errorf("render: %w", &templates.ObjectError{Object: "upstream/io", Err: errors.New("bad")}),
	)
	for _, tt := range []struct {
		name string
		err  error
		want string
	}{
		{"Render's own", refused, "site/b upstream/io"},
		{"nginx -t", errors.New(`[emerg] unknown directive "x" in http/site-chat.conf:12`), "site/chat"},
		{"two lines", errors.New("[emerg] a in http/upstream-a.b_c.conf:1\n[warn] b in http/site-x.conf:2"), "site/x upstream/a.b_c"},
		{"a certificate", errors.New(`[emerg] cannot load certificate "certs/web.pem": PEM_read_bio_X509_AUX() failed`), "certificate/web"},
		{"a file that all share", errors.New("[emerg] duplicate in http/sockets.conf:3"), ""},
		{"a full disk", errors.New("write http/site-chat.conf: no space left on device"), ""},
		{"a port", errors.New("[emerg] bind() to 0.0.0.0:8080 failed (98: Address already in use)"), ""},
	} {
		if got := strings.Join(templates.Culprits(tt.err), " "); got != tt.want {
			t.Errorf("%s: %q, want %q", tt.name, got, tt.want)
		}
	}
}
