package templates_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"sluice/templates"
)

func TestOverride(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	write(t, dir, "upstream.conf.tmpl", "# mine\nupstream {{.Name}} {\n{{range .Servers}}    server {{.}};\n{{end}}}\n")
	write(t, dir, "control_main.conf.tmpl", "# mine too\nevents {}\n")
	write(t, dir, "notes.txt", "{{")
	set, err := templates.New(dir)
	if err != nil {
		t.Fatal(err)
	}
	files, err := render(set, socketIOSite(), goldenControl())
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]string{
		"http/upstream-io.conf": "# mine\nupstream sluice_io {\n    server 127.0.0.1:6001 max_fails=3 fail_timeout=5s;\n    server 127.0.0.1:6002 max_fails=3 fail_timeout=5s;\n}\n",
		"control/main.conf":     "# mine too\nevents {}\n",
	}
	for _, f := range files {
		if text, ok := want[f.Path]; ok && string(f.Data) != text {
			t.Errorf("%s is\n%s", f.Path, f.Data)
		}
	}
}

func write(t *testing.T, dir, name, text string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestBadOverrides(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name, file, text string
		want             []string // parts of the message; DIR is the directory
	}{
		{"does not parse", "site.conf.tmpl", "server {\n{{if}}\n}", []string{"DIR/site.conf.tmpl:2:", "missing value for if"}},
		{"not closed", "upstream.conf.tmpl", "{{range .Servers}}", []string{"DIR/upstream.conf.tmpl:1:", "unexpected EOF"}},
		{"unknown name", "upstreams.conf.tmpl", "", []string{"DIR/upstreams.conf.tmpl", ", upstream.conf.tmpl"}},
		{"unknown field", "upstream.conf.tmpl", "upstream {{.Name}} {\n{{.Serverz}}\n}", []string{"http/upstream-io.conf", "upstream.conf.tmpl:2:", "Serverz"}},
		{"unknown template", "nginx.conf.tmpl", `{{template "nope"}}`, []string{"nginx.conf", `"nope" not defined`}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			write(t, dir, tt.file, tt.text)
			set, err := templates.New(dir)
			if err == nil {
				_, err = set.Render(socketIOSite())
			}
			if err == nil {
				t.Fatal("no error")
			}
			for _, part := range tt.want {
				if part = strings.Replace(part, "DIR", dir, 1); !strings.Contains(err.Error(), part) {
					t.Errorf("the message lacks %q: %v", part, err)
				}
			}
		})
	}
	if _, err := templates.New(filepath.Join(t.TempDir(), "missing")); err == nil {
		t.Error("a directory that is not there is taken")
	}
}
