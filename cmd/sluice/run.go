package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime/debug"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"sluice/api"
	"sluice/controlplane"
	"sluice/controlplane/health"
	"sluice/controlplane/nginx"
	"sluice/controlplane/spec"
	"sluice/registry/etcd"
	"sluice/templates"
)

// runFlags are the process configuration of an instance.
type runFlags struct {
	config    string
	name      string
	group     string
	stateDir  string
	api       listenFlags
	templates string

	registry     string
	registryConn registryFlags
	etcdListen   string

	nginx                 string
	nginxMode             string
	nginxConf             string
	attach                string
	onExit                string
	user                  string
	workerProcesses       int
	workerConnections     int
	workerShutdownTimeout time.Duration

	pace paceFlags
	log  logFlags
}

func newRunCommand() *cobra.Command {
	var f runFlags
	cmd := &cobra.Command{
		Use:   "run",
		Short: "Keep the nginx of this machine in step with the registry",
		Long: `Keep the nginx of this machine in step with the registry, and answer the API.

Settings come from flags, then from the environment (SLUICE_STATE_DIR for --state-dir), then from the file that --config
names, a YAML mapping with the same names (state-dir: /var/lib/sluice). nginx outlives sluice unless --on-exit=quit.`,
		Example: `  # everything on one machine, with etcd inside
  sluice run

  # one of several gateways on an etcd cluster, answering the API on all addresses
  sluice run --name edge-1 --registry etcds://10.0.0.1:2379,10.0.0.2:2379 --etcd-ca /etc/sluice/ca.pem \
    --listen :7070 --tls-cert /etc/sluice/api.pem --tls-key /etc/sluice/api.key --token-file /etc/sluice/token

  # beside an nginx that the system runs, with an nginx.conf of your own
  sluice run --nginx-mode include --nginx-conf /etc/nginx/nginx.conf --attach /run/nginx.pid`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if !cmd.Flags().Changed("config") {
				f.config = os.Getenv(envName("config"))
			}
			if err := fillFlags(cmd.Flags(), f.config); err != nil {
				return err
			}
			ctx, stop := signal.NotifyContext(cmd.Context(), os.Interrupt, syscall.SIGTERM)
			defer stop()
			return f.run(ctx)
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&f.config, "config", "", "YAML file with settings")
	flags.StringVar(&f.name, "name", hostname(), "name of this gateway, one of a kind in the fleet")
	flags.StringVar(&f.group, "group", spec.DefaultGroup, "group of this gateway: it serves the sites that name it")
	flags.StringVar(&f.stateDir, "state-dir", "/var/lib/sluice", "directory of everything that sluice keeps")
	f.api.register(flags)
	flags.StringVar(&f.templates, "templates", "", "directory with templates that replace built-in ones of the same name")
	flags.StringVar(&f.registry, "registry", embeddedRegistry, "embedded, etcd://host:2379,… or consul://host:8500,… (etcds://, consuls://: TLS)")
	flags.StringVar(&f.etcdListen, "etcd-listen", "", "URL on which the embedded etcd answers its clients: http://127.0.0.1:2379 or unix:///path (default: a unix socket in the state directory)")
	f.registryConn.register(flags)
	flags.StringVar(&f.nginx, "nginx", "", "nginx or OpenResty binary (default: the first of openresty and nginx that is found)")
	flags.StringVar(&f.nginxMode, "nginx-mode", string(nginx.Full), "what sluice owns: full (nginx.conf too) or include (files for the http block of yours)")
	flags.StringVar(&f.nginxConf, "nginx-conf", "/etc/nginx/nginx.conf", "your nginx.conf, with --nginx-mode=include")
	flags.StringVar(&f.attach, "attach", "", "pid file of an nginx that the system starts and stops")
	flags.StringVar(&f.onExit, "on-exit", string(nginx.Leave), "what becomes of nginx when sluice stops: leave (it serves on) or quit")
	flags.StringVar(&f.user, "user", "", "user of nginx's workers, when run as root (default: nginx, www-data or nobody)")
	flags.IntVar(&f.workerProcesses, "worker-processes", 0, "nginx workers (default: one a core)")
	flags.IntVar(&f.workerConnections, "worker-connections", 0, "connections per worker, both sides counted (default: 16384, or what the limit of open files allows)")
	flags.DurationVar(&f.workerShutdownTimeout, "worker-shutdown-timeout", 24*time.Hour, "an old worker ends what is still open after this; a backstop")
	f.pace.register(flags)
	f.log.register(flags)
	return cmd
}

