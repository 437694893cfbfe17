package nginx

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// findMaster returns the master of our nginx, the zero process when there is none.
func (d *Driver) findMaster() (process, error) {
	if pid := readPID(d.o.PIDFile); pid > 0 {
		if err := checkVisible(pid); err != nil {
			return process{}, err
		}
		if m, ok := d.isMaster(pid); ok {
			return m, nil
		}
	}
	if d.o.Attach || d.o.Mode == Include {
		return process{}, nil
	}
	// Somebody may have removed the pid file, or it was written in another pid namespace. A worker that was forked this
	// moment has its master's title still, even when the master is dead by now: but it has no children.
	var found process
	for _, pid := range processes() {
		if m, ok := d.isMaster(pid); ok && len(children(pid)) > 0 && (found == process{} || m.start < found.start) {
			found = m
		}
	}
	return found, nil
}

// isMaster says whether the process is a master that reads our configuration.
func (d *Driver) isMaster(pid int) (process, bool) {
	text := title(pid)
	if !strings.HasPrefix(text, masterTitle) {
		return process{}, false
	}
	// In all other cases the command line is the operator's own.
	if d.o.Mode == Full && !d.o.Attach && !strings.Contains(text+" ", " "+d.conf()+" ") {
		return process{}, false
	}
	s, err := readStat(pid)
	return s.process, err == nil && s.lives()
}

// conf returns the file that nginx is started with.
func (d *Driver) conf() string {
	if d.o.Mode == Include {
		return d.o.NginxConf
	}
	return filepath.Join(d.Base(), "nginx.conf")
}

// readPID returns the pid in a pid file, zero when there is none: nginx -t leaves an empty one.
func readPID(path string) int {
	text, err := os.ReadFile(path)
	if err != nil {
		return 0
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil {
		return 0
	}
	return pid
}

// look finds the master, and makes sure that we see all of it.
func (d *Driver) look(ctx context.Context) error {
	m, err := d.findMaster()
	if err != nil {
		return err
	}
	if m != (process{}) {
		if err := sameNamespace(m.pid, d.o.Dir); err != nil {
			return err
		}
	} else if owner, err := d.control.owner(ctx); err == nil {
		// Orphaned workers answer, or an nginx that is not where we look.
		if owner == 0 {
			return &NotVisibleError{fmt.Sprintf("nginx answers on %s and its processes are in another pid namespace: "+
				"run sluice in nginx's own, or let both share one", d.control.path)}
		}
		if _, err := readStat(owner); err == nil && strings.HasPrefix(title(owner), "nginx: ") {
			if err := sameNamespace(owner, d.o.Dir); err != nil {
				return err
			}
		}
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.master = m
	d.state.notice(d.workers(m))
	return nil
}

// upgrading returns the old master while a binary upgrade (USR2) is under way: its workers accept beside the new ones'.
func (d *Driver) upgrading() process {
	if pid := readPID(d.o.PIDFile + ".oldbin"); pid > 0 {
		if m, ok := d.isMaster(pid); ok {
			return m
		}
	}
	return process{}
}

// accepting returns the master's workers that take connections.
func accepting(master process) []worker {
	return slices.DeleteFunc(workersOf(master), func(w worker) bool { return w.leaving })
}

// launch starts nginx on what current leads to, and returns when id is proven live. nginx gets a session of its own and
// nothing of ours, so that it outlives this process.
func (d *Driver) launch(ctx context.Context, id string) error {
	if err := d.control.removeStale(ctx); err != nil {
		return &RefusedError{Stage: StageStart, Err: err}
	}
	output := filepath.Join(d.o.Dir, "logs", "start.log")
	out, err := os.Create(output)
	if err != nil {
		return &RefusedError{Stage: StageStart, Err: fmt.Errorf("open %s: %w", output, err)}
	}
	defer out.Close()
	tail := openTail(filepath.Join(d.o.Dir, "logs", "error.log"))
	defer tail.close()
	d.note(id, ticks())
	startCtx, cancel := context.WithTimeoutCause(ctx, d.o.ProveTimeout, errTimeout{"nginx's start (is there a `daemon off`?)", d.o.ProveTimeout})
	defer cancel()
	args := []string{"-c", d.conf()}
	if d.o.Mode == Full {
		args = append([]string{"-p", d.o.Dir}, args...)
	}
	if err := start(startCtx, out, d.o.Binary, args...); err != nil {
		refused := &RefusedError{Stage: StageStart, Output: words(severe(output), filepath.Join(d.o.Dir, "conf", id), d.Base())}
		if exit := (*exitError)(nil); refused.Output == "" || !errors.As(err, &exit) {
			refused.Err = err
		}
		return refused
	}
	// nginx's first process has ended, and the master writes its pid file in a moment.
	if err := poll(startCtx, time.Millisecond, func() (bool, error) {
		m, err := d.findMaster()
		if err != nil || m == (process{}) {
			return false, err
		}
		d.setMaster(m)
		return true, nil
	}); err != nil {
		return &RefusedError{Stage: StageStart, Output: words(severe(output)), Err: fmt.Errorf("find nginx's master: %w", err)}
	}
	return d.prove(ctx, id, nil, tail)
}

// severe returns the lines of a file in which nginx tells of failures.
func severe(path string) []logLine {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil
	}
	var lines []logLine
	for line := range strings.Lines(string(text)) {
		if l, ok := parseLine(strings.TrimSuffix(line, "\n")); ok && l.severe() {
			lines = append(lines, l)
		}
	}
	return lines
}

// stop ends nginx: it may finish what is open, for a while.
func (d *Driver) stop(ctx context.Context) error {
	d.mu.Lock()
	targets := []process{d.master}
	for _, w := range d.workers(process{}) { // orphans of a master before
		targets = append(targets, w.process)
	}
	d.mu.Unlock()
	gone := func() (bool, error) {
		for _, p := range targets {
			if p.alive() {
				return false, nil
			}
		}
		return true, nil
	}
	for _, step := range []struct {
		signal syscall.Signal
		grace  time.Duration
	}{{syscall.SIGQUIT, d.o.QuitGrace}, {syscall.SIGTERM, 5 * time.Second}} {
		for _, p := range targets {
			if err := p.signal(step.signal); err != nil && !errors.Is(err, os.ErrProcessDone) {
				return fmt.Errorf("stop nginx: %w", err)
			}
		}
		grace, cancel := context.WithTimeout(ctx, step.grace)
		err := poll(grace, 10*time.Millisecond, gone)
		cancel()
		if err == nil {
			return nil
		}
		ctx = context.WithoutCancel(ctx) // TERM ends it at once, whoever is waiting
	}
	return fmt.Errorf("stop nginx: it is still there after TERM, pid %d", d.master.pid)
}
