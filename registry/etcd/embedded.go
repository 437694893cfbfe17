package etcd

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"go.etcd.io/etcd/server/v3/embed"
	"go.uber.org/zap/zapcore"
)

// Defaults of an embedded server.
const (
	// DefaultQuotaBytes holds a full history (MaxHistory) of the largest changes (MaxTxBytes), twice over.
	DefaultQuotaBytes = 1 << 30
	// startLimit is how long a start may take; a large write-ahead log on a slow disk takes seconds.
	startLimit = 2 * time.Minute
	// stopLimit is how long Close waits for a server that may hang on its disk.
	stopLimit = 10 * time.Second
)

// EmbeddedConfig says how an embedded server is run.
type EmbeddedConfig struct {
	// Dir holds the data, the lock and the sockets; it is made with mode 0700. Who can read it can read everything.
	Dir string
	// ClientURL is where clients, etcdctl among them, find the server: unix:///path or http://127.0.0.1:port. Default: the
	// socket client.sock in Dir. On a TCP port, every user of the machine may read and write.
	ClientURL string
	// QuotaBytes is the size of the database at which it refuses to grow. Default: DefaultQuotaBytes.
	QuotaBytes int64

	Logger *slog.Logger // default: slog.Default()
}

// Embedded is an etcd server in this process, for a fleet on one machine.
type Embedded struct {
	log       *slog.Logger
	clientURL string
	lock      *os.File
	server    *embed.Etcd
	stop      context.CancelFunc // of the guard of the disk
	guard     sync.WaitGroup
	closing   sync.Once
	serving   atomic.Bool

	mu     sync.Mutex
	err    error         // why the server died
	failed chan struct{} // closed when it did
}

// StartEmbedded starts a server and returns when it answers. It listens on a unix socket, or on a loopback address, and
// nowhere else. The directory must not be in use by another process.
func StartEmbedded(cfg EmbeddedConfig) (*Embedded, error) {
	if cfg.Logger == nil {
		cfg.Logger = slog.Default()
	}
	e := &Embedded{log: cfg.Logger.With("registry", "embedded etcd"), failed: make(chan struct{})}
	if err := e.start(cfg); err != nil {
		e.Close()
		return nil, fmt.Errorf("start the embedded etcd in %s: %w", cfg.Dir, err)
	}
	return e, nil
}

func (e *Embedded) start(cfg EmbeddedConfig) error {
	dir, err := privateDir(cfg.Dir)
	if err != nil {
		return err
	}
	if e.lock, err = lockDir(dir); err != nil {
		return err
	}
	sockets, err := socketDir(dir)
	if err != nil {
		return err
	}
	client := url.URL{Scheme: "unix", Path: filepath.Join(sockets, "client.sock")}
	if cfg.ClientURL != "" {
		if client, err = localURL(cfg.ClientURL); err != nil {
			return err
		}
	}
	e.clientURL = client.String()
	conf := e.embedConfig(dir, client, cfg.QuotaBytes)
	if err := e.startServer(conf); err != nil {
		return err
	}
	e.serving.Store(true)
	ctx, cancel := context.WithCancel(context.Background())
	e.stop = cancel
	guard := &diskGuard{e: e, dir: dir, quota: conf.QuotaBackendBytes, every: rewriteInterval}
	e.guard.Go(func() { guard.run(ctx) })
	return nil
}

// startServer starts the server in a goroutine of its own: one that meets damaged data ends the goroutine it runs in.
func (e *Embedded) startServer(conf *embed.Config) error {
	type result struct {
		server *embed.Etcd
		err    error
	}
	started := make(chan result, 1)
	go func() {
		server, err := embed.StartEtcd(conf)
		started <- result{server, err}
	}()
	limit := time.After(startLimit)
	select {
	case res := <-started:
		if res.err != nil {
			return res.err
		}
		e.server = res.server
	case <-e.failed:
		return e.Err()
	case <-limit:
		return fmt.Errorf("it did not start within %s", startLimit)
	}
	select {
	case <-e.server.Server.ReadyNotify():
		return nil
	case err := <-e.server.Err():
		return err
	case <-e.failed:
		return e.Err()
	case <-limit:
		return fmt.Errorf("it was not ready within %s", startLimit)
	}
}

