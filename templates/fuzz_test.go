package templates_test

import (
	"bytes"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	crossplane "github.com/nginxinc/nginx-go-crossplane"

	"sluice/templates"
)

// carrier puts a string into one place of a configuration. The zero value of some places leaves a directive out, which
// changes the shape by intent: optional marks them.
type carrier struct {
	name     string
	put      func(cfg *templates.Config, ctl *templates.Control, s string)
	benign   string
	optional bool
}

// carriers are all places of a Config and a Control that take a string or bytes.
func carriers() []carrier {
	return []carrier{
		{name: "upstream", benign: "io", put: func(cfg *templates.Config, _ *templates.Control, s string) {
			cfg.Upstreams[0].Name, cfg.Sites[0].Routes[0].Upstream = s, s
		}},
		{name: "unknown upstream", benign: "io", optional: true, put: func(cfg *templates.Config, _ *templates.Control, s string) {
			cfg.Sites[0].Routes[0].Upstream = s
		}},
		{name: "method", benign: "hash", optional: true, put: func(cfg *templates.Config, _ *templates.Control, s string) {
			cfg.Upstreams[0].Method = s
		}},
		{name: "hash key", benign: "$remote_addr", put: func(cfg *templates.Config, _ *templates.Control, s string) {
			cfg.Upstreams[0].HashKey = s
		}},
		{name: "node", benign: "0123456789", put: func(cfg *templates.Config, _ *templates.Control, s string) {
			cfg.Upstreams[0].Servers[0].Node = s
		}},
		{name: "server", benign: "127.0.0.1:6001", put: func(cfg *templates.Config, _ *templates.Control, s string) {
			cfg.Upstreams[0].Servers[0].Address = s
		}},
		{name: "certificate", benign: "wildcard", put: func(cfg *templates.Config, _ *templates.Control, s string) {
			cfg.Certificates[0].Name, cfg.Sites[0].Certificate = s, s
		}},
		{name: "chain", benign: "PEM", put: func(cfg *templates.Config, _ *templates.Control, s string) {
			cfg.Certificates[0].Chain, cfg.Certificates[0].Key = []byte(s), []byte(s)
		}},
		{name: "socket", benign: "*:8443", put: func(cfg *templates.Config, _ *templates.Control, s string) {
			cfg.Sockets[0].Address, cfg.Sites[0].Sockets = s, []string{s}
		}},
		{name: "site", benign: "chat", put: func(cfg *templates.Config, _ *templates.Control, s string) {
			cfg.Sites[0].Name = s
		}},
		{name: "host", benign: "chat.example.com", put: func(cfg *templates.Config, _ *templates.Control, s string) {
			cfg.Sites[0].Hosts[0] = s
		}},
		{name: "trusted", benign: "10.0.0.0/8", put: func(cfg *templates.Config, _ *templates.Control, s string) {
			cfg.Sites[0].RealIP.Trusted[0] = s
		}},
		{name: "header", benign: "X-Forwarded-For", put: func(cfg *templates.Config, _ *templates.Control, s string) {
			cfg.Sites[0].RealIP.Header = s
		}},
		{name: "access log", benign: "/var/log/a.log", optional: true, put: func(cfg *templates.Config, _ *templates.Control, s string) {
			cfg.Sites[0].AccessLog = s
		}},
		{name: "path", benign: "/socket.io/", put: func(cfg *templates.Config, _ *templates.Control, s string) {
			cfg.Sites[0].Routes[0].Path = s
		}},
		{name: "directory", benign: "/var/lib/sluice", put: func(cfg *templates.Config, _ *templates.Control, s string) {
			cfg.HTTPOnly, cfg.Dir = true, s
		}},
		{name: "version", benign: "1.22.1", put: func(cfg *templates.Config, _ *templates.Control, s string) {
			cfg.Capabilities.Version = s
		}},
		{name: "reload id", benign: "1", put: func(_ *templates.Config, ctl *templates.Control, s string) { ctl.ReloadID = s }},
		{name: "revision", benign: "ab", put: func(_ *templates.Config, ctl *templates.Control, s string) { ctl.Revision = s }},
		{name: "control socket", benign: "/run/s", put: func(_ *templates.Config, ctl *templates.Control, s string) { ctl.Socket = s }},
		{name: "module", benign: "/m.so", put: func(_ *templates.Config, ctl *templates.Control, s string) { ctl.Modules[0] = s }},
		{name: "user", benign: "www-data", optional: true, put: func(_ *templates.Config, ctl *templates.Control, s string) { ctl.User = s }},
		{name: "pid file", benign: "/run/pid", optional: true, put: func(_ *templates.Config, ctl *templates.Control, s string) { ctl.PIDFile = s }},
		{name: "error log", benign: "/var/log/e.log", optional: true, put: func(_ *templates.Config, ctl *templates.Control, s string) { ctl.ErrorLog = s }},
		{name: "temp dir", benign: "/tmp", optional: true, put: func(_ *templates.Config, ctl *templates.Control, s string) { ctl.TempDir = s }},
	}
}

