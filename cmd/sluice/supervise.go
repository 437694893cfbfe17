package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"strings"
	"syscall"
	"time"
)

// Exit codes as shells have them.
const (
	exitNotRunnable = 126
	exitNoCommand   = 127
	exitSignal      = 128 // plus the signal's number
)

const (
	acceptEvery = 50 * time.Millisecond // how often the command's address is tried
	acceptTime  = time.Second           // for one try
	acceptNote  = 30 * time.Second      // after this it is said that the address still accepts nothing
)

// supervise runs a command, registers the node while its address accepts connections, and ends with the command's code.
func supervise(ctx context.Context, m *membership, argv []string, grace time.Duration) error {
	signals := make(chan os.Signal, 16)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP, syscall.SIGQUIT, syscall.SIGUSR1, syscall.SIGUSR2)
	defer signal.Stop(signals)
	child, err := startChild(argv)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	accepts := make(chan struct{})
	go func() {
		if m.waitAccepts(ctx) {
			close(accepts)
		}
	}()

	var (
		joined   bool
		ending   os.Signal       // the signal that is passed on at the end
		left     chan struct{}   // closed when the node has left
		released <-chan struct{} // closed when the gateways have let go of it
	)
	for {
		select {
		case <-accepts:
			accepts, joined = nil, true
			m.join()
		case s := <-signals:
			ends := s == syscall.SIGTERM || s == syscall.SIGINT
			if !ends || !joined || ending != nil {
				child.signal(s) // nothing to wait for, or somebody is in a hurry
				break
			}
			ending, left = s, make(chan struct{})
			go func() {
				m.leave()
				close(left)
			}()
		case <-left:
			left, released = nil, m.released(ctx, grace)
		case <-released:
			released = nil
			child.signal(ending)
		case <-child.exited:
			switch {
			case left != nil:
				<-left
			case ending == nil:
				m.leave()
			}
			return child.exit()
		}
	}
}

// waitAccepts waits until the node's address accepts a connection; false means that ctx ended before.
func (m *membership) waitAccepts(ctx context.Context) bool {
	network, address := "tcp", m.node.HostPort()
	if path, ok := strings.CutPrefix(address, "unix:"); ok {
		network, address = "unix", path
	}
	dialer := net.Dialer{Timeout: acceptTime}
	tick := time.NewTicker(acceptEvery)
	defer tick.Stop()
	note := time.NewTimer(acceptNote)
	defer note.Stop()
	for {
		conn, err := dialer.DialContext(ctx, network, address)
		if err == nil {
			_ = conn.Close()
			return true
		}
		select {
		case <-ctx.Done():
			return false
		case <-note.C:
			m.log.Warn("the command runs, but its address accepts no connection yet", "address", m.node.HostPort(), "error", err)
		case <-tick.C:
		}
	}
}

// child is a command that runs.
type child struct {
	cmd    *exec.Cmd
	exited chan struct{}
	err    error // of Wait; to be read after exited is closed
}

// startChild starts a command in a process group of its own: what a terminal sends to all, as at Ctrl-C, must not reach
// it before the node has left. When sluice is killed, the command gets SIGTERM from the kernel; this is bound to the
// thread that started it, so that one is kept until the command has ended.
func startChild(argv []string) (*child, error) {
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM}
	c := &child{cmd: cmd, exited: make(chan struct{})}
	started := make(chan error)
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		started <- err
		if err == nil {
			c.err = cmd.Wait()
			close(c.exited)
		}
	}()
	err := <-started
	switch {
	case err == nil:
		return c, nil
	case errors.Is(err, exec.ErrNotFound) || errors.Is(err, fs.ErrNotExist):
		return nil, &exitError{exitNoCommand, fmt.Errorf("the command was not found: %w", err)}
	default:
		return nil, &exitError{exitNotRunnable, fmt.Errorf("the command cannot be run: %w", err)}
	}
}

func (c *child) signal(s os.Signal) { _ = c.cmd.Process.Signal(s) } // it may have ended just now

// exit returns the error that ends sluice as the command ended.
func (c *child) exit() error {
	if c.err == nil {
		return nil
	}
	exit, ok := errors.AsType[*exec.ExitError](c.err)
	if !ok {
		return fmt.Errorf("wait for the command: %w", c.err)
	}
	if status, ok := exit.Sys().(syscall.WaitStatus); ok && status.Signaled() {
		return &exitError{exitSignal + int(status.Signal()), nil}
	}
	return &exitError{exit.ExitCode(), nil}
}
