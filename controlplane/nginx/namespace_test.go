package nginx

import (
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"syscall"
	"testing"
)

// inNamespace runs a line of shell as the first process of a pid namespace, until the test ends.
func inNamespace(t *testing.T, line string) { t.Helper(); spawn(t, syscall.CLONE_NEWPID, line) }

// inNetNamespace runs a line of shell in a network namespace, until the test ends, and returns its pid.
func inNetNamespace(t *testing.T, line string) int {
	t.Helper()
	return spawn(t, syscall.CLONE_NEWNET, line)
}

func spawn(t *testing.T, flags uintptr, line string) int {
	t.Helper()
	cmd := exec.Command("/bin/sh", "-c", line)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: flags}
	if err := cmd.Start(); err != nil {
		t.Fatalf("run in a namespace: %v", err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	return cmd.Process.Pid
}

// hiddenEnv holds the pid that TestHiddenHelper looks at.
const hiddenEnv = "NGINX_TEST_HIDDEN_PID"

// unprivileged runs a test of this binary as nobody, where /proc is mounted with options: hidepid=2 hides the processes of others.
func unprivileged(t *testing.T, test, options, pid string) string {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	line := fmt.Sprintf(`cp %s /dev/shm/$$ && mount --make-rprivate / && mount -t proc -o %s proc /proc && chmod 755 /dev/shm/$$ && `+
		`trap 'rm -f /dev/shm/'$$ EXIT && setpriv --reuid=65534 --regid=65534 --clear-groups /dev/shm/$$ -test.run '^%s$' -test.v`, self, options, test)
	cmd := exec.Command("/bin/sh", "-c", line)
	cmd.Env = append(os.Environ(), hiddenEnv+"="+pid)
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS}
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("run %s as nobody: %v\n%s", test, err, out)
	}
	return string(out)
}

// TestHiddenHelper is what TestHidepid runs as another user.
func TestHiddenHelper(t *testing.T) {
	pid, err := strconv.Atoi(os.Getenv(hiddenEnv))
	if err != nil {
		t.Skip("only for TestHidepid")
	}
	fmt.Println(checkVisible(pid))
}