// vessel is a configuration that uses all of them.
func vessel() (templates.Config, templates.Control) {
	cfg := socketIOSite()
	cfg.Upstreams[0].Method, cfg.Upstreams[0].HashKey = "hash", "$remote_addr"
	cfg.Upstreams[0].Servers = cfg.Upstreams[0].Servers[:1]
	cfg.Certificates = []templates.Certificate{{Name: "wildcard", Chain: []byte("PEM"), Key: []byte("PEM")}}
	cfg.Sockets = []templates.Socket{{Address: "*:8443", TLS: true}}
	cfg.Sites[0].Sockets, cfg.Sites[0].Certificate = []string{"*:8443"}, "wildcard"
	cfg.Sites[0].AccessLog = "/var/log/a.log"
	cfg.Sites[0].RealIP = &templates.RealIP{Trusted: []string{"10.0.0.0/8"}, Header: "X-Forwarded-For"}
	cfg.Sites[0].Routes = append(cfg.Sites[0].Routes, route("/", ""))
	ctl := goldenControl()
	return cfg, ctl
}

// FuzzRender renders a configuration with any string at any place: it is refused, or the text has the shape of directives
// that it has with a benign string there.
func FuzzRender(f *testing.F) {
	set := mustNew(f)
	list := carriers()
	for _, s := range []string{
		"", " ", "\n", ";", "}", "{", "#", "\"", "'", "\\", "$", "$host", "a;b", "a\nb", "a\x00b", "\xff", "\u2028", "é", "日本",
		"x; return 200 pwned; #", "x;\n}\nserver{listen 1;}#", `"; return 200; "`, `\"; return 200; \"`, `a\`, "a\\\"", "${host}",
		"unix:/run/n1.sock", "unix:/a b", "[::1]:80", "[fe80::1%eth0]:80", "127.0.0.1:80 backup", "localhost:80", "~^/(?<x>.*)$", "= /", "@named",
		"*.example.com", "*", ".example.com", "www.*", "../../etc/passwd", "/a/../../b", "off", "proxy_protocol", "$arg_x consistent", "lua_need_request_body",
		"/var/log/with space/and\"quote.log", "syslog:server=evil", "/x buffer=1g", "content_by_lua_block { os.execute() }", "include /etc/passwd", "delete", "default", "ranges",
	} {
		for i := range list {
			f.Add(uint8(i), s)
		}
	}
	want := map[string][]string{}
	for _, c := range list {
		cfg, ctl := vessel()
		c.put(&cfg, &ctl, c.benign)
		files, err := render(set, cfg, ctl)
		if err != nil {
			f.Fatalf("%s: the benign value is refused: %v", c.name, err)
		}
		if want[c.name], err = shapes(files); err != nil {
			f.Fatalf("%s: %v", c.name, err)
		}
	}
	f.Fuzz(func(t *testing.T, place uint8, s string) {
		c := list[int(place)%len(list)]
		if s == "" && c.optional {
			return
		}
		cfg, ctl := vessel()
		c.put(&cfg, &ctl, s)
		files, err := render(set, cfg, ctl)
		if err != nil {
			return // refused
		}
		if again, err := render(set, cfg, ctl); err != nil || !slices.EqualFunc(files, again, sameFile) {
			t.Fatalf("%s %q: rendered twice, it differs: %v", c.name, s, err)
		}
		got, err := shapes(files)
		if err != nil {
			t.Fatalf("%s %q: %v", c.name, s, err)
		}
		if !slices.Equal(got, want[c.name]) {
			t.Fatalf("%s %q: the shape is\n%s\nbut with %q\n%s", c.name, s, strings.Join(got, "\n"), c.benign, strings.Join(want[c.name], "\n"))
		}
	})
}

func sameFile(a, b templates.File) bool {
	return a.Path == b.Path && a.Mode == b.Mode && bytes.Equal(a.Data, b.Data)
}

func render(set *templates.Set, cfg templates.Config, ctl templates.Control) ([]templates.File, error) {
	bundle, err := set.Render(cfg)
	if err != nil {
		return nil, err
	}
	control, err := set.RenderControl(cfg, ctl)
	return append(bundle.Files, control...), err
}

// shapes returns the shape of each configuration file, sorted: directives with the number of their arguments, and blocks.
func shapes(files []templates.File) ([]string, error) {
	var list []string
	for _, f := range files {
		if !filepath.IsLocal(f.Path) {
			return nil, fmt.Errorf("the path %q leads out", f.Path)
		}
		if filepath.Ext(f.Path) != ".conf" {
			continue
		}
		payload, err := crossplane.Parse(f.Path, &crossplane.ParseOptions{
			SingleFile: true, StopParsingOnError: true, ParseComments: true,
			SkipDirectiveContextCheck: true,
			Open:                      func(string) (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(f.Data)), nil },
		})
		if err != nil {
			return nil, fmt.Errorf("%s does not parse: %w\n%s", f.Path, err, f.Data)
		}
		var b strings.Builder
		for _, c := range payload.Config {
			shape(&b, c.Parsed)
		}
		list = append(list, b.String())
	}
	slices.Sort(list)
	return list, nil
}

func shape(b *strings.Builder, directives crossplane.Directives) {
	for _, d := range directives {
		name := d.Directive
		if d.IsMapBlockParameter {
			name = "entry" // its name is data
		}
		fmt.Fprintf(b, "%s/%d ", name, len(d.Args))
		if d.IsComment() {
			fmt.Fprintf(b, "%q ", *d.Comment)
		}
		if d.IsBlock() {
			b.WriteString("{ ")
			shape(b, d.Block)
			b.WriteString("} ")
		}
	}
}
