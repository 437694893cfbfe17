package health

import (
	"context"
	"errors"
	"net/netip"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// tcp opens a connection and closes it. It makes the system calls itself: most nodes are checked so, thousands in a
// second, and nearly all answer within the call, for which a net.Dialer's timers and goroutines are not needed.
type tcp struct {
	family  int
	address unix.Sockaddr
}

func newTCP(network, address string) prober {
	if network == "unix" {
		return tcp{unix.AF_UNIX, &unix.SockaddrUnix{Name: address}}
	}
	a, err := netip.ParseAddrPort(address)
	switch {
	case err != nil: // the registry takes no such node
		return noAddress{err}
	case a.Addr().Is4():
		return tcp{unix.AF_INET, &unix.SockaddrInet4{Port: int(a.Port()), Addr: a.Addr().As4()}}
	default:
		return tcp{unix.AF_INET6, &unix.SockaddrInet6{Port: int(a.Port()), Addr: a.Addr().As16()}}
	}
}

type noAddress struct{ err error }

func (p noAddress) probe(context.Context, time.Time) outcome {
	return outcome{untold: true, reason: p.err.Error()}
}

func (p tcp) probe(ctx context.Context, deadline time.Time) outcome {
	fd, err := unix.Socket(p.family, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return failedTo("open a socket", err)
	}
	err = unix.Connect(fd, p.address)
	if errors.Is(err, unix.EINPROGRESS) {
		err = unix.Connect(fd, p.address) // tells how it goes
	}
	if errors.Is(err, unix.EALREADY) {
		return p.wait(ctx, fd, deadline)
	}
	err = p.reset(fd, err)
	unix.Close(fd)
	if err != nil {
		return failedTo("connect", err)
	}
	return outcome{}
}

// reset has the connection closed with a reset: one that is closed in the ordinary way would hold a port of this machine
// for a minute after each check.
func (p tcp) reset(fd int, err error) error {
	if err != nil || p.family == unix.AF_UNIX {
		return err
	}
	return unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1})
}

// wait waits for a connection that is being made.
func (p tcp) wait(ctx context.Context, fd int, deadline time.Time) outcome {
	file := os.NewFile(uintptr(fd), "check") // non-blocking, so it waits with the runtime's poller
	defer file.Close()
	if err := file.SetWriteDeadline(deadline); err != nil {
		return failedTo("connect", err)
	}
	defer context.AfterFunc(ctx, func() { _ = file.SetWriteDeadline(past) })()
	raw, err := file.SyscallConn()
	if err != nil {
		return failedTo("connect", err)
	}
	var result error
	err = raw.Write(func(fd uintptr) bool {
		result = unix.Connect(int(fd), p.address)
		if errors.Is(result, unix.EALREADY) {
			return false
		}
		result = p.reset(int(fd), result)
		return true
	})
	if err == nil {
		err = result
	}
	if err != nil {
		return failedTo("connect", err)
	}
	return outcome{}
}
