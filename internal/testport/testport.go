// Package testport finds ports for servers in tests. Ports from 32768 up are the kernel's for outgoing connections, so
// that a server on a port there now and then meets "address already in use" although nobody listens. The ports of this
// package are below that, and claimed across processes for as long as the test runs.
package testport

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"strconv"
	"syscall"
	"testing"
)

// The range is clear of well-known ports and below Linux's default ip_local_port_range.
const (
	low  = 10240
	high = 32767
)

// Free returns a TCP port that nobody listens on, on any address, and that no other test gets until tb ends.
func Free(tb testing.TB) int {
	tb.Helper()
	for range 1000 {
		port := low + rand.IntN(high-low+1)
		// The claim is an abstract unix socket: it is gone when the process is, and leaves no file.
		claim, err := net.Listen("unix", fmt.Sprintf("@sluice-testport-%d", port))
		if errors.Is(err, syscall.EADDRINUSE) {
			continue
		}
		if err != nil {
			tb.Fatalf("claim port %d: %v", port, err)
		}
		probe, err := net.Listen("tcp", ":"+strconv.Itoa(port))
		if err != nil {
			_ = claim.Close()
			continue
		}
		_ = probe.Close()
		tb.Cleanup(func() { _ = claim.Close() })
		return port
	}
	tb.Fatalf("no free port between %d and %d", low, high)
	return 0
}
