package templates_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"sluice/templates"
)

func TestRenderRefuses(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name   string
		change func(cfg *templates.Config)
		want   string
	}{
		{"upstream's name", func(c *templates.Config) { c.Upstreams[0].Name = "../x" }, `upstream/../x: name: the name "../x"`},
		{"upstream twice", func(c *templates.Config) { c.Upstreams = append(c.Upstreams, c.Upstreams[0]) }, "upstream/io: is there twice"},
		{"no server", func(c *templates.Config) { c.Upstreams[0].Servers = nil }, "upstream/io: has no server"},
		{"method", func(c *templates.Config) { c.Upstreams[0].Method = "lottery" }, `upstream/io: "lottery" is no balancing method`},
		{"hash without a key", func(c *templates.Config) { c.Upstreams[0].Method = "hash" }, `upstream/io: "" is no hash key`},
		{"hash key of nginx's own", func(c *templates.Config) { c.Upstreams[0].Method, c.Upstreams[0].HashKey = "hash", "$pid" }, `"$pid" is no hash key`},
		{"key without hash", func(c *templates.Config) { c.Upstreams[0].HashKey = "$uri" }, "has a hash key"},
		{"keepalive", func(c *templates.Config) { c.Upstreams[0].Keepalive = -1 }, "upstream/io: keepalive: -1 is negative"},
		{"host name of a node", func(c *templates.Config) { c.Upstreams[0].Servers[1].Address = "localhost:80" }, `upstream/io: server 1 (node "0123456789"): "localhost:80" is not an IP address`},
		{"node without a port", func(c *templates.Config) { c.Upstreams[0].Servers[1].Address = "10.0.0.1:0" }, "has no port"},
		{"node with a zone", func(c *templates.Config) { c.Upstreams[0].Servers[1].Address = "[fe80::1%eth0]:80" }, "has a zone"},
		{"unix socket", func(c *templates.Config) { c.Upstreams[0].Servers[1].Address = "unix:/a;b" }, `"unix:/a;b" is not a unix socket`},
		{"long unix socket", func(c *templates.Config) { c.Upstreams[0].Servers[1].Address = "unix:/" + strings.Repeat("x", 107) }, "is not a unix socket"},
		{"weight", func(c *templates.Config) { c.Upstreams[0].Servers[1].Weight = 0 }, "weight 0"},
		{"fail timeout", func(c *templates.Config) { c.Upstreams[0].Servers[1].FailTimeout = time.Millisecond }, "fail timeout 1ms"},
		{"certificate's name", func(c *templates.Config) { c.Certificates[0].Name = "a b" }, "certificate/a b: name"},
		{"empty key", func(c *templates.Config) { c.Certificates[0].Key = nil }, "certificate/wildcard: has no chain or no key"},
		{"socket", func(c *templates.Config) { c.Sockets[0].Address = "localhost:80" }, `socket/localhost:80: "localhost:80" is not an IP address`},
		{"same socket, spelled otherwise", func(c *templates.Config) {
			c.Sockets = append(c.Sockets, templates.Socket{Address: "0.0.0.0:8080"})
		}, "socket/0.0.0.0:8080: is the same as socket *:8080"},
		{"HTTP/2 without TLS", func(c *templates.Config) { c.Sockets[0].HTTP2 = true }, "socket/*:8080: has HTTP/2 without TLS"},
		{"no TLS built in", func(c *templates.Config) { c.Capabilities.SSL = false }, "socket/*:8443: has TLS, and this nginx"},
		{"no HTTP/2 built in", func(c *templates.Config) { c.Capabilities.HTTP2 = false }, "socket/*:8443: has HTTP/2, and this nginx"},
		{"no realip built in", func(c *templates.Config) {
			c.Capabilities.Realip = false
			c.Sites[0].RealIP = &templates.RealIP{Trusted: []string{"10.0.0.0/8"}, Header: "X-Real-IP"}
		}, "site/chat: trusts proxies, and this nginx"},
		{"catch-all that is none", func(c *templates.Config) { c.Sockets[0].CatchAll = true }, "socket/*:8080: CatchAll is true"},
		{"two for all names", func(c *templates.Config) {
			c.Sites[0].CatchAll, c.Sites[1].CatchAll = true, true
		}, "site/modern: site/chat takes all names on *:8443 already"},
		{"site twice", func(c *templates.Config) { c.Sites[1].Name = "chat" }, "site/chat: is there twice"},
		{"no host", func(c *templates.Config) { c.Sites[0].Hosts = nil }, "site/chat: has no host"},
		{"host with a pattern", func(c *templates.Config) { c.Sites[0].Hosts[0] = "~.*" }, `site/chat: host: "~.*" is not a host name`},
		{"host twice", func(c *templates.Config) { c.Sites[1].Hosts = []string{"CHAT.example.com"} }, `site/modern: host "chat.example.com" on *:8443 belongs to site/chat already`},
		{"no socket", func(c *templates.Config) { c.Sites[1].Sockets = nil }, "site/modern: has no socket"},
		{"unknown socket", func(c *templates.Config) { c.Sites[0].Sockets[0] = "*:1" }, `site/chat: socket "*:1" is not in the configuration`},
		{"unknown certificate", func(c *templates.Config) { c.Sites[0].Certificate = "other" }, `site/chat: certificate "other" is not`},
		{"TLS without a certificate", func(c *templates.Config) { c.Sites[0].Certificate = "" }, "site/chat: has no certificate for the TLS socket *:8443"},
		{"redirect", func(c *templates.Config) { c.Sites[0].RedirectPort = 70000 }, "site/chat: redirect port 70000"},
		{"access log", func(c *templates.Config) { c.Sites[0].AccessLog = "logs/$host" }, "site/chat: access log"},
		{"network", func(c *templates.Config) {
			c.Sites[0].RealIP = &templates.RealIP{Trusted: []string{"10.0.0.0/33"}, Header: "X-Real-IP"}
		}, `site/chat: trusted proxy: "10.0.0.0/33" is neither`},
		{"header", func(c *templates.Config) {
			c.Sites[0].RealIP = &templates.RealIP{Trusted: []string{"10.0.0.0/8"}, Header: "X Y"}
		}, `site/chat: "X Y" is not the name of a header`},
		{"nobody trusted", func(c *templates.Config) { c.Sites[0].RealIP = &templates.RealIP{Header: "X-Real-IP"} }, "trusts nobody"},
		{"appends for nobody", func(c *templates.Config) { c.Sites[0].Routes[0].AppendForwardedFor = true }, "site/chat, route 0: appends to X-Forwarded-For"},
		{"unknown upstream", func(c *templates.Config) { c.Sites[0].Routes[0].Upstream = "other" }, `site/chat, route 0: upstream "other"`},
		{"path", func(c *templates.Config) { c.Sites[0].Routes[0].Path = "/a b" }, `site/chat, route 0: "/a b" is not a path`},
		{"long path", func(c *templates.Config) { c.Sites[0].Routes[0].Path = "/" + strings.Repeat("a", 1024) }, "the path has 1025 bytes"},
		{"path twice", func(c *templates.Config) { c.Sites[0].Routes = append(c.Sites[0].Routes, c.Sites[0].Routes[0]) }, `site/chat, route 1: path "/socket.io/" is there twice`},
		{"timeout", func(c *templates.Config) { c.Sites[0].Routes[0].ReadTimeout = time.Microsecond }, "site/chat, route 0: read timeout: 1µs is finer"},
		{"body", func(c *templates.Config) { c.Sites[0].Routes[0].MaxBodySize = -1 }, "site/chat, route 0: body size"},
		{"buffer", func(c *templates.Config) { c.Sites[0].Routes[0].BufferSize = 100 }, "site/chat, route 0: buffer size 100"},
		{"directory", func(c *templates.Config) { c.HTTPOnly, c.Dir = true, "/a b" }, "configuration: directory"},
		{"relative directory", func(c *templates.Config) { c.HTTPOnly = true }, `configuration: directory: "" is not an absolute path`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			cfg := tlsSite()
			tt.change(&cfg)
			bundle, err := mustNew(t).Render(cfg)
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error %v\nlacks %q", err, tt.want)
			}
			if len(bundle.Files) > 0 {
				t.Error("files came with the error")
			}
		})
	}
}

