// Package nginx drives a real nginx: it stages a Bundle, tests it, makes it live with a reload, proves that it is live,
// and goes back to the last good one when it is not. What is true of nginx is asked of nginx and of the kernel, not
// remembered: so a Driver that starts anew, or after a kill -9, goes on where the last one stood, without a reload.
//
// Below Options.Dir:
//
//	conf/<id>/        staged configurations, one per reload; <id> is what the control server answers
//	current -> conf/<id>   what the master reads
//	good    -> conf/<id>   last proven live
//	run/              pid file, control socket, what is known of reloads
//	logs/, temp/      nginx's own
//	lock              held by the Driver
package nginx

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"sluice/templates"
)

// Mode is what of nginx's configuration is ours.
type Mode string

// The modes.
const (
	Full    Mode = "full"    // all of it, nginx.conf too
	Include Mode = "include" // what the operator's nginx.conf includes from its http block
)

// OnExit is what becomes of nginx when the Driver is closed.
type OnExit string

// The ways.
const (
	Leave OnExit = "leave" // it serves on, and the next Driver adopts it
	Quit  OnExit = "quit"  // it serves what is open to its end, within Options.QuitGrace, and goes
)

// Options are what a Driver needs to know. Binary, Dir and Control are required.
type Options struct {
	Binary string // nginx or OpenResty: a path, or a name that PATH has
	Dir    string // the state directory, absolute
	Mode   Mode   // default Full
	// NginxConf is the operator's nginx.conf (Include only), absolute.
	NginxConf string
	// Attach says that nginx is a service of the system: it is signalled, never started or stopped.
	Attach bool
	// PIDFile is nginx's. Default: below Dir; with Include what NginxConf says, or what the binary was built with.
	PIDFile string
	OnExit  OnExit // default Leave; without meaning with Attach
	// ControlSocket is the unix socket that nginx answers us on, absolute. Default: below Dir. With Attach and as root it is
	// in /run, which a boot empties: nginx does not start on a socket that a power cut left, and sluice may not be there yet.
	ControlSocket string

	// Control renders the files of a reload that are not part of a Bundle.
	Control func(templates.Control) ([]templates.File, error)
	// What follows goes into templates.Control, which says what it means.
	Modules               []string
	User                  string        // default, when this process is root: nginx, www-data or nobody, the first that exists
	WorkerProcesses       int           // default auto
	WorkerConnections     int           // default 16384, or as many descriptors as a worker gets
	WorkerRlimitNofile    int           // default this process's hard limit, at most 1048576
	WorkerShutdownTimeout time.Duration // default 24 h

	TestTimeout  time.Duration // of nginx -t; default 30 s
	ProveTimeout time.Duration // from HUP to proof; default 15 s: nginx tries for 2.5 s to bind a port that is taken
	QuitGrace    time.Duration // default 10 s

	Logger *slog.Logger // default slog.Default
}

// Driver keeps one nginx. Its methods may be called from any goroutine; Apply does one thing at a time.
type Driver struct {
	o       Options
	log     *slog.Logger
	lock    *os.File
	control control
	busy    chan struct{} // holds one token while Apply, Close or the watch look at nginx
	changed chan struct{}
	reaper  bool // orphans become our children; only the watch looks at it

	measuring sync.Mutex // guards measured
	measured  measurement

	mu         sync.Mutex // guards what follows
	binary     Binary     // of Options.Binary, or of the program that runs when that is another one
	exe        string     // identity of the program that binary describes
	live       manifest   // last proven live
	since      time.Time
	master     process  // zero when nginx does not run
	seen       []worker // that accepted when the watch last looked
	twoMasters bool     // an upgrade was under way then
	state      state
}

// Open takes the state directory, probes the binary, and adopts the nginx that runs, if one does. It fails when another
// process has the directory, or when something is missing that a Driver has to see: see NotVisibleError.
func Open(ctx context.Context, o Options) (*Driver, error) {
	o, err := o.withDefaults()
	if err != nil {
		return nil, err
	}
	d := &Driver{
		o:       o,
		log:     o.Logger,
		control: control{path: o.ControlSocket},
		busy:    make(chan struct{}, 1),
		changed: make(chan struct{}, 1),
	}
	if err := checkProc(); err != nil {
		return nil, err
	}
	if err := d.makeDirs(); err != nil {
		return nil, err
	}
	d.lock, err = lockDir(o.Dir)
	if err != nil {
		return nil, err
	}
	if err := d.open(ctx); err != nil {
		_ = unlockDir(d.lock)
		return nil, err
	}
	return d, nil
}

