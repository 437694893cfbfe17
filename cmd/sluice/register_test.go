package main

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"sluice/internal/testport"
	"sluice/registry"
)

// testServer is the command that register runs in the tests. It listens on ADDRESS once the file GATE is there, and
// writes the signals that it gets to OUT: for SIGTERM and SIGINT with the nodes that NODES_URL lists at that time, and
// then it ends with code 7. SIGUSR2 ends it with code 3.
func testServer() {
	signals := make(chan os.Signal, 8)
	signal.Notify(signals)
	note("pid " + strconv.Itoa(os.Getpid()))
	tick := time.NewTicker(10 * time.Millisecond)
	var listener net.Listener // one that nobody holds is closed when the garbage is collected
	for {
		select {
		case <-tick.C:
			if _, err := os.Stat(os.Getenv("GATE")); err == nil && listener == nil {
				if listener, err = net.Listen("tcp", os.Getenv("ADDRESS")); err != nil {
					fatal(os.Stderr, err)
				}
			}
		case s := <-signals:
			switch s {
			case syscall.SIGURG: // the Go runtime's own
			case syscall.SIGUSR2:
				os.Exit(3)
			case syscall.SIGTERM, syscall.SIGINT:
				if listener != nil {
					_ = listener.Close()
				}
				note(s.String() + " " + listed())
				os.Exit(7)
			default:
				note(s.String())
			}
		}
	}
}

func note(line string) {
	f, err := os.OpenFile(os.Getenv("OUT"), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		fatal(os.Stderr, err)
	}
	if _, err := f.WriteString(line + "\n"); err != nil {
		fatal(os.Stderr, err)
	}
	_ = f.Close()
}

func listed() string {
	resp, err := http.Get(os.Getenv("NODES_URL"))
	if err != nil {
		return err.Error()
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return err.Error()
	}
	return strings.TrimSpace(string(body))
}

// sidecar is a `sluice register` with a testServer below it.
type sidecar struct {
	*exec.Cmd
	t    *testing.T
	dir  string
	done chan struct{}

	mu     sync.Mutex
	stderr strings.Builder
}

func (s *sidecar) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.stderr.Write(p)
}

func (s *sidecar) log() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.stderr.String()
}

// register starts a sidecar for node io/n1; args are more flags, and the command.
func (in *testInstance) register(t *testing.T, args ...string) *sidecar {
	t.Helper()
	s := &sidecar{t: t, dir: t.TempDir(), done: make(chan struct{})}
	address := "127.0.0.1:" + strconv.Itoa(testport.Free(t))
	s.Cmd = exec.CommandContext(context.WithoutCancel(t.Context()), "sluice", append([]string{"register", "--service", "io", "--id", "n1", "--address", address}, args...)...)
	s.Env = append(os.Environ(), "SLUICE_API="+in.url, "ADDRESS="+address, "NODES_URL="+in.url+"/v1/nodes",
		"GATE="+filepath.Join(s.dir, "gate"), "OUT="+filepath.Join(s.dir, "out"))
	s.Stderr = s
	if err := s.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		_ = s.Wait() // the exit code is looked at
		close(s.done)
	}()
	t.Cleanup(func() {
		_ = s.Process.Kill()
		<-s.done
		if t.Failed() {
			t.Logf("register wrote:\n%s\nits command:\n%s", s.log(), s.out())
		}
	})
	return s
}

// open has the server listen.
func (s *sidecar) open() {
	s.t.Helper()
	if err := os.WriteFile(filepath.Join(s.dir, "gate"), nil, 0o600); err != nil {
		s.t.Fatal(err)
	}
}

// out returns what the server has written.
func (s *sidecar) out() string {
	data, err := os.ReadFile(filepath.Join(s.dir, "out"))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		s.t.Fatal(err)
	}
	return string(data)
}

func (s *sidecar) send(sig syscall.Signal) {
	s.t.Helper()
	if err := s.Process.Signal(sig); err != nil {
		s.t.Fatal(err)
	}
}

func (s *sidecar) wantCode(code int) {
	s.t.Helper()
	select {
	case <-s.done:
	case <-time.After(20 * time.Second):
		s.t.Fatalf("register did not end:\n%s", s.log())
	}
	if got := s.ProcessState.ExitCode(); got != code {
		s.t.Errorf("exit code %d, want %d:\n%s", got, code, s.log())
	}
}

