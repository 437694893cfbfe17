package nginx

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/coder/websocket"
	"go.uber.org/goleak"

	"sluice/internal/testport"
	"sluice/templates"
)

func TestMain(m *testing.M) {
	if look, ok := looks[os.Getenv(lookEnv)]; ok {
		pid, err := strconv.Atoi(os.Getenv(lookAtEnv))
		if err != nil {
			panic(err)
		}
		look(pid)
		return
	}
	goleak.VerifyTestMain(m)
}

// renderControl is a small stand-in for templates' own: what a Driver needs of the control files.
func renderControl(c templates.Control) ([]templates.File, error) {
	main := fmt.Sprintf("pid %s;\nerror_log %s notice;\nworker_processes %d;\nworker_rlimit_nofile %d;\n"+
		"worker_shutdown_timeout %ds;\nevents { worker_connections %d; }\n",
		c.PIDFile, c.ErrorLog, max(c.WorkerProcesses, 1), c.WorkerRlimitNofile, int(c.WorkerShutdownTimeout.Seconds()), c.WorkerConnections)
	if c.User != "" {
		main = "user " + c.User + ";\n" + main
	}
	for _, m := range c.Modules {
		main = "load_module " + m + ";\n" + main
	}
	http := fmt.Sprintf("server { listen unix:%s; location = /reload { return 200 %q; } location = /revision { return 200 %q; } }\n",
		c.Socket, c.ReloadID, c.Revision)
	return []templates.File{
		{Path: "control/main.conf", Data: []byte(main), Mode: 0o644},
		{Path: "control/http.conf", Data: []byte(http), Mode: 0o644},
	}, nil
}

// site is a server block on a port that answers with a word, and passes /ws on to a WebSocket server.
func site(port int, answer string, backend string) string {
	s := fmt.Sprintf("server { listen 127.0.0.1:%d; location / { return 200 %q; }\n", port, answer)
	if backend != "" {
		s += fmt.Sprintf("location /ws { proxy_pass http://%s; proxy_http_version 1.1; proxy_set_header Upgrade $http_upgrade; "+
			"proxy_set_header Connection upgrade; proxy_read_timeout 1h; }\n", backend)
	}
	return s + "}\n"
}

// bundle is a whole configuration with the text in its http block.
func bundle(text string) templates.Bundle {
	return bundleOf(
		templates.File{Path: "http/site-a.conf", Data: []byte(text), Mode: 0o644},
		templates.File{Path: "keys/a.key", Data: []byte("secret"), Mode: 0o600},
		templates.File{Path: "nginx.conf", Data: []byte("include control/main.conf;\nhttp {\naccess_log off;\n" +
			"include control/http.conf;\ninclude http/*.conf;\n}\n"), Mode: 0o644})
}

func bundleOf(files ...templates.File) templates.Bundle {
	hash := sha256.New()
	for _, f := range files {
		fmt.Fprintf(hash, "%s %d\n%s", f.Path, len(f.Data), f.Data)
	}
	return templates.Bundle{Files: files, Revision: hex.EncodeToString(hash.Sum(nil))}
}

func options(t testing.TB) Options {
	t.Helper()
	dir, err := os.MkdirTemp("", "sluice-nginx-") // t.TempDir's path may be too long for a unix socket
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(dir, 0o711); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return Options{
		Binary:            "nginx",
		Dir:               dir,
		Control:           renderControl,
		WorkerProcesses:   2,
		WorkerConnections: 512,
		Logger:            slog.New(slog.NewTextHandler(t.Output(), nil)),
	}
}

// open returns a Driver whose nginx is ended with the test.
func open(t testing.TB, o Options) *Driver {
	t.Helper()
	d, err := Open(t.Context(), o)
	if err != nil {
		t.Fatalf("Open: %v", err)
	}
	t.Cleanup(func() {
		abandon(d)
		sweep(t, d)
		_ = os.Remove(d.control.path)
	})
	return d
}

// abandon is what becomes of a Driver that is killed: the kernel gives its lock back.
func abandon(d *Driver) { _ = unlockDir(d.lock) }

// sweep ends all of a Driver's nginx.
func sweep(t testing.TB, d *Driver) {
	t.Helper()
	within(t, 10*time.Second, "nginx is gone", func() bool {
		left := 0
		for _, p := range everyProcess(t, d) {
			left++
			_ = p.signal(syscall.SIGKILL)
		}
		return left == 0
	})
}

// everyProcess returns the master and all workers, orphans too.
func everyProcess(t testing.TB, d *Driver) []process {
	t.Helper()
	var all []process
	master, err := d.findMaster()
	if err != nil {
		t.Errorf("find the master: %v", err)
	}
	if master != (process{}) {
		all = append(all, master)
		for _, pid := range children(master.pid) {
			if w, ok := readWorker(pid); ok {
				all = append(all, w.process)
			}
		}
	}
	orphans, err := d.orphans()
	if err != nil {
		t.Errorf("find orphans: %v", err)
	}
	for _, w := range orphans {
		all = append(all, w.process)
	}
	return all
}

