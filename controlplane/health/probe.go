package health

import (
	"context"
	"errors"
	"io/fs"
	"net"
	"os"
	"strings"
	"syscall"
	"time"

	"sluice/controlplane/spec"
)

// prober makes one check of one target; it is not called again before it is back. It reports a failure only when the
// node is at fault, and is back soon after the deadline or the end of ctx.
type prober interface {
	probe(ctx context.Context, deadline time.Time) outcome
}

// past is the deadline that ends what waits.
var past = time.Unix(1, 0)

// newProber returns what checks t.
func newProber(t Target) prober {
	network, address := "tcp", t.Node.HostPort()
	if path, ok := strings.CutPrefix(address, "unix:"); ok {
		network, address = "unix", path
	}
	switch t.Check.Type {
	case spec.CheckHTTP:
		return newHTTP(t, network, address)
	case spec.CheckEngineIO:
		return &engineIO{http: newHTTP(t, network, address)}
	default:
		return newTCP(network, address)
	}
}

// own are the errors for which this machine is at fault: without descriptors, ports or memory, or without the right to
// connect, nothing is known of the node.
var own = []error{
	syscall.EMFILE, syscall.ENFILE, syscall.ENOBUFS, syscall.ENOMEM, syscall.EADDRNOTAVAIL, syscall.EACCES, syscall.EPERM,
}

// failedTo is the outcome of a check in which doing something gave err.
func failedTo(do string, err error) outcome {
	o := failure("%s: %s", do, plain(err))
	for _, e := range own {
		o.untold = o.untold || errors.Is(err, e)
	}
	o.timedOut = isTimeout(err)
	o.refused = errors.Is(err, syscall.ECONNREFUSED) || errors.Is(err, fs.ErrNotExist)
	return o
}

func isTimeout(err error) bool {
	e, ok := errors.AsType[net.Error](err)
	return ok && e.Timeout() || errors.Is(err, os.ErrDeadlineExceeded) || errors.Is(err, context.DeadlineExceeded)
}

// plain leaves the addresses out, which are those of the node.
func plain(err error) string {
	if isTimeout(err) {
		return "no answer in time"
	}
	if e, ok := errors.AsType[syscall.Errno](err); ok {
		return e.Error()
	}
	if e, ok := errors.AsType[*net.OpError](err); ok {
		return e.Err.Error()
	}
	return err.Error()
}