// embedConfig is etcd's configuration for a server that is alone and small.
func (e *Embedded) embedConfig(dir string, client url.URL, quota int64) *embed.Config {
	conf := embed.NewConfig()
	conf.Name = "sluice"
	conf.Dir = filepath.Join(dir, "data")
	conf.ListenClientUrls, conf.AdvertiseClientUrls = []url.URL{client}, []url.URL{client}
	// It has no peers, so it does not listen for any; a member must have an address for them all the same.
	conf.ListenPeerUrls, conf.AdvertisePeerUrls = nil, []url.URL{{Scheme: "unix", Path: "/nonexistent/peer.sock"}}
	conf.InitialCluster = conf.InitialClusterFromName(conf.Name)
	conf.EnableGRPCGateway = false // the REST gateway costs memory and is used by nobody
	conf.Metrics = "basic"

	conf.AutoCompactionMode = embed.CompactorModePeriodic
	conf.AutoCompactionRetention = "1h"
	conf.QuotaBackendBytes = DefaultQuotaBytes
	if quota > 0 {
		conf.QuotaBackendBytes = quota
	}
	// The log of raft is kept in memory between snapshots. There is no follower that would have to catch up, and one
	// entry may have 350 KB.
	conf.SnapshotCount = 1000
	conf.SnapshotCatchUpEntries = 100
	conf.MaxSnapFiles, conf.MaxWalFiles = 2, 2
	conf.BootstrapDefragThresholdMegabytes = 64

	fatal := fatalHook{e}
	conf.ZapLoggerBuilder = embed.NewZapLoggerBuilder(zapTo(e.log, e.logLevel, fatal))
	return conf
}

// logLevel lets the server's warnings through, such as those of a slow disk; not while it starts or stops, when it warns
// of what is meant and whoever called has the error.
func (e *Embedded) logLevel(level zapcore.Level) slog.Level {
	switch {
	case !e.serving.Load() || level < zapcore.WarnLevel:
		return slog.LevelDebug
	case level == zapcore.WarnLevel:
		return slog.LevelInfo
	default:
		return slog.LevelError
	}
}

// ClientURL is where clients find the server: etcdctl --endpoints takes it.
func (e *Embedded) ClientURL() string { return e.clientURL }

// Failed is closed when the server died, as etcd does when it can't write (a disk that is full is noticed before). It
// can't be started again in this process, which still holds its files; the process goes on, and may replace itself
// (exec) once the cause is gone.
func (e *Embedded) Failed() <-chan struct{} { return e.failed }

// Err says why the server died; nil while it lives.
func (e *Embedded) Err() error {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.err
}

func (e *Embedded) fail(err error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.err == nil {
		e.err = err
		close(e.failed)
	}
}

// Close stops the server. What was committed is on the disk before and after.
func (e *Embedded) Close() {
	e.closing.Do(func() {
		e.serving.Store(false)
		if e.stop != nil {
			e.stop()
			e.guard.Wait()
		}
		if e.server != nil {
			stopped := make(chan struct{})
			go func() {
				e.server.Close()
				close(stopped)
			}()
			select {
			case <-stopped:
			case <-time.After(stopLimit):
				e.log.Warn("the embedded etcd did not stop in time: it goes with the process", "error", e.Err())
				return // its files are still open, so the lock is kept
			}
		}
		if e.lock != nil {
			_ = e.lock.Close()
		}
	})
}

// fatalHook stands in for the end of the process, which etcd would choose when it can't write: nginx's driver and the
// API go on without a registry.
type fatalHook struct{ e *Embedded }

func (h fatalHook) OnWrite(entry *zapcore.CheckedEntry, fields []zapcore.Field) {
	err := errors.New(entry.Message)
	for _, f := range fields {
		if cause, ok := f.Interface.(error); ok && f.Type == zapcore.ErrorType {
			err = fmt.Errorf("%s: %w", entry.Message, cause)
		}
	}
	h.e.fail(fmt.Errorf("the embedded etcd has stopped: %w; mend the cause and restart sluice", err))
	zapcore.WriteThenGoexit.OnWrite(entry, fields)
}
