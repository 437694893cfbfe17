package etcd

import (
	"context"
	"syscall"
	"time"

	"go.etcd.io/etcd/api/v3/etcdserverpb"
)

const (
	diskInterval = 5 * time.Second
	// minFree is more than etcd takes at once: it allots 64 MB for each piece of its write-ahead log.
	minFree = 160 << 20
)

// guardDisk raises etcd's own NOSPACE alarm before the disk is full, as a full disk would kill the server, and lowers it
// when there is room again: on the disk and in the quota.
func (e *Embedded) guardDisk(ctx context.Context, dir string, quota int64) {
	tick := time.NewTicker(diskInterval)
	defer tick.Stop()
	for {
		if free, err := freeBytes(dir); err == nil {
			e.guardOnce(ctx, free, quota)
		}
		select {
		case <-ctx.Done():
			return
		case <-e.failed:
			return
		case <-tick.C:
		}
	}
}

func (e *Embedded) guardOnce(ctx context.Context, free, quota int64) {
	server := e.server.Server
	raised := false
	for _, a := range server.Alarms() {
		raised = raised || a.Alarm == etcdserverpb.AlarmType_NOSPACE
	}
	inUse := server.Backend().SizeInUse()
	switch {
	case free < minFree && !raised:
		e.log.Error("the disk is almost full: no changes are taken until there is room", "free_bytes", free, "wanted_bytes", 2*minFree)
		e.setAlarm(ctx, etcdserverpb.AlarmRequest_ACTIVATE)
	case raised && free > 2*minFree+inUse && inUse < quota/2:
		// Twice the room that raised it keeps it from going up and down. The quota is on the size of the file, which only
		// shrinks when it is written anew.
		if server.Backend().Size() > quota*3/4 {
			if err := server.Backend().Defrag(); err != nil {
				e.log.Warn("the database could not be written anew", "error", err)
				return
			}
		}
		e.log.Info("there is room again: changes are taken", "free_bytes", free, "in_use_bytes", inUse)
		e.setAlarm(ctx, etcdserverpb.AlarmRequest_DEACTIVATE)
	}
}

func (e *Embedded) setAlarm(ctx context.Context, action etcdserverpb.AlarmRequest_AlarmAction) {
	server := e.server.Server
	limited, cancel := context.WithTimeout(ctx, diskInterval)
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
	return int64(st.Bavail) * st.Bsize, nil //nolint:gosec // no disk has 2^63 blocks
}
