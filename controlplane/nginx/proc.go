package nginx

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// tick is the unit of process start times: the kernel shows them to user space in 1/100 s (USER_HZ) on all architectures
// that Go knows.
const tick = 10 * time.Millisecond

// process is one process, told from a later one with the same pid by its start time.
type process struct {
	pid   int
	start uint64 // ticks after boot
}

// stat is what /proc/PID/stat says.
type stat struct {
	process
	state  byte
	parent int
}

func readStat(pid int) (stat, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return stat{}, err
	}
	// The name, in parentheses, may hold anything; what follows the last one does not.
	_, rest, found := bytes.Cut(text[max(bytes.LastIndexByte(text, ')'), 0):], []byte(") "))
	fields := strings.Fields(string(rest))
	if !found || len(fields) < 20 {
		return stat{}, fmt.Errorf("/proc/%d/stat: cannot be understood: %q", pid, text)
	}
	s := stat{process: process{pid: pid}, state: fields[0][0]}
	if s.parent, err = strconv.Atoi(fields[1]); err != nil {
		return stat{}, fmt.Errorf("/proc/%d/stat: parent: %w", pid, err)
	}
	if s.start, err = strconv.ParseUint(fields[19], 10, 64); err != nil {
		return stat{}, fmt.Errorf("/proc/%d/stat: start time: %w", pid, err)
	}
	return s, nil
}

// lives says whether the process can still run: a zombie cannot.
func (s stat) lives() bool { return s.state != 'Z' && s.state != 'X' }

// alive says whether p is still there, and no other process in its place.
func (p process) alive() bool {
	s, err := readStat(p.pid)
	return err == nil && s.process == p && s.lives()
}

// age returns the time since the process started.
func (p process) age() time.Duration { return time.Duration(ticks()-p.start) * tick }

// since returns the start of the process as wall-clock time.
func (p process) since() time.Time { return time.Now().Add(-p.age()) }

// signal sends sig to p, and to no other process that came to its pid.
func (p process) signal(sig os.Signal) error {
	handle, err := os.FindProcess(p.pid) // a pidfd: from here on it is one process
	if err != nil {
		return err
	}
	defer func() { _ = handle.Release() }()
	if !p.alive() {
		return os.ErrProcessDone
	}
	err = handle.Signal(sig)
	if errors.Is(err, unix.EPERM) {
		return &NotVisibleError{fmt.Sprintf("nginx's process %d belongs to another user and cannot be signalled: "+
			"run sluice as that user or as root, or give it CAP_KILL", p.pid)}
	}
	return err
}

// ticks returns the time since boot in ticks, on the clock of process start times.
func ticks() uint64 {
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &now); err != nil {
		return 0 // the clock is there since Linux 2.6.39
	}
	return uint64(time.Duration(now.Nano()) / tick)
}

// title returns the command line of a process: nginx writes there what the process is.
func title(pid int) string {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	if err != nil {
		return ""
	}
	return strings.TrimSpace(strings.ReplaceAll(string(text), "\x00", " "))
}

const (
	masterTitle   = "nginx: master process"
	workerTitle   = "nginx: worker process"
	shutdownTitle = "nginx: worker process is shutting down"
)

// worker is a worker process of nginx.
type worker struct {
	process
	leaving bool // it accepts no more
}

// readWorker returns the worker with that pid; ok is false when it is none, or gone.
func readWorker(pid int) (w worker, ok bool) {
	s, err := readStat(pid)
	if err != nil || !s.lives() {
		return worker{}, false
	}
	text := title(pid)
	return worker{s.process, strings.HasPrefix(text, shutdownTitle)}, strings.HasPrefix(text, workerTitle)
}

// accepts says whether the worker still takes connections. A worker writes that it is shutting down into its title before
// it closes its listeners, in one go: it accepts nothing in between.
func (w worker) accepts() bool {
	now, ok := readWorker(w.pid)
	return ok && now.process == w.process && !now.leaving
}

// workersOf returns all workers of a master.
func workersOf(master process) []worker {
	var found []worker
	for _, pid := range children(master.pid) {
		if w, ok := readWorker(pid); ok {
			found = append(found, w)
		}
	}
	return found
}

// children returns the pids of the children of a process.
func children(pid int) []int {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", pid, pid))
	if err != nil {
		return childrenByParent(pid)
	}
	var pids []int
	for field := range strings.FieldsSeq(string(text)) {
		if child, err := strconv.Atoi(field); err == nil {
			pids = append(pids, child)
		}
	}
	return pids
}

