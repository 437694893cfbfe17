package e2e

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// Process is a program that the test started. It is killed at the test's end, and its output is shown when the test failed.
type Process struct {
	tb   testing.TB
	name string
	cmd  *exec.Cmd
	out  buffer
	done chan struct{} // closed when it has ended
}

// startProcess starts argv, with env in addition to the test's own environment.
func startProcess(tb testing.TB, name string, env []string, argv ...string) *Process {
	tb.Helper()
	p := &Process{tb: tb, name: name, cmd: exec.Command(argv[0], argv[1:]...), done: make(chan struct{})}
	p.cmd.Dir = root
	p.cmd.Env = append(os.Environ(), env...)
	p.cmd.Stdout, p.cmd.Stderr = &p.out, &p.out
	// A group of its own: a Ctrl-C at the test's terminal does not reach it. It does not outlive the test's process.
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if err := p.cmd.Start(); err != nil {
		tb.Fatalf("start %s: %v", name, err)
	}
	go func() {
		_ = p.cmd.Wait() // its state is asked for where it matters
		close(p.done)
	}()
	tb.Cleanup(func() {
		p.Kill()
		p.check()
	})
	return p
}

// check fails the test when the process found a race or panicked, and shows its output when the test has failed.
func (p *Process) check() {
	p.tb.Helper()
	output := p.Output()
	for _, wrong := range []string{"WARNING: DATA RACE", "\npanic: ", "fatal error: "} {
		if strings.Contains(output, wrong) {
			p.tb.Errorf("%s: %s", p.name, strings.TrimSpace(wrong))
		}
	}
	if p.tb.Failed() {
		p.tb.Logf("output of %s:\n%s", p.name, output)
	}
}

// PID returns the process's id.
func (p *Process) PID() int { return p.cmd.Process.Pid }

// Output returns what it wrote so far.
func (p *Process) Output() string { return p.out.String() }

// waitFor waits until it has written text.
func (p *Process) waitFor(within time.Duration, text string) {
	p.tb.Helper()
	eventually(p.tb, within, p.name+" says "+text, func(context.Context) error {
		if !strings.Contains(p.Output(), text) {
			return fmt.Errorf("it wrote %q", p.Output())
		}
		return nil
	})
}

// Done is closed when it has ended.
func (p *Process) Done() <-chan struct{} { return p.done }

// ExitCode returns its exit code once it has ended; -1 when a signal ended it.
func (p *Process) ExitCode() int {
	<-p.done
	return p.cmd.ProcessState.ExitCode()
}

// Signal sends a signal.
func (p *Process) Signal(sig os.Signal) { _ = p.cmd.Process.Signal(sig) }

// Pause has it and all that it started hang, until Resume.
func (p *Process) Pause() { p.signalAll(syscall.SIGSTOP) }

// Resume lets it go on.
func (p *Process) Resume() { p.signalAll(syscall.SIGCONT) }

func (p *Process) signalAll(sig syscall.Signal) {
	select {
	case <-p.done: // its id may be another's by now
		return
	default:
	}
	for _, pid := range descendants(p.PID()) {
		_ = syscall.Kill(pid, sig)
	}
}

// Stop asks it to end with SIGTERM, and waits for that. One that does not within 30 s is killed, and fails the test.
func (p *Process) Stop() {
	p.tb.Helper()
	p.Signal(syscall.SIGTERM)
	timer := time.NewTimer(30 * time.Second)
	defer timer.Stop()
	select {
	case <-p.done:
	case <-timer.C:
		p.tb.Errorf("%s did not end within 30 s of SIGTERM", p.name)
		p.Kill()
	}
}

// Kill ends it and all that it started with SIGKILL, as when a machine goes dark.
func (p *Process) Kill() {
	p.signalAll(syscall.SIGKILL)
	<-p.done
}

// descendants returns pid, its children, and theirs.
func descendants(pid int) []int {
	pids := []int{pid}
	for _, child := range children(pid) {
		pids = append(pids, descendants(child)...)
	}
	return pids
}

func children(pid int) []int {
	tasks, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	var pids []int
	for _, task := range tasks {
		text, _ := os.ReadFile(task)
		for _, field := range strings.Fields(string(text)) {
			if child, err := strconv.Atoi(field); err == nil {
				pids = append(pids, child)
			}
		}
	}
	return pids
}

// buffer keeps what a process writes.
type buffer struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.Write(p)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.String()
}