func (in *testInstance) wantNodes(t *testing.T, want string) {
	t.Helper()
	eventually(t, "the nodes are "+strconv.Quote(want), func() bool { return in.nodes(t) == want })
}

func TestRegisterFollowsTheCommand(t *testing.T) {
	t.Parallel()
	in := startInstance(t, "")
	const grace = 300 * time.Millisecond
	s := in.register(t, "--grace", grace.String(), "--weight", "3", "--max-conns", "100", "--zone", "z", "--tag", "blue,eu", "--meta", "a=b,c=d", "--", "testserver")
	eventually(t, "the server runs", func() bool { return strings.HasPrefix(s.out(), "pid ") })
	if got := in.nodes(t); got != "" {
		t.Errorf("registered before the address accepts: %s", got)
	}
	s.open()
	in.wantNodes(t, "io/n1")
	n, err := in.registry.GetNode(t.Context(), registry.NodeRef{Service: "io", ID: "n1"})
	if err != nil {
		t.Fatal(err)
	}
	if n.Weight != 3 || n.MaxConns != 100 || n.Zone != "z" || n.Meta["a"] != "b" || n.Meta["c"] != "d" || strings.Join(n.Tags, " ") != "blue eu" || len(n.Incarnation) != 16 {
		t.Errorf("%+v", n)
	}
	for _, sig := range []syscall.Signal{syscall.SIGHUP, syscall.SIGUSR1} {
		s.send(sig)
		eventually(t, sig.String()+" is passed on", func() bool { return strings.Contains(s.out(), sig.String()) })
	}
	if got := in.nodes(t); got != "io/n1" {
		t.Errorf("nodes %q after signals that do not end it", got)
	}
	s.send(syscall.SIGTERM)
	in.wantNodes(t, "")
	gone := time.Now()
	s.wantCode(7)
	if d := time.Since(gone); d < grace/2 {
		t.Errorf("the signal came %s after the node had left, not about %s", d, grace)
	}
	if !strings.Contains(s.out(), `terminated {"items":[]}`) {
		t.Errorf("SIGTERM came before the node had left: %s", s.out())
	}
}

func TestRegisterInAHurry(t *testing.T) {
	t.Parallel()
	in := startInstance(t, "")
	s := in.register(t, "--grace", "1h", "--", "testserver")
	s.open()
	in.wantNodes(t, "io/n1")
	s.send(syscall.SIGINT)
	in.wantNodes(t, "")
	s.send(syscall.SIGINT)
	s.wantCode(7)
	if !strings.Contains(s.out(), "interrupt") {
		t.Error(s.out())
	}
}

func TestRegisterPassesTheEndOnBeforeTheStart(t *testing.T) {
	t.Parallel()
	in := startInstance(t, "")
	s := in.register(t, "--grace", "1h", "--", "testserver")
	eventually(t, "the server runs", func() bool { return strings.HasPrefix(s.out(), "pid ") })
	s.send(syscall.SIGTERM)
	s.wantCode(7)
}

func TestRegisterWhenTheCommandDies(t *testing.T) {
	t.Parallel()
	tests := []struct {
		signal syscall.Signal
		code   int
	}{{syscall.SIGUSR2, 3}, {syscall.SIGKILL, 137}}
	for _, tt := range tests {
		t.Run(tt.signal.String(), func(t *testing.T) {
			t.Parallel()
			in := startInstance(t, "")
			s := in.register(t, "--ttl", "1h", "--", "testserver")
			s.open()
			in.wantNodes(t, "io/n1")
			pid, err := strconv.Atoi(strings.Fields(s.out())[1])
			if err != nil {
				t.Fatal(err)
			}
			if err := syscall.Kill(pid, tt.signal); err != nil {
				t.Fatal(err)
			}
			s.wantCode(tt.code)
			if got := in.nodes(t); got != "" {
				t.Errorf("%s is still registered", got)
			}
		})
	}
}

// TestRegisterKilled has the command end with a register that had no chance to tell it.
func TestRegisterKilled(t *testing.T) {
	t.Parallel()
	in := startInstance(t, "")
	s := in.register(t, "--", "testserver")
	s.open()
	in.wantNodes(t, "io/n1")
	s.send(syscall.SIGKILL)
	<-s.done
	eventually(t, "the command gets SIGTERM", func() bool { return strings.Contains(s.out(), "terminated") })
}