func (d *Driver) open(ctx context.Context) error {
	var err error
	if d.binary, err = Probe(ctx, d.o.Binary); err != nil {
		return err
	}
	d.o.Binary = d.binary.Path
	if info, err := os.Stat(d.o.Binary); err == nil {
		d.exe = fileIdentity(info)
	}
	if d.o.Mode == Include {
		if err := d.openInclude(); err != nil {
			return err
		}
	} else if d.o.PIDFile == "" {
		d.o.PIDFile = filepath.Join(d.o.Dir, "run", "nginx.pid")
	}
	if d.o.User == "" {
		if d.o.User, err = defaultUser(); err != nil {
			return err
		}
	}
	if d.state, err = loadState(d.o.Dir); err != nil {
		return err
	}
	if d.o.Mode == Full {
		d.warnUnreachable()
	}
	if err := d.look(ctx); err != nil {
		return err
	}
	if d.master == (process{}) {
		return nil
	}
	id, err := d.repair(ctx)
	if err != nil {
		return fmt.Errorf("adopt the nginx that runs as pid %d: %w", d.master.pid, err)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.describeRunning(ctx, d.master); err != nil {
		return err
	}
	d.seen = accepting(d.master)
	d.log.Info("adopted nginx", "pid", d.master.pid, "config", id, "revision", d.live.Revision)
	return nil
}

func (o Options) withDefaults() (Options, error) {
	if o.Mode == "" {
		o.Mode = Full
	}
	if o.OnExit == "" {
		o.OnExit = Leave
	}
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
	setDefault(&o.TestTimeout, 30*time.Second)
	setDefault(&o.ProveTimeout, 15*time.Second)
	setDefault(&o.QuitGrace, 10*time.Second)
	setDefault(&o.WorkerShutdownTimeout, 24*time.Hour)
	if o.WorkerRlimitNofile == 0 {
		var limit syscall.Rlimit
		if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
			return o, fmt.Errorf("read the limit of open files: %w", err)
		}
		o.WorkerRlimitNofile = int(min(limit.Max, 1<<20))
	}
	if o.WorkerConnections == 0 {
		o.WorkerConnections = min(16384, o.WorkerRlimitNofile)
	}
	switch {
	case o.Mode != Full && o.Mode != Include:
		return o, fmt.Errorf("mode %q: want %q or %q", o.Mode, Full, Include)
	case o.OnExit != Leave && o.OnExit != Quit:
		return o, fmt.Errorf("on exit %q: want %q or %q", o.OnExit, Leave, Quit)
	case o.Control == nil:
		return o, errors.New("no renderer for the control files")
	case o.Attach && o.Mode == Full && o.PIDFile == "":
		return o, errors.New("attach: name nginx's pid file, by which its master is found")
	case o.Mode == Include && !filepath.IsAbs(o.NginxConf):
		return o, fmt.Errorf("include: name the operator's nginx.conf with its absolute path, not %q", o.NginxConf)
	}
	if err := checkDirName(o.Dir); err != nil {
		return o, err
	}
	if o.ControlSocket == "" {
		o.ControlSocket = filepath.Join(o.Dir, "run", "control.sock")
		if o.Attach && os.Geteuid() == 0 {
			o.ControlSocket = fmt.Sprintf("/run/sluice-%.4x.sock", sha256.Sum256([]byte(o.Dir)))
		}
	}
	if len(o.ControlSocket) > socketLimit {
		return o, fmt.Errorf("the path of the unix socket %s has %d bytes and Linux takes %d: choose a state directory with a path "+
			"that is %d bytes shorter, or name another socket", o.ControlSocket, len(o.ControlSocket), socketLimit, len(o.ControlSocket)-socketLimit)
	}
	return o, nil
}

func setDefault(d *time.Duration, value time.Duration) {
	if *d == 0 {
		*d = value
	}
}

// socketLimit is the longest path of a unix socket on Linux: sun_path has 108 bytes, the last one is zero.
const socketLimit = 107

// checkDirName refuses what cannot stand in a configuration without thought.
func checkDirName(dir string) error {
	if !filepath.IsAbs(dir) || filepath.Clean(dir) != dir {
		return fmt.Errorf("state directory %q: want an absolute path without . and .. and a slash at its end", dir)
	}
	if i := strings.IndexFunc(dir, func(r rune) bool { return r <= ' ' || r == 0x7f || strings.ContainsRune(`"'\$;{}#*?[`, r) }); i >= 0 {
		return fmt.Errorf("state directory %q: nginx cannot take the character %q in it; choose another name", dir, dir[i])
	}
	return nil
}

// acquire waits for its turn; release ends it.
func (d *Driver) acquire(ctx context.Context) error {
	select {
	case d.busy <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (d *Driver) release() { <-d.busy }

// Base returns the directory under which nginx finds a Bundle's files: templates.Config.Dir in mode Include.
func (d *Driver) Base() string { return filepath.Join(d.o.Dir, "current") }

// Close stops nginx where Options.OnExit says so, waiting for open connections as long as Options.QuitGrace and ctx
// allow, and gives the state directory back.
func (d *Driver) Close(ctx context.Context) error {
	if err := d.acquire(context.WithoutCancel(ctx)); err != nil {
		return err
	}
	defer d.release()
	var err error
	if d.o.OnExit == Quit && !d.o.Attach {
		if err = d.look(ctx); err == nil && d.master != (process{}) {
			err = d.stop(ctx)
		}
	}
	return errors.Join(err, unlockDir(d.lock))
}
