package health_test

import (
	"bufio"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"sluice/controlplane/health"
)

const listenerEnv = "SLUICE_HEALTH_LISTENER"

// listenForBenchmark is the other side of the checks, in a process of its own, whose time is not measured.
func listenForBenchmark() {
	l, err := net.Listen("tcp4", "0.0.0.0:0")
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(l.Addr().(*net.TCPAddr).Port)
	for {
		if conn, err := l.Accept(); err == nil {
			conn.Close()
		}
	}
}

// BenchmarkTCP10000 checks 10,000 nodes at the default interval of 5 s, for 20 s, and prints the share of one core that this takes.
func BenchmarkTCP10000(b *testing.B) {
	const nodes, period = 10_000, 20 * time.Second
	cmd := exec.CommandContext(b.Context(), os.Args[0])
	cmd.Env = append(os.Environ(), listenerEnv+"=1")
	out, err := cmd.StdoutPipe()
	if err != nil {
		b.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	defer func() { _ = errors.Join(cmd.Process.Kill(), cmd.Wait()) }()
	line, _ := bufio.NewReader(out).ReadString('\n')
	port, err := strconv.Atoi(strings.TrimSpace(line))
	if err != nil {
		b.Fatal(err)
	}
	list := make([]health.Target, nodes)
	for i := range list {
		list[i] = target(b, fmt.Sprintf("n%05d", i), "")
		list[i].Node.Address, list[i].Node.Port = fmt.Sprintf("127.1.%d.%d", i/250, 1+i%250), port
	}
	c := health.New(health.Options{Log: slog.New(slog.DiscardHandler)})
	defer run(b, c)()
	c.Set(list)
	wait(b, c, 10*time.Second)
	for b.Loop() {
		before := usage(b)
		wait(b, c, period)
		after := usage(b)
		share := func(a, b syscall.Timeval) float64 {
			return 100 * float64(b.Nano()-a.Nano()) / float64(period)
		}
		b.ReportMetric(share(before.Utime, after.Utime), "%core-user")
		b.ReportMetric(share(before.Stime, after.Stime), "%core-system")
	}
	for k, v := range c.Verdicts() {
		if v.State != health.Healthy || time.Since(v.Last) > 10*time.Second {
			b.Fatalf("%s: %+v", k.ID, v)
		}
	}
}

// wait lets c work for d, with somebody who looks at each change.
func wait(b *testing.B, c *health.Checker, d time.Duration) {
	b.Helper()
	end := time.After(d)
	for {
		select {
		case <-end:
			return
		case <-c.Changed():
			c.Verdicts()
		}
	}
}

func usage(b *testing.B) syscall.Rusage {
	b.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return u
}

// BenchmarkSet10000 sets 10,000 targets of which one changed, as each change of the registry does.
func BenchmarkSet10000(b *testing.B) {
	list := make([]health.Target, 10_000)
	for i := range list {
		list[i] = target(b, fmt.Sprintf("n%05d", i), "")
	}
	c := health.New(health.Options{Log: slog.New(slog.DiscardHandler)})
	c.Set(list)
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		list[5000].Node.Weight = i
		c.Set(list)
	}
}

// BenchmarkVerdicts10000 asks for all verdicts when one has just changed.
func BenchmarkVerdicts10000(b *testing.B) {
	list := make([]health.Target, 10_000)
	for i := range list {
		list[i] = target(b, fmt.Sprintf("n%05d", i), "")
	}
	c := health.New(health.Options{Log: slog.New(slog.DiscardHandler)})
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		list[5000].Node.Incarnation = strconv.Itoa(i)
		c.Set(list)
		c.Verdicts()
	}
}
