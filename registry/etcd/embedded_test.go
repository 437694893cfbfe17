package etcd

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"

	"sluice/internal/testport"
	"sluice/registry"
)

func TestEmbeddedIsPrivate(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "etcd")
	e := server(t, EmbeddedConfig{Dir: dir})
	commit(t, open(t, e.ClientURL(), "f", impatient), "a", `{}`)
	if info, err := os.Stat(dir); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("the directory has mode %v, %v; want 0700", info.Mode(), err)
	}
	if want := "unix://" + dir + "/client.sock"; e.ClientURL() != want {
		t.Errorf("clients are told %s, want %s", e.ClientURL(), want)
	}
	// One socket, in that directory, and no other way in.
	sockets := 0
	if err := filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		if d.Type() == fs.ModeSocket {
			sockets++
		}
		return err
	}); err != nil || sockets != 1 {
		t.Errorf("there are %d sockets (%v), want 1", sockets, err)
	}
	if len(e.server.Peers) != 0 || len(e.server.Clients) != 1 {
		t.Errorf("it listens for %d peers and %d clients, want 0 and 1", len(e.server.Peers), len(e.server.Clients))
	}
}

func TestEmbeddedRefusesASecondProcess(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	e := server(t, EmbeddedConfig{Dir: dir})
	began := time.Now()
	if second, err := StartEmbedded(EmbeddedConfig{Dir: dir, Logger: slog.New(slog.DiscardHandler)}); err == nil {
		second.Close()
		t.Fatal("two servers use one directory")
	} else if !strings.Contains(err.Error(), "another sluice uses it") || time.Since(began) > 5*time.Second {
		t.Errorf("after %s: %v", time.Since(began), err)
	}
	commit(t, open(t, e.ClientURL(), "f", impatient), "a", `{}`) // the first one's socket was not taken away
}

func TestEmbeddedClientURL(t *testing.T) {
	t.Parallel()
	port := testport.Free(t)
	e := server(t, EmbeddedConfig{Dir: t.TempDir(), ClientURL: fmt.Sprintf("http://127.0.0.1:%d", port)})
	commit(t, open(t, e.ClientURL(), "f", impatient), "a", `{}`)
	for _, url := range []string{"http://0.0.0.0:2379", "http://10.0.0.1:2379", "https://127.0.0.1:2379", "http://127.0.0.1",
		"unix://relative", "unix:///" + strings.Repeat("x", 108), "nonsense"} {
		if e, err := StartEmbedded(EmbeddedConfig{Dir: t.TempDir(), ClientURL: url, Logger: slog.New(slog.DiscardHandler)}); err == nil {
			e.Close()
			t.Errorf("it listens on %s", url)
		}
	}
	if _, err := StartEmbedded(EmbeddedConfig{}); err == nil {
		t.Error("it runs without a directory")
	}
}

func TestEmbeddedInADeepDirectory(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), strings.Repeat("deep/", 30))
	for range 2 { // the same place after a restart
		e := server(t, EmbeddedConfig{Dir: dir})
		commit(t, open(t, e.ClientURL(), "f", impatient), "a", `{}`)
		path := filepath.Dir(strings.TrimPrefix(e.ClientURL(), "unix://"))
		if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o700 {
			t.Errorf("the sockets are in %s with mode %v, %v; want 0700", path, info.Mode(), err)
		}
		e.Close()
		t.Cleanup(func() { _ = os.RemoveAll(path) })
	}
}

func TestEmbeddedDamagedData(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	e := server(t, EmbeddedConfig{Dir: dir})
	e.Close()
	db := filepath.Join(dir, "data", "member", "snap", "db")
	if err := os.WriteFile(db, bytes.Repeat([]byte("garbage "), 8192), 0o600); err != nil {
		t.Fatal(err)
	}
	again, err := StartEmbedded(EmbeddedConfig{Dir: dir, Logger: slog.New(slog.DiscardHandler)})
	if err == nil {
		again.Close()
		t.Fatal("it started with a damaged database")
	}
	if !strings.Contains(err.Error(), dir) {
		t.Errorf("the error does not name the directory: %v", err)
	}
}

