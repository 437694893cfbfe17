package templates_test

import (
	"flag"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"sluice/templates"
)

var update = flag.Bool("update", false, "write the golden files anew")

// route returns a route as the control plane's defaults make it.
func route(path, upstream string) templates.Route {
	return templates.Route{
		Path: path, Upstream: upstream,
		ConnectTimeout: 2 * time.Second, ReadTimeout: 75 * time.Second, SendTimeout: 75 * time.Second,
		Tries: 2, TriesTimeout: 4 * time.Second,
		MaxBodySize: 1 << 20, BufferSize: 4 << 10, RequestBuffering: true,
	}
}

func socketIO(path, upstream string) templates.Route {
	r := route(path, upstream)
	r.Sessions, r.Upgrade = true, true
	return r
}

func upstream(name, method string, servers ...templates.Server) templates.Upstream {
	return templates.Upstream{
		Name: name, Method: method, Zone: templates.ZoneSize(len(servers)), Servers: servers,
		Keepalive: 32, KeepaliveTimeout: 4 * time.Second,
	}
}

func server(address string) templates.Server {
	return templates.Server{Node: "0123456789", Address: address, Weight: 1, MaxFails: 3, FailTimeout: 5 * time.Second}
}

// socketIOSite is the smallest configuration that is of use.
func socketIOSite() templates.Config {
	return templates.Config{
		Capabilities: plainCaps(),
		Upstreams:    []templates.Upstream{upstream("io", "ip_hash", server("127.0.0.1:6001"), server("127.0.0.1:6002"))},
		Sockets:      []templates.Socket{{Address: "*:8080"}},
		Sites: []templates.Site{{
			Name: "chat", Hosts: []string{"chat.example.com"}, Sockets: []string{"*:8080"},
			AccessLog: "/dev/null", Routes: []templates.Route{socketIO("/socket.io/", "io")},
		}},
	}
}

func tlsSite() templates.Config {
	cfg := socketIOSite()
	cfg.Certificates = []templates.Certificate{testCertificate("wildcard")}
	cfg.Sockets = []templates.Socket{
		{Address: "*:8080"}, {Address: "*:8443", TLS: true, HTTP2: true},
		{Address: "[::]:8080"}, {Address: "[::]:8443", TLS: true, HTTP2: true},
		{Address: "127.0.0.1:8443", TLS: true, HTTP2: true}, {Address: "127.0.0.1:8444", TLS: true},
	}
	cfg.Sites[0].Hosts = []string{"chat.example.com", "*.chat.example.com"}
	cfg.Sites[0].Certificate = "wildcard"
	cfg.Sites[0].Sockets = []string{"*:8080", "*:8443", "[::]:8080", "[::]:8443", "127.0.0.1:8443"}
	cfg.Sites[0].RedirectPort = 8443
	cfg.Sites = append(cfg.Sites, templates.Site{
		Name: "modern", Hosts: []string{"modern.example.com"}, Sockets: []string{"*:8443", "127.0.0.1:8444"},
		Certificate: "wildcard", TLS13Only: true, Routes: []templates.Route{route("/", "io")},
	})
	return cfg
}

func balancing() templates.Config {
	cfg := socketIOSite()
	heavy := server("10.0.0.1:6001")
	heavy.Weight, heavy.MaxConns, heavy.MaxFails = 5, 100, 0
	free := templates.Server{Address: "192.0.2.1:9", Weight: 2, MaxFails: 1, FailTimeout: 10 * time.Second, Down: true}
	hashed := upstream("hashed", "hash", server("[fd00::1]:6001"), server("unix:/run/n1.sock"))
	hashed.HashKey, hashed.Ketama = "$arg_room", true
	modulo := upstream("modulo", "hash", heavy)
	modulo.HashKey, modulo.Keepalive, modulo.KeepaliveTimeout = "$http_x_user", 0, 0
	cfg.Upstreams = []templates.Upstream{
		hashed, upstream("io", "ip_hash", heavy, free, server("10.0.0.3:6001")),
		upstream("least", "least_conn", heavy), modulo, upstream("plain", "", heavy), upstream("two.choices", "random", heavy),
	}
	cfg.Sites[0].Routes = nil
	for _, u := range cfg.Upstreams {
		cfg.Sites[0].Routes = append(cfg.Sites[0].Routes, route("/"+u.Name+"/", u.Name))
	}
	return cfg
}

func behindProxies() templates.Config {
	cfg := socketIOSite()
	cfg.Sockets = []templates.Socket{{Address: "*:8080"}, {Address: "*:8081", ProxyProtocol: true}}
	cfg.Sites[0].RealIP = &templates.RealIP{Trusted: []string{"10.0.0.0/8", "fd00::/8", "192.0.2.7"}, Header: "X-Forwarded-For"}
	cfg.Sites[0].Routes[0].AppendForwardedFor = true
	cfg.Sites = append(cfg.Sites, templates.Site{
		Name: "tcp", CatchAll: true, Sockets: []string{"*:8081"},
		RealIP: &templates.RealIP{Trusted: []string{"10.0.0.0/8"}, Header: "proxy_protocol"},
		Routes: []templates.Route{socketIO("/", "io")},
	})
	cfg.Sockets[1].CatchAll = true
	return cfg
}

func routes() templates.Config {
	cfg := socketIOSite()
	exact, big, empty, web := route("/health", "io"), route("/upload/", "io"), socketIO("/gone/", ""), route("/", "io")
	exact.Exact, exact.Tries = true, 1
	big.MaxBodySize, big.BufferSize, big.Buffering, big.RequestBuffering = 0, 64<<10, true, false
	web.Buffering, web.BufferSize, web.Upgrade = true, 1<<10, true
	web.ReadTimeout, web.ConnectTimeout = time.Hour, 250*time.Millisecond
	cfg.Sites[0].Routes = append(cfg.Sites[0].Routes, exact, big, empty, web)
	return cfg
}

