package nginx

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// lockDir takes the state directory for this process. The kernel gives the lock back when the process ends, however it
// does.
func lockDir(dir string) (*os.File, error) {
	f, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock the state directory: %w", err)
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		defer f.Close()
		if !errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, fmt.Errorf("lock the state directory %s: %w", dir, err)
		}
		holder := "another process"
		if text, err := io.ReadAll(io.LimitReader(f, 32)); err == nil {
			if pid, err := strconv.Atoi(strings.TrimSpace(string(text))); err == nil {
				holder = fmt.Sprintf("process %d (%s)", pid, title(pid))
			}
		}
		return nil, fmt.Errorf("the state directory %s is in use by %s: stop it, or give this one a directory of its own", dir, holder)
	}
	// Only for the message above: when it cannot be written, the lock holds all the same.
	if err := f.Truncate(0); err == nil {
		_, _ = f.WriteAt([]byte(strconv.Itoa(os.Getpid())+"\n"), 0)
	}
	return f, nil
}

// unlockDir gives the lock back even while a child that is being started still has the descriptor.
func unlockDir(f *os.File) error {
	return errors.Join(syscall.Flock(int(f.Fd()), syscall.LOCK_UN), f.Close())
}

// makeDirs makes what is below the state directory. nginx's workers, which may be another user, get through to temp.
func (d *Driver) makeDirs() error {
	for _, dir := range []struct {
		name string
		mode os.FileMode
	}{
		{".", 0o711},
		{"conf", 0o700},
		{"run", 0o700},
		{"logs", 0o755},
		{"temp", 0o711},
	} {
		if err := os.MkdirAll(filepath.Join(d.o.Dir, dir.name), dir.mode); err != nil {
			return fmt.Errorf("make the state directory: %w", err)
		}
	}
	return nil
}
