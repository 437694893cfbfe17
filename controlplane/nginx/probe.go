package nginx

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"time"

	"sluice/templates"
)

// Binary is what an nginx binary says of itself.
type Binary struct {
	Path    string // absolute, or /proc/PID/exe of a program that is no longer on the disk
	Version string // of nginx; OpenResty's is that of its nginx
	Caps    templates.Capabilities
	Modules []string // the dynamic modules that lie beside it, absolute paths, sorted

	pidPath string // built in
}

// probeTimeout is for a handful of runs that take 5 ms each on an idle machine.
const probeTimeout = 30 * time.Second

var (
	versionForm  = regexp.MustCompile(`(?m)^nginx version: (nginx|openresty)/(\d+\.\d+\.\d+)`)
	argumentForm = regexp.MustCompile(`--([a-z0-9_-]+)(?:=('[^']*'|\S+))?`)
)

// Probe asks the binary what it can do. Versions are not compared: distributions backport and remove, so each directive
// that matters is tried.
func Probe(ctx context.Context, binary string) (Binary, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, probeTimeout, errTimeout{"asking " + binary, probeTimeout})
	defer cancel()
	path, err := exec.LookPath(binary)
	if err != nil {
		return Binary{}, fmt.Errorf("find nginx: %w; install it, or name its path", err)
	}
	if path, err = filepath.Abs(path); err != nil {
		return Binary{}, fmt.Errorf("find nginx: %w", err)
	}
	out, err := run(ctx, "", path, "-V")
	if err != nil {
		return Binary{}, fmt.Errorf("ask %s for its version: %w: %s", path, err, strings.TrimSpace(out))
	}
	b, args, err := parseVersion(out)
	if err != nil {
		return Binary{}, fmt.Errorf("ask %s for its version: %w", path, err)
	}
	b.Path = path
	if dir := args["modules-path"]; dir != "" {
		if b.Modules, err = filepath.Glob(filepath.Join(dir, "*.so")); err != nil {
			return Binary{}, fmt.Errorf("list nginx's modules: %w", err)
		}
	}
	for text, has := range map[string]*bool{
		"server { listen unix:s; http2 on; }":                &b.Caps.HTTP2Directive,
		"server { listen unix:s; ssl_reject_handshake on; }": &b.Caps.RejectHandshake,
		"keepalive_min_timeout 1s;":                          &b.Caps.KeepaliveMinTimeout,
		// Where it is not the default, zero is refused.
		"upstream u { server unix:n; keepalive 0; }": &b.Caps.KeepaliveDefault,
	} {
		if *has, err = b.takes(ctx, text); err != nil {
			return Binary{}, err
		}
	}
	b.Caps.IPv6 = hasIPv6()
	return b, nil
}

// parseVersion understands what nginx -V writes.
func parseVersion(out string) (Binary, map[string]string, error) {
	m := versionForm.FindStringSubmatch(out)
	if m == nil {
		return Binary{}, nil, fmt.Errorf("this is not nginx: %.200q", out)
	}
	_, list, _ := strings.Cut(out, "configure arguments:")
	args := map[string]string{}
	for _, a := range argumentForm.FindAllStringSubmatch(list, -1) {
		args[a[1]] = strings.Trim(a[2], "'")
	}
	with := func(module string) bool { _, ok := args["with-"+module]; return ok }
	without := func(module string) bool { _, ok := args["without-"+module]; return ok }
	b := Binary{Version: m[2], pidPath: args["pid-path"]}
	b.Caps = templates.Capabilities{
		Version:        m[2],
		OpenResty:      m[1] == "openresty",
		Realip:         with("http_realip_module"),
		SSL:            with("http_ssl_module"),
		HTTP2:          with("http_v2_module"),
		WithoutFastCGI: without("http_fastcgi_module"),
		WithoutUWSGI:   without("http_uwsgi_module"),
		WithoutSCGI:    without("http_scgi_module"),
	}
	if b.pidPath == "" { // nginx's own default, below its prefix
		prefix := args["prefix"]
		if prefix == "" {
			prefix = "/usr/local/nginx"
		}
		b.pidPath = filepath.Join(prefix, "logs", "nginx.pid")
	}
	return b, args, nil
}

// takes says whether the binary takes a text in its http block.
func (b Binary) takes(ctx context.Context, text string) (bool, error) {
	dir, err := os.MkdirTemp("", "sluice-probe-")
	if err != nil {
		return false, fmt.Errorf("probe nginx: %w", err)
	}
	defer os.RemoveAll(dir)
	user, err := defaultUser()
	if err != nil {
		return false, err
	}
	conf := "pid nginx.pid;\nerror_log stderr;\nevents {}\nhttp {\naccess_log off;\nclient_body_temp_path t1;\nproxy_temp_path t2;\n"
	for directive, missing := range map[string]bool{
		"fastcgi_temp_path t3": b.Caps.WithoutFastCGI,
		"uwsgi_temp_path t4":   b.Caps.WithoutUWSGI,
		"scgi_temp_path t5":    b.Caps.WithoutSCGI,
	} {
		if !missing {
			conf += directive + ";\n"
		}
	}
	conf += text + "\n}\n"
	if user != "" {
		conf = "user " + user + ";\n" + conf
	}
	path := filepath.Join(dir, "nginx.conf")
	if err := os.WriteFile(path, []byte(conf), 0o600); err != nil {
		return false, fmt.Errorf("probe nginx: %w", err)
	}
	out, err := run(ctx, dir, b.Path, "-t", "-q", "-p", dir, "-c", path) // the socket's path is relative to dir
	switch {
	case err == nil:
		return true, nil
	case strings.Contains(out, "unknown directive"), strings.Contains(out, "invalid value"):
		return false, nil
	case ctx.Err() != nil:
		return false, context.Cause(ctx)
	}
	return false, fmt.Errorf("probe nginx for %q: %w: %s", text, err, strings.TrimSpace(out))
}

// hasIPv6 says whether this machine can listen on IPv6.
func hasIPv6() bool {
	l, err := net.Listen("tcp6", "[::1]:0")
	if err != nil {
		return false
	}
	_ = l.Close()
	return true
}

// describeRunning keeps the description of the binary in step with the program that runs: after an upgrade by USR2, or
// when another one than Options.Binary was adopted.
func (d *Driver) describeRunning(ctx context.Context, master process) error {
	info, err := os.Stat(exePath(master))
	if err != nil {
		return nil //nolint:nilerr // it ended in between
	}
	identity := fileIdentity(info)
	if identity == d.exe {
		return nil
	}
	b, err := Probe(ctx, d.programOf(master))
	if err != nil {
		return err
	}
	if path, err := os.Readlink(exePath(master)); err == nil && b.Path == exePath(master) {
		b.Path = path
	}
	d.binary, d.exe = b, identity
	return nil
}

// fileIdentity tells one version of a file from another.
func fileIdentity(info os.FileInfo) string {
	inode := uint64(0)
	if s, ok := info.Sys().(*syscall.Stat_t); ok {
		inode = s.Ino
	}
	return fmt.Sprint(inode, info.Size(), info.ModTime().UnixNano())
}