// childrenByParent is for kernels that were built without the list of children.
func childrenByParent(pid int) []int {
	var pids []int
	for _, other := range processes() {
		if s, err := readStat(other); err == nil && s.parent == pid {
			pids = append(pids, other)
		}
	}
	return pids
}

// processes returns all pids, ascending.
func processes() []int {
	dir, err := os.Open("/proc")
	if err != nil {
		return nil
	}
	defer dir.Close()
	names, _ := dir.Readdirnames(-1)
	var pids []int
	for _, name := range names {
		if pid, err := strconv.Atoi(name); err == nil {
			pids = append(pids, pid)
		}
	}
	return pids
}

// openFiles returns the inodes of the sockets of a process, and shows file every other target of its descriptors.
func openFiles(pid int, file func(target string)) []uint64 {
	path := fmt.Sprintf("/proc/%d/fd", pid)
	dir, err := os.Open(path)
	if err != nil {
		return nil
	}
	defer dir.Close()
	names, _ := dir.Readdirnames(-1)
	var inodes []uint64
	buffer := make([]byte, unix.PathMax)
	for _, name := range names {
		n, err := unix.Readlinkat(int(dir.Fd()), name, buffer)
		if err != nil {
			continue // closed in between
		}
		target := buffer[:n]
		if digits, ok := bytes.CutPrefix(target, []byte("socket:[")); ok {
			if inode, err := strconv.ParseUint(string(bytes.TrimSuffix(digits, []byte("]"))), 10, 64); err == nil {
				inodes = append(inodes, inode)
			}
		} else if file != nil {
			file(string(target))
		}
	}
	return inodes
}

// memory returns the resident bytes of a process.
func memory(pid int) int64 {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", pid))
	if err != nil {
		return 0
	}
	fields := strings.Fields(string(text))
	if len(fields) < 2 {
		return 0
	}
	pages, _ := strconv.ParseInt(fields[1], 10, 64)
	return pages * int64(os.Getpagesize())
}

// checkProc makes sure that /proc is there and is that of our own pid namespace.
func checkProc() error {
	self, err := os.Readlink("/proc/self")
	if err != nil {
		return &NotVisibleError{fmt.Sprintf("/proc is not mounted (%v): nginx's processes are found there; mount it: mount -t proc proc /proc", err)}
	}
	if self != strconv.Itoa(os.Getpid()) {
		return &NotVisibleError{fmt.Sprintf("/proc belongs to another pid namespace (it calls this process %s, which is %d): "+
			"mount a /proc of this one", self, os.Getpid())}
	}
	return nil
}

// checkVisible makes sure that a process which exists can be looked at: /proc may be mounted so that it hides others'.
func checkVisible(pid int) error {
	if _, err := os.Stat(fmt.Sprintf("/proc/%d", pid)); err == nil {
		return nil
	}
	if err := unix.Kill(pid, 0); err == nil || errors.Is(err, unix.EPERM) {
		return &NotVisibleError{fmt.Sprintf("process %d exists and /proc hides it: /proc is mounted with hidepid; "+
			"mount it with hidepid=0, or give sluice the group of its gid= option", pid)}
	}
	return nil
}

// sameNamespace makes sure that the process is in our pid and network namespaces and sees our state directory.
func sameNamespace(pid int, dir string) error {
	for _, kind := range []string{"pid", "net"} {
		ours, err := os.Readlink("/proc/self/ns/" + kind)
		if err != nil {
			return fmt.Errorf("read our own %s namespace: %w", kind, err)
		}
		theirs, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/%s", pid, kind))
		if err != nil {
			if !exists(pid) {
				return nil // it ended in between
			}
			return &NotVisibleError{fmt.Sprintf("nginx's process %d cannot be looked into (%v): run sluice as the same user or "+
				"as root, or give it CAP_SYS_PTRACE", pid, err)}
		}
		if ours != theirs {
			return &NotVisibleError{fmt.Sprintf("nginx's process %d is in another %s namespace: run sluice in the same container "+
				"or pod sandbox as nginx, with a shared %s namespace", pid, kind, kind)}
		}
	}
	ours, err := os.Stat(dir)
	if err != nil {
		return fmt.Errorf("look at the state directory: %w", err)
	}
	theirs, err := os.Stat(filepath.Join(fmt.Sprintf("/proc/%d/root", pid), dir))
	if err != nil || !os.SameFile(ours, theirs) {
		return &NotVisibleError{fmt.Sprintf("nginx's process %d does not see our %s at that path: share the directory with it, "+
			"under the same name", pid, dir)}
	}
	return nil
}

func exists(pid int) bool {
	_, err := readStat(pid)
	return err == nil
}
