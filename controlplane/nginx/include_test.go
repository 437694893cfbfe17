package nginx

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"sluice/internal/testport"
	"sluice/templates"
)

// operator is a nginx that is somebody else's, with warnings of its own.
type operator struct {
	dir, conf, pid string
	port           int
}

// newOperator returns Options to keep a part of an operator's nginx.
func newOperator(t *testing.T) (operator, Options) {
	t.Helper()
	o, dir := options(t), t.TempDir()
	op := operator{dir: dir, conf: filepath.Join(dir, "nginx.conf"), pid: filepath.Join(dir, "nginx.pid"), port: testport.Free(t)}
	o.Mode, o.NginxConf, o.Attach = Include, op.conf, true
	op.write(t, "include "+o.Dir+"/current/http.conf;")
	relative := fmt.Sprintf("server { listen 127.0.0.1:%d; server_name a; return 200 own; }\n", op.port)
	if err := os.WriteFile(filepath.Join(dir, "own.conf"), []byte(relative+relative), 0o644); err != nil { // a conflicting name: a warning
		t.Fatal(err)
	}
	return op, o
}

func (op operator) write(t *testing.T, line string) {
	t.Helper()
	text := fmt.Sprintf("pid %s;\nerror_log %s/error.log;\nevents {}\nhttp {\n  access_log off; # { not a block ; \n  include own.conf;\n  %s\n}\n", op.pid, op.dir, line)
	if err := os.WriteFile(op.conf, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

// start starts the operator's nginx, as a service of the system would be.
func (op operator) start(t *testing.T, args ...string) {
	t.Helper()
	if out, err := exec.Command("nginx", append([]string{"-c", op.conf}, args...)...).CombinedOutput(); err != nil {
		t.Fatalf("start nginx: %v: %s", err, out)
	}
	t.Cleanup(func() {
		within(t, 10*time.Second, "the operator's nginx is gone", func() bool {
			pid := readPID(op.pid)
			s, err := readStat(pid)
			if err != nil || !strings.HasPrefix(title(pid), masterTitle) {
				return true
			}
			_ = s.signal(syscall.SIGTERM)
			return false
		})
	})
	within(t, 5*time.Second, "nginx runs", func() bool { return strings.HasPrefix(title(readPID(op.pid)), masterTitle) })
}

// part is what goes into the operator's http block; paths are absolute, as templates renders them there.
func part(d *Driver, text string) templates.Bundle {
	return bundleOf(
		templates.File{Path: "http.conf", Data: fmt.Appendf(nil, "include %s/control/http.conf;\ninclude %s/http/site-a.conf;\n", d.Base(), d.Base()), Mode: 0o644},
		templates.File{Path: "http/site-a.conf", Data: []byte(text), Mode: 0o644})
}

func TestInclude(t *testing.T) {
	t.Parallel()
	op, o := newOperator(t)
	d, port := open(t, o), testport.Free(t)
	op.start(t) // what it includes is there, if empty
	one := part(d, site(port, "one", echo(t)))
	apply(t, d, one, Reloaded)
	serves(t, port, "one")
	serves(t, op.port, "own")
	sockets := dial(t, port, 2)
	apply(t, d, one, Nothing)

	apply(t, d, part(d, site(port, "two", "")), Reloaded)
	serves(t, port, "two")
	alive(t, sockets)

	workers := acceptingPIDs(t, d)
	refused(t, d, part(d, "nonsense;"), StageTest, `unknown directive "nonsense" in http/site-a.conf:1`)
	refused(t, d, part(d, site(port, "x", "")+fmt.Sprintf("server { listen 127.0.0.1:%d; server_name a; }", op.port)), StageTest,
		"conflicting server name", "a warning counts") // the same text as the operator's own, once more
	taken, _ := hold(t)
	refused(t, d, part(d, site(taken, "x", "")), StageReload, "still could not bind()")
	serves(t, port, "two")
	if now := acceptingPIDs(t, d); !slices.Equal(now, workers) {
		t.Errorf("workers %v became %v", workers, now)
	}
	if left, err := filepath.Glob(op.dir + "/.sluice*"); err != nil || len(left) > 0 {
		t.Errorf("copies are left: %v, %v", left, err)
	}

	abandon(d)
	d = open(t, o)
	apply(t, d, part(d, site(port, "two", "")), Nothing)
	if now := acceptingPIDs(t, d); !slices.Equal(now, workers) {
		t.Errorf("workers %v became %v: it was a reload", workers, now)
	}
}

func TestIncludeNotThere(t *testing.T) {
	t.Parallel()
	op, o := newOperator(t)
	line := "include " + o.Dir + "/current/http.conf;"
	for name, text := range map[string]string{
		"missing":       "",
		"commented out": "# " + line,
		"in a server":   "server { " + line + " }",
		"another file":  "include " + o.Dir + "/current/nginx.conf;",
	} {
		op.write(t, text)
		if d, err := Open(t.Context(), o); err == nil {
			abandon(d)
			t.Errorf("%s: it was opened", name)
		} else if !strings.Contains(err.Error(), "add this line to its http block: "+line) {
			t.Errorf("%s: the error does not name the line: %v", name, err)
		}
	}
	op.write(t, line)
	d := open(t, o)
	op.start(t)
	op.write(t, "")
	refused(t, d, part(d, ""), StageTest, "any more", line)
}

func TestIncludeReadOnly(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("a mount needs root")
	}
	op, o := newOperator(t)
	d := open(t, o)
	op.start(t)
	if err := syscall.Mount(op.dir, op.dir, "", syscall.MS_BIND, ""); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = syscall.Unmount(op.dir, syscall.MNT_DETACH) })
	if err := syscall.Mount("", op.dir, "", syscall.MS_BIND|syscall.MS_REMOUNT|syscall.MS_RDONLY, ""); err != nil {
		t.Fatal(err)
	}
	refused(t, d, part(d, ""), StageTest, "ReadWritePaths="+op.dir)
}

