package templates_test

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"sluice/templates"
)

// patience is how long a test waits for what should happen at once.
const patience = 20 * time.Second

// nginxBinary returns the nginx that the tests run; without one they fail, since nothing else proves a configuration.
func nginxBinary(tb testing.TB) string {
	tb.Helper()
	if path, err := exec.LookPath("nginx"); err == nil {
		return path
	}
	const path = "/usr/sbin/nginx"
	if _, err := os.Stat(path); err != nil {
		tb.Fatalf("no nginx to test with: install it (Debian: apt-get install nginx-core): %v", err)
	}
	return path
}

// plainCaps is what every nginx of the last years can do, so that any of them passes.
func plainCaps() templates.Capabilities {
	return templates.Capabilities{Version: "1.22.1", RejectHandshake: true, Realip: true, SSL: true, HTTP2: true, IPv6: true}
}

// localCaps is what the nginx that the tests run can do.
func localCaps(tb testing.TB) templates.Capabilities {
	tb.Helper()
	caps := plainCaps()
	out, err := exec.Command(nginxBinary(tb), "-v").CombinedOutput()
	if err != nil {
		tb.Fatalf("nginx -v: %v\n%s", err, out)
	}
	var v [3]int
	_, caps.Version, _ = strings.Cut(strings.TrimSpace(string(out)), "/")
	if _, err := fmt.Sscanf(caps.Version, "%d.%d.%d", &v[0], &v[1], &v[2]); err != nil {
		tb.Fatalf("nginx -v: %q: %v", out, err)
	}
	since := func(first ...int) bool { return slices.Compare(v[:], first) >= 0 }
	caps.HTTP2Directive = since(1, 25, 1)
	caps.KeepaliveMinTimeout = since(1, 27, 4)
	caps.KeepaliveDefault = since(1, 29, 7)
	return caps
}

func mustNew(tb testing.TB) *templates.Set {
	tb.Helper()
	set, err := templates.New("")
	if err != nil {
		tb.Fatal(err)
	}
	return set
}

// stage renders cfg into dir as a gateway would, control files included, and returns the path of nginx.conf.
func stage(tb testing.TB, dir string, cfg templates.Config) string {
	tb.Helper()
	set := mustNew(tb)
	conf := filepath.Join(dir, "nginx.conf")
	if cfg.HTTPOnly {
		cfg.Dir = filepath.Join(dir, "current")
		conf = filepath.Join(dir, "operator.conf")
		dir = cfg.Dir
	}
	bundle, err := set.Render(cfg)
	if err != nil {
		tb.Fatalf("Render: %v", err)
	}
	control, err := set.RenderControl(cfg, controlOf(tb, bundle.Revision))
	if err != nil {
		tb.Fatalf("RenderControl: %v", err)
	}
	writeFiles(tb, dir, append(bundle.Files, control...))
	return conf
}

// controlOf returns the control part for a nginx of this test's own.
func controlOf(tb testing.TB, revision string) templates.Control {
	tb.Helper()
	dir, err := os.MkdirTemp("", "ctl") // short: the path of a unix socket is limited
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = os.RemoveAll(dir) })
	return templates.Control{
		ReloadID: "reload-1", Revision: revision, Socket: filepath.Join(dir, "s"),
		User: userOfWorkers(), PIDFile: filepath.Join(dir, "pid"), ErrorLog: filepath.Join(dir, "error.log"),
		WorkerProcesses: 1, WorkerConnections: 512, TempDir: dir,
	}
}

// userOfWorkers keeps them able to write into the test's own directories.
func userOfWorkers() string {
	if os.Getuid() == 0 {
		return "root"
	}
	return ""
}

func writeFiles(tb testing.TB, dir string, files []templates.File) {
	tb.Helper()
	for _, f := range files {
		path := filepath.Join(dir, filepath.FromSlash(f.Path))
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			tb.Fatal(err)
		}
		if err := os.WriteFile(path, f.Data, f.Mode); err != nil {
			tb.Fatal(err)
		}
	}
}

// nginxTest fails unless nginx takes the configuration without a word.
func nginxTest(tb testing.TB, binary, conf string) {
	tb.Helper()
	out, err := exec.Command(binary, "-t", "-q", "-p", filepath.Dir(conf), "-c", conf).CombinedOutput()
	if err != nil || len(out) > 0 {
		tb.Errorf("nginx -t: %v\n%s", err, out)
	}
}

// gateway is a running nginx.
type gateway struct {
	revision string
	errorLog string
	control  *http.Client
}

// start runs nginx with cfg until the test ends. Like a real gateway it reads the configuration through a link.
func start(tb testing.TB, cfg templates.Config) *gateway {
	tb.Helper()
	set := mustNew(tb)
	bundle, err := set.Render(cfg)
	if err != nil {
		tb.Fatalf("Render: %v", err)
	}
	ctl := controlOf(tb, bundle.Revision)
	control, err := set.RenderControl(cfg, ctl)
	if err != nil {
		tb.Fatalf("RenderControl: %v", err)
	}
	dir := tb.TempDir()
	writeFiles(tb, filepath.Join(dir, "1"), append(bundle.Files, control...))
	if err := os.Symlink("1", filepath.Join(dir, "current")); err != nil {
		tb.Fatal(err)
	}
	// nginx serves this page by default; nobody shall see it.
	writeFiles(tb, dir, []templates.File{{Path: "html/index.html", Data: []byte("nginx's own"), Mode: 0o644}})
	return run(tb, dir, filepath.Join(dir, "current", "nginx.conf"), ctl)
}

// run starts nginx and waits until its control server answers.
func run(tb testing.TB, prefix, conf string, ctl templates.Control) *gateway {
	tb.Helper()
	cmd := exec.Command(nginxBinary(tb), "-p", prefix, "-c", conf, "-g", "daemon off;")
	var words strings.Builder
	cmd.Stderr = &words
	if err := cmd.Start(); err != nil {
		tb.Fatal(err)
	}
	exited := make(chan struct{})
	go func() {
		defer close(exited)
		_ = cmd.Wait() // the test ends it, or the wait below finds that it has ended
	}()
	tb.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		<-exited
		if tb.Failed() {
			log, _ := os.ReadFile(ctl.ErrorLog)
			tb.Logf("nginx: %s\nerror log:\n%s", words.String(), log)
		}
	})
	g := &gateway{revision: ctl.Revision, errorLog: ctl.ErrorLog, control: unixClient(ctl.Socket)}
	eventually(tb, "the control server answers", func() error {
		select {
		case <-exited:
			tb.Fatal("nginx ended")
		default:
		}
		got, err := g.ask("/reload")
		if err == nil && got != ctl.ReloadID {
			err = fmt.Errorf("reload id %q, want %q", got, ctl.ReloadID)
		}
		return err
	})
	return g
}

func unixClient(socket string) *http.Client {
	return &http.Client{Timeout: patience, Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", socket)
		},
	}}
}

// ask asks the control server.
func (g *gateway) ask(path string) (string, error) {
	res, err := g.control.Get("http://control" + path)
	if err != nil {
		return "", err
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	return string(body), err
}

// eventually waits until check is content.
func eventually(tb testing.TB, what string, check func() error) {
	tb.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		err := check()
		if err == nil {
			return
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			tb.Fatalf("waited %s until %s: %v", patience, what, err)
		}
	}
}
