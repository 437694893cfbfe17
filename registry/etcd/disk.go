package etcd

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"go.etcd.io/etcd/api/v3/etcdserverpb"
)

const (
	diskInterval = time.Second
	// reserve is more than can be written between two looks.
	reserve    = 64 << 20
	alarmLimit = 5 * time.Second
	// minFree is more than etcd takes at once: it allots 64 MB for each piece of its write-ahead log.
	minFree = 160 << 20
	// rewriteInterval is short beside that of compaction, before which there is nothing to gain.
	rewriteInterval = 10 * time.Minute
)

// diskGuard raises etcd's own NOSPACE alarm before the disk is full, as a full disk would kill the server, and lowers it
// when there is room again: on the disk and in the quota.
type diskGuard struct {
	e         *Embedded
	dir       string
	quota     int64
	every     time.Duration // the database is written anew at most this often
	rewritten time.Time
}

func (g *diskGuard) run(ctx context.Context) {
	tick := time.NewTicker(diskInterval)
	defer tick.Stop()
	reserveFailed := false
	for {
		if err := g.reserve(); err != nil && !reserveFailed {
			reserveFailed = true
			g.e.log.Warn("no disk space can be reserved for the database", "error", err)
		}
		if free, err := freeBytes(g.dir); err == nil {
			g.look(ctx, free)
		}
		select {
		case <-ctx.Done():
			return
		case <-g.e.failed:
			return
		case <-tick.C:
		}
	}
}

func (g *diskGuard) look(ctx context.Context, free int64) {
	db := g.e.server.Server.Backend()
	raised := false
	for _, a := range g.e.server.Server.Alarms() {
		raised = raised || a.Alarm == etcdserverpb.AlarmType_NOSPACE
	}
	switch {
	case free < minFree && !raised:
		g.e.log.Error("the disk is almost full: no changes are taken until there is room", "free_bytes", free, "wanted_bytes", 2*minFree)
		g.e.setAlarm(ctx, etcdserverpb.AlarmRequest_ACTIVATE)
	case raised && free > 2*minFree+db.Size(): // more room than raised it, so that it does not go up and down
		if !g.roomInQuota() {
			return
		}
		g.e.log.Info("there is room again: changes are taken", "free_bytes", free, "database_bytes", db.Size())
		g.e.setAlarm(ctx, etcdserverpb.AlarmRequest_DEACTIVATE)
	}
}

// reserve makes sure that the database can grow a little even when the disk is suddenly full: what etcd has taken in and
// can't write would be its end. Blocks beyond the end of the file do not change its size.
func (g *diskGuard) reserve() error {
	f, err := os.OpenFile(filepath.Join(g.dir, "data", "member", "snap", "db"), os.O_RDWR, 0)
	if err != nil {
		return err
	}
	err = syscall.Fallocate(int(f.Fd()), fallocKeepSize, 0, g.e.server.Server.Backend().Size()+reserve)
	return errors.Join(err, f.Close())
}

// fallocKeepSize is FALLOC_FL_KEEP_SIZE of linux/falloc.h, which package syscall lacks.
const fallocKeepSize = 1

// roomInQuota reports whether a quarter of the quota is free. The quota is on the size of the file, and that shrinks only
// when the file is written anew. While the alarm is raised, nobody misses the moment that this takes.
func (g *diskGuard) roomInQuota() bool {
	db := g.e.server.Server.Backend()
	if db.Size() <= g.quota*3/4 {
		return true
	}
	if time.Since(g.rewritten) < g.every {
		return false
	}
	g.rewritten = time.Now()
	if err := db.Defrag(); err != nil {
		g.e.log.Warn("the database could not be written anew", "error", err)
	}
	return db.Size() <= g.quota*3/4
}

func (e *Embedded) setAlarm(ctx context.Context, action etcdserverpb.AlarmRequest_AlarmAction) {
	server := e.server.Server
	limited, cancel := context.WithTimeout(ctx, alarmLimit)
	defer cancel()
	if _, err := server.Alarm(limited, &etcdserverpb.AlarmRequest{
		Action: action, MemberID: uint64(server.MemberID()), Alarm: etcdserverpb.AlarmType_NOSPACE,
	}); err != nil && ctx.Err() == nil {
		e.log.Warn("the alarm could not be set", "action", action.String(), "error", err)
	}
}

// freeBytes is what a process without privileges may still write where dir is.
func freeBytes(dir string) (int64, error) {
	var st syscall.Statfs_t
	if err := syscall.Statfs(dir, &st); err != nil {
		return 0, err
	}
	return int64(st.Bavail) * st.Bsize, nil
}