func hostname() string {
	name, err := os.Hostname()
	if err != nil {
		return "gateway"
	}
	return name
}

// gcPercent has the collector run more often than Go's 100: what a gateway keeps lives long, and what a change makes is
// garbage at once. It costs little time, and a large fleet a third less memory.
const gcPercent = 50

// run wires the parts and waits until ctx ends or one of them fails.
func (f *runFlags) run(ctx context.Context) (err error) {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(gcPercent)
	}
	log, err := f.log.logger(os.Stderr)
	if err != nil {
		return err
	}
	if err := f.api.check(); err != nil {
		return err
	}
	pace, err := f.pace.settings()
	if err != nil {
		return err
	}
	token, err := f.api.token()
	if err != nil {
		return err
	}
	subjects, err := f.api.subjects()
	if err != nil {
		return err
	}
	audit, closer, err := f.api.auditLogger(log)
	if err != nil {
		return err
	}
	defer closer.Close()
	if f.stateDir, err = filepath.Abs(f.stateDir); err != nil {
		return err
	}
	// nginx's workers must get through to their own files.
	if err := os.MkdirAll(f.stateDir, 0o711); err != nil {
		return fmt.Errorf("make the state directory: %w", err)
	}
	listener, err := f.api.open(log)
	if err != nil {
		return err
	}
	defer listener.Close()

	render := &renderer{dir: f.templates}
	if _, err := render.load(); err != nil {
		log.Error("the template overrides are of no use; mend them, they are read again when they change", "error", err)
	}
	driver, err := f.openNginx(ctx, render, log)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, closeWithin(15*time.Second, driver.Close)) }()

	var server *etcd.Embedded
	if f.registry == embeddedRegistry {
		server, err = etcd.StartEmbedded(etcd.EmbeddedConfig{Dir: filepath.Join(f.stateDir, "etcd"), ClientURL: f.etcdListen, Logger: log})
		if err != nil {
			return err
		}
		defer server.Close()
	}
	reg, closeRegistry, err := f.registryConn.open(ctx, f.registry, server, log)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, closeRegistry()) }()

	checker := health.New(health.Options{Log: log})
	controller := controlplane.New(controlplane.Options{
		Gateway: f.name, Group: f.group, Version: version(), LastGoodPath: filepath.Join(f.stateDir, "last-good.json"),
		Registry: reg, Applier: applier{driver}, Renderer: render, Checker: checker, Wake: driver.Changed(), Log: log,
		Facts: func() controlplane.Facts { return f.facts(driver) },
	})
	handler, err := api.New(api.Options{
		Registry: reg, Local: controller, Token: token, Subjects: subjects, Reserved: f.reserved(ctx, listener, server, log), Rollouts: pace,
		Logger: log, Audit: audit,
	})
	if err != nil {
		return err
	}
	log.Info("sluice runs", "gateway", f.name, "api", f.api.scheme()+"://"+listener.Addr().String(), "registry", f.registry, "state", f.stateDir)

	g, ctx := errgroup.WithContext(ctx)
	if server != nil {
		g.Go(func() error {
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-server.Failed():
				// It can't be started again in this process: nginx serves on, and whoever keeps sluice running starts both.
				return server.Err()
			}
		})
	}
	g.Go(func() error { return driver.Run(ctx) })
	g.Go(func() error { return checker.Run(ctx) })
	g.Go(func() error { return controller.Run(ctx) })
	g.Go(func() error { return serve(ctx, listener, handler, log) })
	if err := g.Wait(); err != nil && !errors.Is(err, context.Canceled) {
		return err
	}
	log.Info("sluice stops", "nginx", f.onExit)
	return nil
}

// lookupTime is how long names of the registry are looked up.
const lookupTime = 2 * time.Second

