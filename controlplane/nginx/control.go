package nginx

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"syscall"
	"time"
)

// control asks the control server, which every configuration of ours has on a unix socket.
type control struct {
	path string
}

// The control server's pages.
const (
	pageReload = "/reload" // answers the id of the reload
)

// askTimeout is for one answer of a few bytes from the same machine; a worker that is busy takes a while.
const askTimeout = time.Second

// ask returns what a worker answers, over a connection of its own: a kept one would stay with its worker.
func (c control) ask(ctx context.Context, page string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	var dialer net.Dialer
	conn, err := dialer.DialContext(ctx, "unix", c.path)
	if err != nil {
		return "", fmt.Errorf("ask nginx: %w", err)
	}
	defer conn.Close()
	if deadline, ok := ctx.Deadline(); ok {
		_ = conn.SetDeadline(deadline)
	}
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Now()) })
	defer stop()
	if _, err := fmt.Fprintf(conn, "GET %s HTTP/1.0\r\n\r\n", page); err != nil {
		return "", fmt.Errorf("ask nginx: %w", err)
	}
	answer, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		return "", fmt.Errorf("ask nginx: %w", err)
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(io.LimitReader(answer.Body, 1024))
	if err != nil {
		return "", fmt.Errorf("ask nginx: %w", err)
	}
	if answer.StatusCode != http.StatusOK {
		return "", fmt.Errorf("ask nginx: %s answered %s", page, answer.Status)
	}
	return strings.TrimSpace(string(body)), nil
}

// agree asks times times and returns the id that all answers had; ok is false when they differed or one failed.
func (c control) agree(ctx context.Context, times int) (id string, ok bool) {
	for i := range times {
		answer, err := c.ask(ctx, pageReload)
		if err != nil || i > 0 && answer != id {
			return "", false
		}
		id = answer
	}
	return id, true
}

// owner returns the pid of the process that made the socket's listener, zero when it is outside of our pid namespace.
func (c control) owner(ctx context.Context) (int, error) {
	var dialer net.Dialer
	conn, err := dialer.DialContext(ctx, "unix", c.path)
	if err != nil {
		return 0, err
	}
	defer conn.Close()
	raw, err := conn.(*net.UnixConn).SyscallConn()
	if err != nil {
		return 0, err
	}
	pid := 0
	var credErr error
	if err := raw.Control(func(fd uintptr) {
		var cred *syscall.Ucred
		if cred, credErr = syscall.GetsockoptUcred(int(fd), syscall.SOL_SOCKET, syscall.SO_PEERCRED); credErr == nil {
			pid = int(cred.Pid)
		}
	}); err != nil {
		return 0, err
	}
	return pid, credErr
}

// removeStale removes the socket's file when nobody listens on it: nginx does not start on a file that is there.
func (c control) removeStale(ctx context.Context) error {
	if info, err := os.Lstat(c.path); err == nil && info.Mode().Type() != os.ModeSocket {
		return fmt.Errorf("%s is no socket: nginx needs that name; move it away", c.path)
	}
	var dialer net.Dialer
	conn, err := dialer.DialContext(ctx, "unix", c.path)
	switch {
	case err == nil:
		_ = conn.Close()
		return fmt.Errorf("somebody still listens on %s; `ss -xlp` shows who", c.path)
	case errors.Is(err, os.ErrNotExist):
		return nil
	case !errors.Is(err, syscall.ECONNREFUSED):
		return fmt.Errorf("look at the control socket: %w", err)
	}
	if err := os.Remove(c.path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("remove the stale control socket: %w", err)
	}
	return nil
}

// poll calls done every interval until it returns true or an error, or ctx ends.
func poll(ctx context.Context, interval time.Duration, done func() (bool, error)) error {
	ticker := time.NewTicker(interval)
	defer ticker.Stop()
	for {
		if ok, err := done(); ok || err != nil {
			return err
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}