// Options.Attach is not set: the operator's nginx.conf, and our start.
func TestIncludeStarts(t *testing.T) {
	t.Parallel()
	_, o := newOperator(t)
	o.Attach = false
	d, port := open(t, o), testport.Free(t)
	b := part(d, site(port, "one", echo(t)))
	apply(t, d, b, Started)
	sockets := dial(t, port, 2)
	kill(t, d.master)
	apply(t, d, b, Started)
	serves(t, port, "one")
	alive(t, sockets)
}

// nginx is a service of the system with a nginx.conf of ours.
func TestAttach(t *testing.T) {
	t.Parallel()
	o, port := options(t), testport.Free(t)
	o.Attach, o.OnExit = true, Quit
	o.PIDFile = filepath.Join(t.TempDir(), "nginx.pid")
	d := open(t, o)
	one := bundle(site(port, "one", ""))
	refused(t, d, one, StageStart, "start it", o.PIDFile)
	if live := d.Live(t.Context()); live.Running {
		t.Fatalf("live: %+v: it was started", live)
	}

	service := operator{conf: d.conf(), pid: o.PIDFile}
	service.start(t, "-p", o.Dir) // boots from what was prepared
	apply(t, d, one, Nothing)
	serves(t, port, "one")
	apply(t, d, bundle(site(port, "two", "")), Reloaded)
	serves(t, port, "two")

	master := d.master
	if err := d.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	if !master.alive() {
		t.Error("the service was stopped")
	}
	d = open(t, o)
	sweep(t, d)
	refused(t, d, bundle(site(port, "three", "")), StageStart, "start it")
	service.start(t, "-p", o.Dir) // boots from the last good one
	serves(t, port, "two")
	if !strings.HasPrefix(d.control.path, "/run/") && os.Geteuid() == 0 {
		t.Errorf("the control socket %s would outlive a power cut", d.control.path)
	}
	apply(t, d, bundle(site(port, "three", "")), Reloaded)
}

func TestWalk(t *testing.T) {
	t.Parallel()
	conf := "a b;\n# c { d;\nhttp { include 'x y.conf' ; include \"z.conf\"; e f${g}h \"i;}\" j\\;k;\n" +
		"server { content_by_lua_block { local t = {1}; } l m; } include z.conf; }\nn o"
	var got []string
	walk(conf, func(blocks []string, words []word) {
		line := strings.Join(blocks, ">") + ":"
		for _, w := range words {
			line += " " + conf[w.from:w.to]
		}
		got = append(got, line)
	})
	want := []string{": a b", "http: include x y.conf", "http: include z.conf", `http: e f${g}h i;} j\;k`, "http>server: l m", "http: include z.conf"}
	if !slices.Equal(got, want) {
		t.Errorf("got  %q\nwant %q", got, want)
	}
}

func FuzzWalk(f *testing.F) {
	f.Add("http { include \"a\"; } # b\n")
	f.Add("a_by_lua_block { { } ' } \\")
	f.Fuzz(func(t *testing.T, conf string) {
		walk(conf, func(_ []string, words []word) {
			for _, w := range words {
				if w.from > w.to || w.to > len(conf) {
					t.Fatalf("word %+v is not within %q", w, conf)
				}
			}
		})
	})
}