// reserved returns the addresses that no node can have: the API's own, the registry's, and sockets in the state directory.
func (f *runFlags) reserved(ctx context.Context, listener net.Listener, server *etcd.Embedded, log *slog.Logger) []string {
	own := []string{listener.Addr().String(), "unix:" + f.stateDir}
	var urls []string
	if server != nil {
		urls = append(urls, server.ClientURL())
	} else {
		urls, _ = endpoints(f.registry) // it was opened with them
	}
	ctx, cancel := context.WithTimeout(ctx, lookupTime)
	defer cancel()
	for _, text := range urls {
		u, err := url.Parse(text)
		switch {
		case err != nil:
		case u.Scheme == "unix":
			own = append(own, "unix:"+u.Path)
		case u.Port() != "":
			addrs, err := net.DefaultResolver.LookupNetIP(ctx, "ip", u.Hostname())
			if err != nil {
				log.Warn("the registry's name was not found: nodes may be registered at its address", "name", u.Hostname(), "error", err)
			}
			for _, addr := range addrs {
				own = append(own, net.JoinHostPort(addr.String(), u.Port()))
			}
		}
	}
	return own
}

func (f *runFlags) openNginx(ctx context.Context, render *renderer, log *slog.Logger) (*nginx.Driver, error) {
	binary := f.nginx
	var driver *nginx.Driver
	var err error
	if binary == "" {
		if binary, err = findNginx(); err != nil {
			return nil, err
		}
	}
	driver, err = nginx.Open(ctx, nginx.Options{
		Binary: binary, Dir: filepath.Join(f.stateDir, "nginx"), Mode: nginx.Mode(f.nginxMode), NginxConf: f.nginxConf,
		Attach: f.attach != "", PIDFile: f.attach, OnExit: nginx.OnExit(f.onExit), User: f.user,
		WorkerProcesses: f.workerProcesses, WorkerConnections: f.workerConnections,
		WorkerShutdownTimeout: f.workerShutdownTimeout, Logger: log,
		Control: func(c templates.Control) ([]templates.File, error) {
			set, err := render.load()
			if err != nil {
				return nil, err
			}
			facts := f.facts(driver)
			return set.RenderControl(templates.Config{Capabilities: facts.Capabilities, HTTPOnly: facts.HTTPOnly, Dir: facts.Dir}, c)
		},
	})
	return driver, err
}

// findNginx looks in PATH, and where nginx is for users whose PATH has no sbin.
func findNginx() (string, error) {
	for _, name := range []string{"openresty", "nginx", "/usr/local/openresty/bin/openresty", "/usr/sbin/nginx", "/usr/local/sbin/nginx"} {
		if path, err := exec.LookPath(name); err == nil {
			return path, nil
		}
	}
	return "", errors.New("no nginx was found: install one (apt-get install nginx-core), or name its binary with --nginx")
}

func (f *runFlags) facts(driver *nginx.Driver) controlplane.Facts {
	facts := controlplane.Facts{Rendering: controlplane.Rendering{Capabilities: driver.Capabilities(), AccessLog: "logs/access.log"}}
	if f.nginxMode == string(nginx.Include) {
		facts.HTTPOnly, facts.Dir = true, driver.Base()
		facts.AccessLog = filepath.Join(f.stateDir, "nginx", "logs", "access.log")
	}
	return facts
}

// serve answers the API until ctx ends, and gives requests that are under way a few seconds.
func serve(ctx context.Context, listener net.Listener, handler *api.Server, log *slog.Logger) error {
	server := &http.Server{
		Handler: handler, ReadHeaderTimeout: 10 * time.Second, ReadTimeout: 30 * time.Second, IdleTimeout: 2 * time.Minute,
		MaxHeaderBytes: 64 << 10, ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelDebug),
	}
	server.RegisterOnShutdown(handler.Close)
	done := make(chan error, 1)
	go func() { done <- server.Serve(listener) }()
	select {
	case err := <-done:
		return fmt.Errorf("serve the API: %w", err)
	case <-ctx.Done():
	}
	if err := closeWithin(5*time.Second, server.Shutdown); err != nil {
		return errors.Join(fmt.Errorf("stop the API: %w", err), server.Close())
	}
	return ctx.Err()
}

// closeWithin calls what must not be cut short by the signal that ends sluice, but may not take for ever either.
func closeWithin(limit time.Duration, closer func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	return closer(ctx)
}
