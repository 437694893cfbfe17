package etcd

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
)

// maxSocketPath is what Linux takes for the path of a unix socket.
const maxSocketPath = 107

// privateDir makes dir and returns its absolute path. It must be ours alone.
func privateDir(dir string) (string, error) {
	if dir == "" {
		return "", errors.New("no directory is named")
	}
	dir, err := filepath.Abs(dir)
	if err != nil {
		return "", err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", err
	}
	info, err := os.Lstat(dir)
	if err != nil {
		return "", err
	}
	if st, ok := info.Sys().(*syscall.Stat_t); !info.IsDir() || ok && int(st.Uid) != os.Geteuid() {
		return "", fmt.Errorf("%s is not a directory of user %d: choose another one", dir, os.Geteuid())
	}
	return dir, os.Chmod(dir, 0o700)
}

// lockDir keeps two processes out of one directory: the second would take the first one's sockets away. The lock goes
// with the process.
func lockDir(dir string) (*os.File, error) {
	f, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		_ = f.Close()
		return nil, fmt.Errorf("%s is locked: another sluice uses it; stop it, or choose another directory", f.Name())
	}
	return f, nil
}

// socketDir is where the sockets are: dir, or, where their paths would be too long for the kernel, a private directory
// below the one for temporary files, whose name is always the same for dir.
func socketDir(dir string) (string, error) {
	if len(filepath.Join(dir, "client.sock")) <= maxSocketPath {
		return dir, nil
	}
	sum := sha256.Sum256([]byte(dir))
	return privateDir(filepath.Join(os.TempDir(), "sluice-"+strconv.Itoa(os.Geteuid())+"-"+hex.EncodeToString(sum[:5])))
}

// localURL checks that nobody outside this machine can reach what listens there.
func localURL(s string) (url.URL, error) {
	u, err := url.Parse(s)
	if err != nil {
		return url.URL{}, fmt.Errorf("client URL: %w", err)
	}
	switch {
	case u.Scheme == "unix" && u.Host == "" && filepath.IsAbs(u.Path) && len(u.Path) <= maxSocketPath:
	case u.Scheme == "http" && isLoopback(u.Hostname()) && u.Hostname() != "localhost" && u.Port() != "":
	default:
		return url.URL{}, fmt.Errorf("client URL %q: use unix:///path (at most %d bytes) or http://127.0.0.1:port; an etcd for "+
			"other machines is one of its own", s, maxSocketPath)
	}
	return *u, nil
}