func newest(cfg templates.Config) templates.Config {
	cfg.Capabilities.Version = "1.29.7"
	cfg.Capabilities.HTTP2Directive = true
	cfg.Capabilities.KeepaliveMinTimeout = true
	cfg.Capabilities.KeepaliveDefault = true
	cfg.Upstreams[0].Keepalive, cfg.Upstreams[0].KeepaliveTimeout = 0, 0
	return cfg
}

func operators(cfg templates.Config) templates.Config {
	cfg.HTTPOnly, cfg.Dir = true, "/var/lib/sluice/current"
	return cfg
}

func withoutReject(cfg templates.Config) templates.Config {
	cfg.Capabilities.RejectHandshake = false
	return cfg
}

func goldenCases() map[string]templates.Config {
	return map[string]templates.Config{
		"nothing":        {Capabilities: plainCaps()},
		"socketio":       socketIOSite(),
		"tls":            tlsSite(),
		"tls-old":        withoutReject(tlsSite()),
		"tls-newest":     newest(tlsSite()),
		"balancing":      balancing(),
		"behind-proxies": behindProxies(),
		"routes":         routes(),
		"http-only":      operators(behindProxies()),
		"http-only-tls":  operators(tlsSite()),
	}
}

// goldenControl has what can be in a control file; the tests of nginx have one of their own.
func goldenControl() templates.Control {
	return templates.Control{
		ReloadID: "17-4e8f", Revision: strings.Repeat("ab", 32), Socket: "/var/lib/sluice/control.sock",
		Modules: []string{"/usr/lib/nginx/modules/ngx_stream_module.so"}, User: "www-data",
		PIDFile: "/var/lib/sluice/nginx.pid", ErrorLog: "/var/log/sluice/my error.log",
		WorkerProcesses: 0, WorkerConnections: 16384, WorkerRlimitNofile: 65536, WorkerShutdownTimeout: 24 * time.Hour,
		TempDir: "/var/lib/sluice/temp",
	}
}

func TestGolden(t *testing.T) {
	t.Parallel()
	set := mustNew(t)
	for name, cfg := range goldenCases() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			bundle, err := set.Render(cfg)
			if err != nil {
				t.Fatal(err)
			}
			control, err := set.RenderControl(cfg, goldenControl())
			if err != nil {
				t.Fatal(err)
			}
			dir := filepath.Join("testdata", "golden", name)
			got := map[string]string{}
			for _, f := range append(bundle.Files, control...) {
				if filepath.Ext(f.Path) == ".conf" {
					got[f.Path] = string(f.Data)
				}
			}
			if *update {
				writeGolden(t, dir, got)
			}
			if diff := cmp.Diff(readGolden(t, dir), got); diff != "" {
				t.Errorf("rendered files differ (-golden +got); with -update they are written anew:\n%s", diff)
			}
		})
	}
}

func writeGolden(t *testing.T, dir string, files map[string]string) {
	t.Helper()
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	for path, text := range files {
		writeFiles(t, dir, []templates.File{{Path: path, Data: []byte(text), Mode: 0o644}})
	}
}

func readGolden(t *testing.T, dir string) map[string]string {
	t.Helper()
	files := map[string]string{}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		text, err := os.ReadFile(path)
		rel, _ := filepath.Rel(dir, path)
		files[filepath.ToSlash(rel)] = string(text)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

// operatorsConf is a nginx.conf as an operator has it, full of what would collide if it came twice.
const operatorsConf = `pid %[1]s/pid;
error_log stderr;
events {}
http {
    client_body_temp_path %[1]s/body;
    proxy_temp_path %[1]s/proxy;
    fastcgi_temp_path %[1]s/fastcgi;
    uwsgi_temp_path %[1]s/uwsgi;
    scgi_temp_path %[1]s/scgi;
    access_log %[1]s/access.log;
    server_tokens build;
    gzip on;
    types_hash_max_size 2048;
    map_hash_bucket_size 256;
    map_hash_max_size 4096;
    variables_hash_bucket_size 256;
    variables_hash_max_size 4096;
    server_names_hash_bucket_size 256;
    server_names_hash_max_size 4096;
    ssl_protocols TLSv1.2;
    ssl_prefer_server_ciphers on;
    ssl_session_cache shared:SSL:1m;
    real_ip_header X-Real-IP;
    log_format json escape=json '{}';
    map $http_upgrade $connection_upgrade {
        default upgrade;
        '' close;
    }
    include %[1]s/current/http.conf;
    server {
        listen unix:%[1]s/s;
    }
}
`

// TestNginxTakesGolden renders the cases for the nginx that is here: an older one does not know all that is in them.
func TestNginxTakesGolden(t *testing.T) {
	t.Parallel()
	for name, cfg := range goldenCases() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			binary := nginxBinary(t)
			caps := localCaps(t)
			caps.RejectHandshake = cfg.Capabilities.RejectHandshake
			cfg.Capabilities = caps
			dir := shortDir(t)
			conf := stage(t, dir, cfg)
			if cfg.HTTPOnly {
				if err := os.WriteFile(conf, fmt.Appendf(nil, operatorsConf, dir), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			nginxTest(t, binary, conf)
		})
	}
}

// shortDir returns a directory whose name leaves room for that of a unix socket.
func shortDir(tb testing.TB) string {
	tb.Helper()
	dir, err := os.MkdirTemp("", "sl")
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}
