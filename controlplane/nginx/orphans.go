package nginx

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// orphans returns the workers that a dead master of ours left: they serve on, and hold the ports.
func (d *Driver) orphans() ([]worker, error) {
	dir, err := filepath.EvalSymlinks(d.o.Dir)
	if err != nil {
		return nil, fmt.Errorf("resolve the state directory: %w", err)
	}
	listeners, err := unixListeners(d.control.path)
	if err != nil {
		return nil, err
	}
	var found []worker
	for _, pid := range processes() {
		w, ok := readWorker(pid)
		if !ok {
			continue
		}
		if s, err := readStat(pid); err != nil || strings.HasPrefix(title(s.parent), masterTitle) {
			continue
		}
		// Ours have our log open. In mode Include the log is the operator's, and those that accept hold our socket.
		ours := false
		for _, inode := range openFiles(pid, func(target string) { ours = ours || strings.HasPrefix(target, dir+"/") }) {
			ours = ours || listeners[inode]
		}
		if ours {
			found = append(found, w)
		}
	}
	return found, nil
}

// unixListeners returns the inodes of the listeners on a unix socket's path. There may be several when the file was
// removed in between.
func unixListeners(path string) (map[uint64]bool, error) {
	file, err := os.Open("/proc/net/unix")
	if err != nil {
		return nil, fmt.Errorf("list unix sockets: %w", err)
	}
	defer file.Close()
	inodes := map[uint64]bool{}
	for lines := bufio.NewScanner(file); lines.Scan(); {
		// Num RefCount Protocol Flags Type St Inode Path
		fields := strings.Fields(lines.Text())
		if len(fields) != 8 || fields[7] != path {
			continue
		}
		if inode, err := strconv.ParseUint(fields[6], 10, 64); err == nil {
			inodes[inode] = true
		}
	}
	return inodes, nil
}

// orphansTimeout is for the orphans to close their listeners, which a worker does as soon as it gets to it.
const orphansTimeout = 5 * time.Second

// quitOrphans tells the workers that a dead master left to accept no more: a new master finds the ports free. They serve
// their open connections to the end.
func (d *Driver) quitOrphans(ctx context.Context) error {
	found, err := d.orphans()
	if err != nil || len(found) == 0 {
		return err
	}
	d.log.Warn("nginx's master is gone and left workers: they keep their open connections, a new master takes the ports", "workers", pids(found))
	d.mu.Lock()
	known := map[process]bool{}
	for _, o := range d.state.Orphans {
		known[process{o.PID, o.Start}] = true
	}
	for _, w := range found {
		if !known[w.process] {
			d.state.Orphans = append(d.state.Orphans, orphan{w.pid, w.start})
		}
	}
	d.mu.Unlock()
	for _, w := range found {
		if w.leaving {
			continue
		}
		if err := w.signal(syscall.SIGQUIT); err != nil && !errors.Is(err, os.ErrProcessDone) {
			return fmt.Errorf("end the orphaned worker %d: %w", w.pid, err)
		}
	}
	ctx, cancel := context.WithTimeoutCause(ctx, orphansTimeout, errTimeout{fmt.Sprintf("the shutdown of the orphaned workers %v", pids(found)), orphansTimeout})
	defer cancel()
	return poll(ctx, time.Millisecond, func() (bool, error) {
		for _, w := range found {
			if w.accepts() {
				return false, nil
			}
		}
		return true, nil
	})
}