func TestRenderControlRefuses(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name   string
		change func(ctl *templates.Control)
		want   string
	}{
		{"relative socket", func(c *templates.Control) { c.Socket = "s" }, `control: socket: "s" is not an absolute path`},
		{"long socket", func(c *templates.Control) { c.Socket = "/" + strings.Repeat("s", 107) }, "has 108 bytes; the kernel takes at most 107"},
		{"newline", func(c *templates.Control) { c.ReloadID = "a\nb" }, "control: reload id"},
		{"module", func(c *templates.Control) { c.Modules = []string{"m.so"} }, "control: module"},
		{"negative", func(c *templates.Control) { c.WorkerConnections = -1 }, "control: worker connections: -1"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			ctl := goldenControl()
			tt.change(&ctl)
			if files, err := mustNew(t).RenderControl(socketIOSite(), ctl); err == nil || !strings.Contains(err.Error(), tt.want) || files != nil {
				t.Errorf("error %v\nlacks %q", err, tt.want)
			}
		})
	}
}

func TestManyRefusalsAreCounted(t *testing.T) {
	t.Parallel()
	cfg := socketIOSite()
	for range 100 {
		cfg.Upstreams[0].Servers = append(cfg.Upstreams[0].Servers, templates.Server{Address: "localhost:1", Weight: 1})
	}
	_, err := mustNew(t).Render(cfg)
	if err == nil || !strings.HasSuffix(err.Error(), "\nand 80 more") {
		t.Errorf("error %v", err)
	}
}