// TestQuotaAlarm fills the quota: the alarm shows as a Problem, what is there stays readable, nodes keep beating, and the
// alarm goes when there is room again.
func TestQuotaAlarm(t *testing.T) {
	t.Parallel()
	const quota = 2 << 20
	e := server(t, EmbeddedConfig{Dir: t.TempDir(), QuotaBytes: quota})
	r := open(t, e.ClientURL(), "f", impatient)
	putNode(t, r, "n1")
	w := watch(t, r, nil)
	w.until("the first", hasSeq(0))
	filler := strings.Repeat("x", 100_000)
	var err error
	for i := 0; err == nil && i < 200; i++ {
		_, err = r.Commit(t.Context(), registry.Tx{Ops: []registry.Op{{
			Ref: registry.Ref{Kind: registry.KindUpstream, Name: "a"}, Value: fmt.Appendf(nil, `{"i":%d,"x":%q}`, i, filler),
		}}})
	}
	if !errors.Is(err, rpctypes.ErrNoSpace) || !strings.Contains(err.Error(), "disarm") {
		t.Fatalf("the quota did not hold, or does not say how to mend it: %v", err)
	}
	s := w.until("the alarm", func(s registry.Snapshot) bool { return len(s.Problems) == 1 })
	if !strings.HasPrefix(s.Problems[0].Object, "registry/etcd/") || len(s.Objects) != 1 || len(s.Nodes) != 1 {
		t.Errorf("with the alarm: %+v, %d objects, %d nodes", s.Problems, len(s.Objects), len(s.Nodes))
	}
	putNode(t, r, "n1")

	// The history goes, and is compacted: the next look at the disk finds room.
	if _, err := r.client.Delete(t.Context(), r.keys.History, clientv3.WithPrefix()); err != nil {
		t.Fatal(err)
	}
	resp, err := r.client.Delete(t.Context(), r.keys.Objects, clientv3.WithPrefix())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.client.Compact(t.Context(), resp.Header.Revision, clientv3.WithCompactPhysical()); err != nil {
		t.Fatal(err)
	}
	guard := &diskGuard{e: e, quota: quota}
	eventually(t, "room is made", func() bool {
		guard.look(t.Context(), 1<<40)
		return len(e.server.Server.Alarms()) == 0
	})
	commit(t, r, "b", `{}`)
	r.alarmed <- struct{}{}
	w.until("no alarm", func(s registry.Snapshot) bool { return len(s.Problems) == 0 })
}

func TestDiskGuard(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	e := server(t, EmbeddedConfig{Dir: dir})
	e.stop() // its own guard finds an ample disk
	e.guard.Wait()
	r := open(t, e.ClientURL(), "f", impatient)
	commit(t, r, "a", `{}`)
	steps := []struct {
		free int64
		full bool
	}{
		{minFree + 1, false},
		{minFree - 1, true},
		{minFree + 1, true}, // not up and down
		{4 * minFree, false},
	}
	guard := &diskGuard{e: e, dir: dir, quota: DefaultQuotaBytes}
	if err := guard.reserve(); err != nil {
		t.Error(err)
	}
	for i, step := range steps {
		guard.look(t.Context(), step.free)
		_, err := r.Commit(t.Context(), registry.Tx{Ops: []registry.Op{{
			Ref: registry.Ref{Kind: registry.KindUpstream, Name: "a"}, Value: fmt.Appendf(nil, `{"i":%d}`, i),
		}}})
		if full := errors.Is(err, rpctypes.ErrNoSpace); full != step.full || !full && err != nil {
			t.Errorf("step %d, with %d bytes free: %v", i, step.free, err)
		}
	}
	if free, err := freeBytes(t.TempDir()); err != nil || free <= 0 {
		t.Errorf("free: %d, %v", free, err)
	}
	var st syscall.Stat_t
	if err := syscall.Stat(filepath.Join(dir, "data", "member", "snap", "db"), &st); err != nil || st.Blocks*512 < reserve {
		t.Errorf("the database has %d bytes of the disk (%v); %d are to be reserved", st.Blocks*512, err, int64(reserve))
	}
}

// TestFatalIsNotTheEnd logs what etcd logs when it can't write to its disk.
func TestFatalIsNotTheEnd(t *testing.T) {
	t.Parallel()
	var logged syncBuffer
	e := &Embedded{log: slog.New(slog.NewTextHandler(&logged, nil)), failed: make(chan struct{})}
	e.serving.Store(true)
	lg := zapTo(e.log, e.logLevel, fatalHook{e})
	for _, fatal := range []func(){
		func() { lg.Fatal("failed to save", zap.Error(fs.ErrInvalid)) },
		func() { lg.Panic("failed again", zap.Error(fs.ErrExist)) },
	} {
		survived := false
		var wg sync.WaitGroup
		wg.Go(func() {
			fatal()
			survived = true
		})
		wg.Wait()
		if survived {
			t.Error("the goroutine went on")
		}
	}
	<-e.Failed()
	if err := e.Err(); !errors.Is(err, fs.ErrInvalid) || !strings.Contains(err.Error(), "failed to save") {
		t.Errorf("Err is %v", err)
	}
	if !strings.Contains(logged.String(), "failed to save") {
		t.Errorf("it was not logged: %s", logged.String())
	}
	r, err := New(context.Background(), Config{Endpoints: []string{"unix:///nonexistent"}, Server: e, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if h := r.Health(); h.Connected || !strings.Contains(h.Error, "failed to save") {
		t.Errorf("Health is %+v", h)
	}
}

type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *syncBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *syncBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}
