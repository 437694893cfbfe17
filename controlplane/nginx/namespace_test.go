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

// These tell this binary to look at a process instead of running tests: what it does, and the pid.
const (
	lookEnv   = "NGINX_TEST_LOOK"
	lookAtEnv = "NGINX_TEST_LOOK_AT"
)

// looks are what unprivileged can run.
var looks = map[string]func(pid int){
	"process": func(pid int) { fmt.Println(checkVisible(pid)) },
	"sockets": func(pid int) {
		m := measure(process{}, []Generation{{Workers: []Worker{{PID: pid}}}})
		fmt.Println(m.noTCP, m.servers)
	},
}

// unprivileged has nobody look at a process, where /proc is mounted with options: hidepid=2 hides the processes of others.
func unprivileged(t *testing.T, look, options string, pid int) string {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	line := fmt.Sprintf(`cp %s /dev/shm/$$ && mount --make-rprivate / && mount -t proc -o %s proc /proc && chmod 755 /dev/shm/$$ && `+
		`trap 'rm -f /dev/shm/'$$ EXIT && setpriv --reuid=65534 --regid=65534 --clear-groups /dev/shm/$$`, self, options)
	cmd := exec.Command("/bin/sh", "-c", line)
	cmd.Env = append(os.Environ(), lookEnv+"="+look, lookAtEnv+"="+strconv.Itoa(pid))
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS}
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("look at a %s as nobody: %v\n%s", look, err, out)
	}
	return string(out)
}
