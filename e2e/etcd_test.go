package e2e

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"sluice/internal/testport"
)

// Etcd is an etcd server in a process of its own. Stop, or Kill, and Start can follow each other.
type Etcd struct {
	*Process

	URL  string // as sluice takes it: etcd://host:port
	data string // directory
	tb   testing.TB
	host *Host
	argv []string
}

// startEtcd starts an etcd, on host, or on this machine when it is nil, and waits until it answers.
func startEtcd(tb testing.TB, host *Host) *Etcd {
	tb.Helper()
	port, peer := testport.Free(tb), testport.Free(tb)
	at := host.Address() + ":" + strconv.Itoa(port)
	peers := fmt.Sprintf("http://127.0.0.1:%d", peer)
	e := &Etcd{URL: "etcd://" + at, data: filepath.Join(tempDir(tb), "etcd"), tb: tb, host: host}
	e.argv = append(host.Command(), tool("etcd"), "--name", "e2e", "--data-dir", e.data,
		"--listen-client-urls", "http://"+at, "--advertise-client-urls", "http://"+at,
		"--listen-peer-urls", peers, "--initial-advertise-peer-urls", peers, "--initial-cluster", "e2e="+peers,
		"--log-level", "warn")
	e.Start()
	return e
}

// Start starts the server, for the first time or again with the data that it had, and waits until it answers.
func (e *Etcd) Start() {
	e.tb.Helper()
	e.Process = startProcess(e.tb, "etcd", nil, e.argv...)
	eventually(e.tb, 20*time.Second, "etcd answers", func(ctx context.Context) error {
		_, err := e.ctl(ctx, "endpoint", "health")
		return err
	})
}

// Wipe deletes all that a server had which does not run.
func (e *Etcd) Wipe() { wipe(e.tb, e.data) }

func wipe(tb testing.TB, dir string) {
	tb.Helper()
	if err := os.RemoveAll(dir); err != nil {
		tb.Fatal(err)
	}
}

// Ctl runs etcdctl against the server.
func (e *Etcd) Ctl(args ...string) string {
	e.tb.Helper()
	out, err := e.ctl(e.tb.Context(), args...)
	if err != nil {
		e.tb.Fatal(err)
	}
	return out
}

func (e *Etcd) ctl(ctx context.Context, args ...string) (string, error) {
	argv := append(e.host.Command(), tool("etcdctl"), "--endpoints", e.URL[len("etcd://"):])
	argv = append(argv, args...)
	out, err := exec.CommandContext(ctx, argv[0], argv[1:]...).CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("etcdctl %v: %w: %s", args, err, out)
	}
	return string(out), nil
}

// tool returns the path of a program that make builds from tools/.
func tool(name string) string { return filepath.Join(root, ".cache", "bin", name) }
