package nginx

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"sluice/internal/testport"
)

func TestOptions(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		change func(*Options)
		want   string
	}{
		"relative directory":  {func(o *Options) { o.Dir = "state" }, "absolute path"},
		"long directory":      {func(o *Options) { o.Dir += strings.Repeat("/abcdefghi", 10) }, "bytes shorter"},
		"directory with $":    {func(o *Options) { o.Dir += "/$x" }, `the character '$'`},
		"directory with room": {func(o *Options) { o.Dir += "/a b" }, `the character ' '`},
		"mode":                {func(o *Options) { o.Mode = "half" }, `mode "half"`},
		"on exit":             {func(o *Options) { o.OnExit = "stay" }, `on exit "stay"`},
		"no control":          {func(o *Options) { o.Control = nil }, "control files"},
		"attach, no pid file": {func(o *Options) { o.Attach = true }, "pid file"},
		"include, no conf":    {func(o *Options) { o.Mode = Include }, "nginx.conf"},
		"no such binary":      {func(o *Options) { o.Binary = "/nonexistent/nginx" }, "find nginx"},
		"not nginx":           {func(o *Options) { o.Binary = "/bin/true" }, "this is not nginx"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			o := options(t)
			c.change(&o)
			if d, err := Open(t.Context(), o); err == nil {
				abandon(d)
				t.Fatal("it was opened")
			} else if !strings.Contains(err.Error(), c.want) {
				t.Errorf("error %q does not say %q", err, c.want)
			}
		})
	}
}

func TestLock(t *testing.T) {
	t.Parallel()
	o := options(t)
	d := open(t, o)
	_, err := Open(t.Context(), o)
	if err == nil || !strings.Contains(err.Error(), fmt.Sprintf("in use by process %d (", os.Getpid())) {
		t.Fatalf("the second Driver: %v", err)
	}
	if err := d.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	open(t, o)
}

// wrapper returns a binary that runs a line of shell before nginx, for the arguments $*.
func wrapper(t *testing.T, line string) string {
	t.Helper()
	return program(t, []byte("#!/bin/sh\n"+line+"\nexec nginx \"$@\"\n"))
}

// program writes a file that can be run. No process may be forked meanwhile: it would have the file open for writing, and
// what is open for writing cannot be run.
func program(t *testing.T, data []byte) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "nginx")
	syscall.ForkLock.RLock()
	defer syscall.ForkLock.RUnlock()
	if err := os.WriteFile(file, data, 0o755); err != nil {
		t.Fatal(err)
	}
	return file
}

// The context ends while nginx -t runs: nothing has changed.
func TestCancelledTest(t *testing.T) {
	t.Parallel()
	o, port := options(t), testport.Free(t)
	gate := filepath.Join(t.TempDir(), "gate")
	o.Binary = wrapper(t, `case "$*" in *-t*conf/000002*) touch `+gate+`; exec sleep 60;; esac`)
	d := open(t, o)
	apply(t, d, bundle(site(port, "one", "")), Started)
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	go func() {
		defer cancel()
		_ = poll(ctx, time.Millisecond, func() (bool, error) { _, err := os.Stat(gate); return err == nil, nil })
	}()
	two := bundle(site(port, "two", ""))
	if _, err := d.Apply(ctx, two); !errors.Is(err, context.Canceled) {
		t.Fatalf("Apply: %v", err)
	}
	if d.linked(current) != d.live.ID {
		t.Error("current was switched")
	}
	serves(t, port, "one")
	apply(t, d, two, Reloaded)
}

// The context ends while nginx reloads: the next Apply finds out what became of it.
func TestCancelledProof(t *testing.T) {
	t.Parallel()
	o, port := options(t), testport.Free(t)
	d := open(t, o)
	apply(t, d, bundle(site(port, "one", "")), Started)
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	go func() {
		defer cancel()
		_ = poll(ctx, time.Millisecond, func() (bool, error) { return d.linked(current) != d.linked(good), nil })
	}()
	two := bundle(site(port, "two", ""))
	if _, err := d.Apply(ctx, two); !errors.Is(err, context.Canceled) {
		t.Fatalf("Apply: %v", err)
	}
	if _, err := d.Apply(t.Context(), two); err != nil {
		t.Fatalf("Apply: %v", err)
	}
	serves(t, port, "two")
	if d.linked(current) != d.live.ID || d.linked(good) != d.live.ID {
		t.Errorf("current %s, good %s, live %s: want them the same", d.linked(current), d.linked(good), d.live.ID)
	}
}

