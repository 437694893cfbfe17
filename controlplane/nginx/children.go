package nginx

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// running is held for reading while a command of this package runs: its exit status is os/exec's, not reap's.
var running sync.RWMutex

type exitError = exec.ExitError

// run runs a program to its end and returns what it wrote, on either output.
func run(ctx context.Context, dir, name string, args ...string) (string, error) {
	running.RLock()
	defer running.RUnlock()
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = dir
	cmd.Env = environ()
	cmd.WaitDelay = time.Second // a child of a wrapper may hold the pipe
	out, err := cmd.CombinedOutput()
	if ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	return string(out), err
}

// start runs nginx until it has gone into the background, or failed. It gets no pipe, which would break when we end.
func start(ctx context.Context, out *os.File, name string, args ...string) error {
	running.RLock()
	defer running.RUnlock()
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = "/" // so that it keeps no file system busy
	cmd.Env = environ()
	cmd.Stdout, cmd.Stderr = out, out
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	err := cmd.Run()
	if ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	return err
}

// environ is the environment that nginx gets: nothing of sluice's own, which may hold secrets and a supervisor's sockets.
func environ() []string {
	var kept []string
	for _, entry := range os.Environ() {
		name, _, _ := strings.Cut(entry, "=")
		switch {
		case strings.HasPrefix(name, "SLUICE_"), strings.HasPrefix(name, "LISTEN_"), strings.HasPrefix(name, "WATCHDOG_"),
			name == "NOTIFY_SOCKET", name == "NGINX": // nginx takes listeners from the last one
		default:
			kept = append(kept, entry)
		}
	}
	return kept
}

// reap takes the exit status of nginx's processes that became our children when their parent ended. That is so in a
// container, where we are the first process, and nobody else would: they would stay as zombies.
func reap() {
	if !running.TryLock() {
		return
	}
	defer running.Unlock()
	for _, pid := range processes() {
		s, err := readStat(pid)
		if err != nil || s.parent != os.Getpid() || s.lives() {
			continue
		}
		name, err := os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid))
		if err == nil && strings.HasPrefix(string(name), "nginx") {
			_, _ = unix.Wait4(pid, nil, unix.WNOHANG, nil)
		}
	}
}

// inherits says whether orphans become our children: nginx's master is one, from the moment it has gone into the background.
func inherits(master process) bool {
	if os.Getpid() == 1 {
		return true
	}
	s, err := readStat(master.pid)
	return err == nil && s.process == master && s.parent == os.Getpid()
}
