package nginx

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// errTimeout is the cause of a context of ours that ran out.
type errTimeout struct {
	what string
	in   time.Duration
}

func (e errTimeout) Error() string {
	return fmt.Sprintf("%s did not come to an end in %s", e.what, e.in)
}

// test runs nginx -t on what is staged. A warning that was not there before counts: nginx warns of a balancing method in
// the wrong place, or of a name that two sites have, and then does not do what was meant.
func (d *Driver) test(ctx context.Context, s staged) error {
	ctx, cancel := context.WithTimeoutCause(ctx, d.o.TestTimeout, errTimeout{"nginx -t", d.o.TestTimeout})
	defer cancel()
	var lines []logLine
	var err error
	if d.o.Mode == Include {
		lines, err = d.testInclude(ctx, s)
	} else {
		lines, err = d.testFile(ctx, filepath.Join(s.dir, "nginx.conf"))
	}
	refused := &RefusedError{Stage: StageTest, Output: words(lines, s.dir)}
	var exit *exitError
	switch {
	case ctx.Err() != nil:
		refused.Err = context.Cause(ctx)
	case errors.As(err, &exit) && len(lines) > 0:
		// nginx's own words say it all
	case err != nil:
		refused.Err = err
	case len(lines) > 0:
		refused.Err = errors.New("a warning counts as an error")
	default:
		return nil
	}
	return refused
}

// testFile runs nginx -t on a file and returns its warnings and errors.
func (d *Driver) testFile(ctx context.Context, conf string) ([]logLine, error) {
	args := append([]string{"-t", "-q"}, d.prefix()...)
	out, err := run(ctx, "", d.program(), append(args, "-c", conf)...)
	var lines []logLine
	for line := range strings.Lines(out) {
		if l, ok := parseLine(strings.TrimSuffix(line, "\n")); ok && (l.level == "warn" || err != nil && l.severe()) {
			lines = append(lines, l)
		}
	}
	if err != nil && len(lines) == 0 && strings.TrimSpace(out) != "" {
		err = fmt.Errorf("%w: %s", err, strings.TrimSpace(out))
	}
	return lines, err
}

// prefix returns the arguments that name nginx's prefix: ours, or the one that the operator gave his master.
func (d *Driver) prefix() []string {
	if d.o.Mode == Full {
		return []string{"-p", d.o.Dir}
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	args := strings.Fields(title(d.master.pid))
	if i := slices.Index(args, "-p"); i >= 0 && i+1 < len(args) {
		return args[i : i+2]
	}
	return nil
}

// program returns the program to test with: the one that runs, which may be no longer the one on the disk.
func (d *Driver) program() string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.programOf(d.master)
}

func (d *Driver) programOf(master process) string {
	if d.replaced(master) != "" {
		return exePath(master)
	}
	return d.o.Binary
}

func exePath(p process) string { return fmt.Sprintf("/proc/%d/exe", p.pid) }

// replaced says that the master runs another program than the one on the disk, and what to do; empty when it does not.
// It leaves wrapper scripts alone: what they run cannot be seen.
func (d *Driver) replaced(master process) string {
	if master == (process{}) {
		return ""
	}
	running, err := os.Readlink(exePath(master))
	if err != nil {
		return ""
	}
	const mend = "; upgrade with signal USR2 to the master, or restart nginx, when its sockets may close"
	if path, gone := strings.CutSuffix(running, " (deleted)"); gone {
		return fmt.Sprintf("nginx runs a program that was replaced on the disk (%s): what is tested and reloaded is the old one%s", path, mend)
	}
	if script(d.o.Binary) || sameFile(running, d.o.Binary) {
		return ""
	}
	return fmt.Sprintf("nginx runs %s, not %s%s", running, d.o.Binary, mend)
}

func script(path string) bool {
	f, err := os.Open(path)
	if err != nil {
		return false
	}
	defer f.Close()
	var magic [2]byte
	_, err = f.Read(magic[:])
	return err == nil && string(magic[:]) == "#!"
}

func sameFile(a, b string) bool {
	first, err := os.Stat(a)
	if err != nil {
		return false
	}
	second, err := os.Stat(b)
	return err == nil && os.SameFile(first, second)
}
