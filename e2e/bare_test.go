package e2e

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"sluice/internal/testport"
)

// BareNginx is an nginx with a hand-written configuration and without sluice: what sluice is measured against.
type BareNginx struct {
	*Process

	Port int
	Conf string // path of nginx.conf, which may be written anew before Reload

	tb testing.TB
}

// proxyTo returns a minimal http block that proxies to a node.
func proxyTo(node string) func(port int) string {
	return func(port int) string {
		return fmt.Sprintf(`
	map $http_upgrade $connection_header { default upgrade; '' ''; }
	upstream nodes { server %s; keepalive 32; }
	server {
		listen %d;
		location / {
			proxy_pass http://nodes;
			proxy_http_version 1.1;
			proxy_set_header Host $host;
			proxy_set_header Upgrade $http_upgrade;
			proxy_set_header Connection $connection_header;
		}
	}`, node, port)
	}
}

// startBareNginx starts an nginx with the http block that http returns, and waits until it listens.
func startBareNginx(tb testing.TB, http func(port int) string) *BareNginx {
	tb.Helper()
	dir := tempDir(tb)
	b := &BareNginx{Port: testport.Free(tb), Conf: filepath.Join(dir, "nginx.conf"), tb: tb}
	b.Write(http(b.Port))
	b.Process = startProcess(tb, "bare nginx", nil, "/usr/sbin/nginx", "-p", dir, "-e", "stderr", "-c", b.Conf)
	eventually(tb, 10*time.Second, "bare nginx listens", func(ctx context.Context) error {
		conn, err := dialerFrom(0).DialContext(ctx, "tcp", b.Addr())
		if err != nil {
			return err
		}
		return conn.Close()
	})
	return b
}

// Write writes nginx.conf with another http block.
func (b *BareNginx) Write(http string) {
	b.tb.Helper()
	user := ""
	if os.Getuid() == 0 {
		user = "user root;" // the test's directory
	}
	text := fmt.Sprintf("daemon off;\n%s\nworker_processes 2;\npid %s;\nerror_log stderr;\nevents { worker_connections 4096; }\nhttp {\n\taccess_log off;%s\n}\n",
		user, filepath.Join(filepath.Dir(b.Conf), "nginx.pid"), http)
	if err := os.WriteFile(b.Conf, []byte(text), 0o644); err != nil {
		b.tb.Fatal(err)
	}
}

// Addr returns where it listens.
func (b *BareNginx) Addr() string { return "127.0.0.1:" + strconv.Itoa(b.Port) }

// Reload sends HUP and waits until new workers serve and the old ones accept no more; these live on for open connections.
func (b *BareNginx) Reload() {
	b.tb.Helper()
	old := children(b.PID())
	b.Signal(syscall.SIGHUP)
	eventually(b.tb, 20*time.Second, "bare nginx has new workers alone", func(context.Context) error {
		now := children(b.PID())
		fresh := slices.DeleteFunc(slices.Clone(now), func(pid int) bool { return slices.Contains(old, pid) })
		accepts := slices.ContainsFunc(now, func(pid int) bool { return slices.Contains(old, pid) && !shuttingDown(pid) })
		if len(fresh) == 0 || accepts {
			return fmt.Errorf("workers before %v, now %v", old, now)
		}
		return nil
	})
}

// shuttingDown reports whether an nginx worker's title says that it accepts no more.
func shuttingDown(pid int) bool {
	title, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	return err != nil || strings.Contains(string(title), "is shutting down")
}