func TestTestTimeout(t *testing.T) {
	t.Parallel()
	o := options(t)
	o.TestTimeout = 200 * time.Millisecond
	o.Binary = wrapper(t, `case "$*" in *conf/*) exec sleep 60;; esac`)
	refused(t, open(t, o), bundle(""), StageTest, "nginx -t did not come to an end in 200ms")
}

func TestProbe(t *testing.T) {
	t.Parallel()
	b, err := Probe(t.Context(), "nginx")
	if err != nil {
		t.Fatal(err)
	}
	if b.Caps.Version == "" || !filepath.IsAbs(b.Path) {
		t.Errorf("probed %+v", b)
	}
	// What the version says, for those that are not patched, must be what the binary said.
	var major, minor, patch int
	if _, err := fmt.Sscanf(b.Version, "%d.%d.%d", &major, &minor, &patch); err != nil {
		t.Fatal(err)
	}
	version := major*1_000_000 + minor*1000 + patch
	for name, c := range map[string]struct {
		has   bool
		since int
	}{
		"http2 on":              {b.Caps.HTTP2Directive, 1_025_001},
		"keepalive_min_timeout": {b.Caps.KeepaliveMinTimeout, 1_027_004},
		"ssl_reject_handshake":  {b.Caps.RejectHandshake, 1_019_004},
		"keepalive 0":           {b.Caps.KeepaliveDefault, 1_029_007},
	} {
		if c.has != (version >= c.since) {
			t.Errorf("%s: %v in version %s", name, c.has, b.Version)
		}
	}
}

func TestParseVersion(t *testing.T) {
	t.Parallel()
	b, args, err := parseVersion("nginx version: openresty/1.27.1.2\nbuilt by gcc\nconfigure arguments: --prefix=/usr/local/openresty/nginx " +
		"--with-cc-opt='-O2 -DX=--with-y' --with-http_ssl_module --with-http_v2_module --without-http_uwsgi_module --modules-path=/m\n")
	if err != nil {
		t.Fatal(err)
	}
	want := b.Caps
	want.OpenResty, want.Version, want.SSL, want.HTTP2, want.Realip, want.WithoutUWSGI = true, "1.27.1", true, true, false, true
	if b.Caps != want || args["modules-path"] != "/m" || b.pidPath != "/usr/local/openresty/nginx/logs/nginx.pid" {
		t.Errorf("parsed %+v, %v", b, args)
	}
}

// An nginx in a pid namespace of its own cannot be kept from here, and must not be taken for none.
func TestOtherPIDNamespace(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("a pid namespace needs root")
	}
	o, port := options(t), testport.Free(t)
	d := open(t, o)
	s, err := d.stage(bundle(site(port, "one", "")), manifest{Revision: "x"})
	if err != nil {
		t.Fatal(err)
	}
	switched(t, d, s)
	// Its first process must stay, or the namespace ends.
	inNamespace(t, "nginx -p "+o.Dir+" -c "+d.conf()+"; exec sleep 60")
	within(t, 10*time.Second, "nginx serves", func() bool { got, err := get(port); return err == nil && got == "one" })
	var invisible *NotVisibleError
	if _, err := d.Apply(t.Context(), bundle(site(port, "two", ""))); !errors.As(err, &invisible) || !strings.Contains(err.Error(), "another pid namespace") {
		t.Errorf("Apply: %v", err)
	}
	abandon(d)
	if _, err := Open(t.Context(), o); !errors.As(err, &invisible) {
		t.Errorf("Open: %v", err)
	}
}

func TestSameNamespace(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("namespaces need root")
	}
	dir := t.TempDir()
	if err := sameNamespace(os.Getpid(), dir); err != nil {
		t.Errorf("our own: %v", err)
	}
	if err := sameNamespace(1, "/nonexistent"); err == nil {
		t.Error("a directory that is not there is the same")
	}
	net := inNetNamespace(t, "exec sleep 60")
	within(t, 5*time.Second, "another network namespace is seen", func() bool {
		err := sameNamespace(net, dir)
		return err != nil && strings.Contains(err.Error(), "another net namespace")
	})
}

func TestHidepid(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("a mount of its own needs root")
	}
	if err := checkVisible(os.Getpid()); err != nil {
		t.Errorf("we are visible: %v", err)
	}
	if err := checkVisible(1 << 22); err != nil {
		t.Errorf("what does not exist is not hidden: %v", err)
	}
	out := unprivileged(t, "process", "hidepid=2", os.Getpid())
	if !strings.Contains(out, "hidepid") {
		t.Errorf("the process that cannot see us said: %s", out)
	}
}