func apply(t *testing.T, d *Driver, b templates.Bundle, want How) {
	t.Helper()
	applied, err := d.Apply(t.Context(), b)
	if err != nil {
		t.Fatalf("Apply: %v", err)
	}
	if applied.How != want || applied.Revision != b.Revision {
		t.Fatalf("Apply: %+v, want how %q and revision %s", applied, want, b.Revision)
	}
}

// refused applies b and wants it refused at a stage, with all of the words.
func refused(t *testing.T, d *Driver, b templates.Bundle, stage Stage, words ...string) {
	t.Helper()
	_, err := d.Apply(t.Context(), b)
	var r *RefusedError
	if !errors.As(err, &r) {
		t.Fatalf("Apply: %v, want it refused", err)
	}
	if r.Stage != stage {
		t.Errorf("refused at %q, want %q: %v", r.Stage, stage, err)
	}
	for _, word := range words {
		if !strings.Contains(err.Error(), word) {
			t.Errorf("the error does not say %q: %v", word, err)
		}
	}
	if r.Undo != nil {
		t.Errorf("going back failed: %v", r.Undo)
	}
}

// get asks over a connection of its own.
func get(port int) (string, error) {
	client := http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	answer, err := client.Get("http://127.0.0.1:" + strconv.Itoa(port) + "/")
	if err != nil {
		return "", err
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	return string(body), err
}

// serves wants the next 50 answers, all on fresh connections, to be the same.
func serves(t *testing.T, port int, want string) {
	t.Helper()
	for i := range 50 {
		if got, err := get(port); err != nil || got != want {
			t.Fatalf("request %d: %q, %v; want %q", i, got, err, want)
		}
	}
}

// within waits for a condition, which is looked at every few milliseconds.
func within(t testing.TB, limit time.Duration, what string, ok func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), limit) // cleanups wait too, when the test's own has ended
	defer cancel()
	if err := poll(ctx, 5*time.Millisecond, func() (bool, error) { return ok(), nil }); err != nil {
		t.Fatalf("not within %s: %s", limit, what)
	}
}

// echo is a WebSocket server; sockets that it has accepted end with the test.
func echo(t *testing.T) (address string) {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(answerEcho))
	t.Cleanup(server.Close)
	return server.Listener.Addr().String()
}

// echoUnix is echo on a unix socket, which nginx's workers may write to.
func echoUnix(t *testing.T) (path string) {
	t.Helper()
	path = filepath.Join(options(t).Dir, "n1.sock")
	l, err := net.Listen("unix", path)
	if err == nil {
		err = os.Chmod(path, 0o777)
	}
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewUnstartedServer(http.HandlerFunc(answerEcho))
	_ = server.Listener.Close()
	server.Listener = l
	server.Start()
	t.Cleanup(server.Close)
	return path
}

func answerEcho(w http.ResponseWriter, r *http.Request) {
	ws, err := websocket.Accept(w, r, nil)
	if err != nil {
		return
	}
	defer func() { _ = ws.CloseNow() }()
	for {
		kind, message, err := ws.Read(r.Context())
		if err != nil {
			return
		}
		if err := ws.Write(r.Context(), kind, message); err != nil {
			return
		}
	}
}

// dial opens WebSockets through nginx.
func dial(t *testing.T, port, count int) []*websocket.Conn {
	t.Helper()
	var conns []*websocket.Conn
	for range count {
		ws, _, err := websocket.Dial(t.Context(), fmt.Sprintf("ws://127.0.0.1:%d/ws", port), nil)
		if err != nil {
			t.Fatalf("open a WebSocket: %v", err)
		}
		t.Cleanup(func() { _ = ws.CloseNow() })
		conns = append(conns, ws)
	}
	return conns
}

// alive wants every WebSocket to pass a message there and back.
func alive(t *testing.T, conns []*websocket.Conn) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	for i, ws := range conns {
		if err := ws.Write(ctx, websocket.MessageText, []byte("hello")); err != nil {
			t.Fatalf("WebSocket %d is dead: %v", i, err)
		}
		if _, message, err := ws.Read(ctx); err != nil || string(message) != "hello" {
			t.Fatalf("WebSocket %d is dead: %q, %v", i, message, err)
		}
	}
}

func master(t *testing.T, d *Driver) process {
	t.Helper()
	m, err := d.findMaster()
	if err != nil || m == (process{}) {
		t.Fatalf("find the master: %v, %v", m, err)
	}
	return m
}

// acceptingPIDs returns the workers that serve now, when all of them do: a start is over when the first does.
func acceptingPIDs(t *testing.T, d *Driver) []int {
	t.Helper()
	var all []int
	within(t, 5*time.Second, "all workers serve", func() bool {
		all = pids(accepting(master(t, d)))
		return d.o.Mode == Include || len(all) == d.o.WorkerProcesses
	})
	slices.Sort(all)
	return all
}

// hold listens on a port so that nginx cannot.
func hold(t *testing.T) (port int, release func()) {
	t.Helper()
	port = testport.Free(t)
	l, err := net.Listen("tcp", "127.0.0.1:"+strconv.Itoa(port))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	return port, func() { _ = l.Close() }
}

func path(d *Driver, elements ...string) string {
	return filepath.Join(append([]string{d.o.Dir}, elements...)...)
}
