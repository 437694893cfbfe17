// Package e2e tests everything at once: the real binary, nginx, etcd, and Socket.IO servers and clients. Its files without
// a test of their own are the harness: processes, gateways, nodes, clients and hosts, each ended when its test ends.
package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"
)

var (
	sluiceBinary string // built with the race detector, unless SLUICE_BINARY names another
	root         string // of the repository
	example      string // the Socket.IO example, whose server and packages the tests use
)

func TestMain(m *testing.M) {
	os.Exit(run(m))
}

func run(m *testing.M) int {
	dir, err := os.MkdirTemp("", "sluice-e2e-")
	if err != nil {
		return failed(err)
	}
	defer func() { _ = os.RemoveAll(dir) }()
	if root, err = filepath.Abs(".."); err != nil {
		return failed(err)
	}
	example = filepath.Join(root, "examples", "socketio")
	if _, err := os.Stat(filepath.Join(example, "node_modules", "socket.io")); err != nil {
		return failed(fmt.Errorf("the Socket.IO packages are missing, run make setup-test: %w", err))
	}
	sluiceBinary = os.Getenv("SLUICE_BINARY")
	if sluiceBinary == "" {
		sluiceBinary = filepath.Join(dir, "sluice")
		build := exec.Command("go", "build", "-race", "-o", sluiceBinary, "./cmd/sluice")
		build.Dir, build.Stdout, build.Stderr = root, os.Stderr, os.Stderr
		if err := build.Run(); err != nil {
			return failed(fmt.Errorf("build sluice: %w", err))
		}
	}
	return m.Run()
}

func failed(err error) int {
	fmt.Fprintln(os.Stderr, "e2e:", err)
	return 1
}

// soak is for how long the long versions of tests run; zero in an ordinary run. make soak sets it.
func soak(tb testing.TB) time.Duration {
	tb.Helper()
	text := os.Getenv("SLUICE_SOAK")
	if text == "" {
		return 0
	}
	d, err := time.ParseDuration(text)
	if err != nil {
		tb.Fatalf("SLUICE_SOAK: %v", err)
	}
	return d
}
