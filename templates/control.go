package templates

import (
	"strconv"
	"time"
)

// Control is what belongs to one gateway's machine and to one reload. The files made of it are not part of the Bundle's
// revision: two gateways with other paths, and two reloads of the same bundle, have the same revision.
type Control struct {
	ReloadID string // answered by the control server, to prove that this very reload is live
	Revision string // goes into the access log
	Socket   string // absolute path of the unix socket that the control server listens on

	// The rest is for a nginx.conf of ours only (not Config.HTTPOnly).
	Modules               []string // absolute paths for load_module
	User                  string   // of the workers, when the master is root
	PIDFile               string
	ErrorLog              string
	WorkerProcesses       int           // 0 is one for each CPU
	WorkerConnections     int           // per worker, both sides counted
	WorkerRlimitNofile    int           // 0 leaves the limit as it is
	WorkerShutdownTimeout time.Duration // a backstop for workers of an older generation
	TempDir               string        // exists; for client bodies and upstream answers that do not fit into memory
}

// Paths of the control files, beside those of the Bundle.
const (
	controlMainPath = "control/main.conf"
	controlHTTPPath = "control/http.conf"
)

// controlMainView is the data of control_main.conf.tmpl.
type controlMainView struct {
	Modules         []token
	User            token
	PIDFile         token
	ErrorLog        token
	Processes       token
	Connections     token
	Nofile          token
	ShutdownTimeout token
}

// controlHTTPView is the data of control_http.conf.tmpl.
type controlHTTPView struct {
	Socket    token
	ReloadID  token
	Revision  token
	TempPaths []tempPathView
}

// tempPathView is a directory for what does not fit into memory.
type tempPathView struct {
	Directive token
	Path      token
}

func (b *builder) controlPages(c Control) []page {
	pages := []page{{controlHTTPPath, "control_http.conf.tmpl", b.controlHTTP(c)}}
	if !b.cfg.HTTPOnly {
		pages = append(pages, page{controlMainPath, "control_main.conf.tmpl", b.controlMain(c)})
	}
	return pages
}

// control is the object that messages name.
const control = "control"

func (b *builder) controlHTTP(c Control) controlHTTPView {
	v := controlHTTPView{
		Socket:   value(b, control, "socket", absolute, c.Socket),
		ReloadID: value(b, control, "reload id", quote, c.ReloadID),
		Revision: value(b, control, "revision", quote, c.Revision),
	}
	if len(c.Socket) > maxUnixPath {
		b.refuse(control, "the path of socket %q has %d bytes; the kernel takes at most %d: use a shorter directory", c.Socket, len(c.Socket), maxUnixPath)
	}
	if v.Socket != "" && v.Socket[0] == '"' { // the whole argument is quoted, or none of it
		v.Socket = `"unix:` + v.Socket[1:]
	} else {
		v.Socket = "unix:" + v.Socket
	}
	if b.cfg.HTTPOnly || c.TempDir == "" {
		return v
	}
	caps := b.cfg.Capabilities
	for _, t := range []struct {
		directive, dir string
		without        bool
	}{
		{"client_body_temp_path", "body", false},
		{"proxy_temp_path", "proxy", false},
		{"fastcgi_temp_path", "fastcgi", caps.WithoutFastCGI},
		{"uwsgi_temp_path", "uwsgi", caps.WithoutUWSGI},
		{"scgi_temp_path", "scgi", caps.WithoutSCGI},
	} {
		if !t.without {
			v.TempPaths = append(v.TempPaths, tempPathView{token(t.directive), value(b, control, "temp dir", absolute, c.TempDir+"/"+t.dir)})
		}
	}
	return v
}

// maxUnixPath is the room of sockaddr_un for a path and its NUL, less the NUL.
const maxUnixPath = 107

func (b *builder) controlMain(c Control) controlMainView {
	v := controlMainView{
		PIDFile:         b.optionalPath("pid file", c.PIDFile),
		ErrorLog:        b.optionalPath("error log", c.ErrorLog),
		Processes:       "auto",
		Connections:     b.count("worker connections", c.WorkerConnections),
		Nofile:          b.count("worker rlimit nofile", c.WorkerRlimitNofile),
		ShutdownTimeout: value(b, control, "worker shutdown timeout", duration, c.WorkerShutdownTimeout),
	}
	if n := b.count("worker processes", c.WorkerProcesses); n != "" {
		v.Processes = n
	}
	if c.User != "" {
		v.User = value(b, control, "user", quote, c.User)
	}
	for _, m := range c.Modules {
		v.Modules = append(v.Modules, value(b, control, "module", absolute, m))
	}
	return v
}

func (b *builder) optionalPath(field, path string) token {
	if path == "" {
		return ""
	}
	return value(b, control, field, absolute, path)
}

// count writes a number whose zero leaves the directive out.
func (b *builder) count(field string, n int) token {
	switch {
	case n < 0 || n > maxCount:
		b.refuse(control, "%s: %d is not between 0 and %d", field, n, maxCount)
		return ""
	case n == 0:
		return ""
	default:
		return token(strconv.Itoa(n))
	}
}