func TestBundle(t *testing.T) {
	t.Parallel()
	set := mustNew(t)
	cfg := tlsSite()
	bundle, err := set.Render(cfg)
	if err != nil {
		t.Fatal(err)
	}
	var paths []string
	for _, f := range bundle.Files {
		paths = append(paths, fmt.Sprintf("%s %o", f.Path, f.Mode))
	}
	want := []string{
		"certs/wildcard.key 600", "certs/wildcard.pem 644", "http.conf 644", "http/site-chat.conf 644", "http/site-modern.conf 644",
		"http/sockets.conf 644", "http/upstream-io.conf 644", "nginx.conf 644",
	}
	if !slices.Equal(paths, want) {
		t.Errorf("files %q, want %q", paths, want)
	}

	// The order of the lists of names is not the order of the files.
	slices.Reverse(cfg.Sites)
	slices.Reverse(cfg.Sockets)
	if again, err := set.Render(cfg); err != nil || again.Revision != bundle.Revision {
		t.Errorf("in another order: revision %s, %v; want %s", again.Revision, err, bundle.Revision)
	}
	cfg.Certificates[0].Chain = append(slices.Clone(cfg.Certificates[0].Chain), '\n')
	if renewed, err := set.Render(cfg); err != nil || renewed.Revision == bundle.Revision {
		t.Errorf("a renewed certificate has the same revision %s, %v", renewed.Revision, err)
	}
}

func TestRevisionTellsFilesApart(t *testing.T) {
	t.Parallel()
	seen := map[string]int{}
	for i, files := range [][]templates.File{
		nil,
		{{Path: "ab", Data: []byte("c")}},
		{{Path: "a", Data: []byte("bc")}},
		{{Path: "a"}, {Path: "b", Data: []byte("c")}},
		{{Path: "ab", Data: []byte("cd")}},
	} {
		revision := templates.Revision(files)
		if other, ok := seen[revision]; ok {
			t.Errorf("cases %d and %d have the same revision", other, i)
		}
		seen[revision] = i
	}
}

// BenchmarkRender renders 10,000 nodes in 100 upstreams.
func BenchmarkRender(b *testing.B) {
	set := mustNew(b)
	cfg := socketIOSite()
	cfg.Upstreams = nil
	for u := range 100 {
		servers := make([]templates.Server, 100)
		for i := range servers {
			servers[i] = server(fmt.Sprintf("10.1.%d.%d:6001", u, i))
		}
		name := fmt.Sprintf("io-%03d", u)
		cfg.Upstreams = append(cfg.Upstreams, upstream(name, "ip_hash", servers...))
		site := cfg.Sites[0]
		site.Name, site.Hosts = name, []string{name + ".example.com"}
		site.Routes = []templates.Route{socketIO("/socket.io/", name)}
		cfg.Sites = append(cfg.Sites, site)
	}
	cfg.Sites = cfg.Sites[1:]
	b.ReportAllocs()
	for b.Loop() {
		if _, err := set.Render(cfg); err != nil {
			b.Fatal(err)
		}
	}
}