func TestRegisterWithoutCommand(t *testing.T) {
	t.Parallel()
	in := startInstance(t, "")
	s := in.register(t)
	in.wantNodes(t, "io/n1")
	s.send(syscall.SIGTERM)
	s.wantCode(0)
	if got := in.nodes(t); got != "" {
		t.Errorf("%s is still registered", got)
	}
	for _, want := range []string{"msg=registered", "msg=deregistered", "node=io/n1"} {
		if !strings.Contains(s.log(), want) {
			t.Errorf("%q is not in the log:\n%s", want, s.log())
		}
	}
}

func TestRegisterWithARegistry(t *testing.T) {
	t.Parallel()
	in := startInstance(t, "")
	s := in.register(t, "--registry", in.etcdURL, "--api", "127.0.0.1:1", "--", "testserver")
	s.open()
	in.wantNodes(t, "io/n1")
	s.send(syscall.SIGTERM)
	s.wantCode(7)
}

func TestRegisterWithATokenAndASecondInstance(t *testing.T) {
	t.Parallel()
	in := startInstance(t, "s3cret")
	file := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(file, []byte("s3cret\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	s := in.register(t, "--api", "http://127.0.0.1:1,"+in.url, "--token-file", file)
	in.wantNodes(t, "io/n1")
	s.send(syscall.SIGINT)
	s.wantCode(0)
	if strings.Contains(s.log(), "s3cret") {
		t.Error("the log has the token")
	}
}

func TestRegisterLeavesItsSuccessorAlone(t *testing.T) {
	t.Parallel()
	in := startInstance(t, "")
	s := in.register(t, "--ttl", "1h")
	in.wantNodes(t, "io/n1")
	successor := registry.Node{Service: "io", ID: "n1", Address: "127.0.0.1", Port: 1, Incarnation: "successor"}
	if err := in.registry.Put(t.Context(), successor, time.Hour); err != nil {
		t.Fatal(err)
	}
	s.send(syscall.SIGTERM)
	s.wantCode(0)
	if got := in.nodes(t); got != "io/n1" {
		t.Errorf("nodes %q: the successor is gone", got)
	}
}

func TestRegisterCommandThatCannotRun(t *testing.T) {
	t.Parallel()
	in := startInstance(t, "")
	plainFile := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(plainFile, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	for command, code := range map[string]int{"no-such-command": 127, "/no/such/file": 127, plainFile: 126} {
		s := in.register(t, "--", command)
		s.wantCode(code)
		if !strings.Contains(s.log(), "the command") {
			t.Errorf("%s: %s", command, s.log())
		}
	}
	// The command's flags are its own, without the two dashes too.
	in.register(t, "sh", "-c", "exit 5").wantCode(5)
}

// slowWriter answers a Put only when it is let go.
type slowWriter struct {
	begun, release chan struct{}
	mu             sync.Mutex
	calls          []string
}

func (w *slowWriter) note(call string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.calls = append(w.calls, call)
}

func (w *slowWriter) Put(ctx context.Context, _ registry.Node, _ time.Duration) error {
	close(w.begun)
	<-w.release
	if ctx.Err() != nil {
		w.note("put cut short")
		return ctx.Err()
	}
	w.note("put")
	return nil
}

func (w *slowWriter) Remove(context.Context, registry.NodeRef) error {
	w.note("remove")
	return nil
}

// TestMembershipRemovesAfterTheLastPut: a Put that is under way must not arrive after the removal.
func TestMembershipRemovesAfterTheLastPut(t *testing.T) {
	t.Parallel()
	w := &slowWriter{begun: make(chan struct{}), release: make(chan struct{})}
	n := registry.Node{Service: "io", ID: "n1", Address: "127.0.0.1", Port: 1}
	m := newMembership(w, nil, n, time.Minute, slog.New(slog.DiscardHandler))
	m.join()
	<-w.begun
	m.stop() // as leave does first
	close(w.release)
	m.leave()
	if got := strings.Join(w.calls, " "); got != "put remove" {
		t.Error(got)
	}
}
