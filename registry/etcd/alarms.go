package etcd

import (
	"context"
	"fmt"
	"time"

	"go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"

	"sluice/registry"
)

const noSpaceMend = "etcd has used up its quota, or its disk, and refuses to write. Make room (etcdctl compact, then etcdctl " +
	"defrag) or raise the quota, then: etcdctl alarm disarm. An embedded etcd does all that by itself once there is room"

// watchAlarms sends what etcd's alarms mean, at first and then now and again, and at once after a write was refused.
func (r *Registry) watchAlarms(ctx context.Context, news chan<- []registry.Problem) {
	tick := time.NewTicker(r.timing.alarms)
	defer tick.Stop()
	for {
		var resp *clientv3.AlarmResponse
		err := r.call(ctx, r.timing.call, func(ctx context.Context, c *clientv3.Client) (err error) {
			resp, err = c.AlarmList(ctx)
			return err
		})
		if err == nil { // else: away, which Health says, or not allowed to ask
			select {
			case news <- alarmProblems(resp.Alarms):
			case <-ctx.Done():
				return
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		case <-r.alarmed:
		}
	}
}

func alarmProblems(alarms []*etcdserverpb.AlarmMember) []registry.Problem {
	var out []registry.Problem
	for _, a := range alarms {
		p := registry.Problem{Object: fmt.Sprintf("registry/etcd/%x", a.MemberID)}
		switch a.Alarm {
		case etcdserverpb.AlarmType_NOSPACE:
			p.Message = noSpaceMend
		case etcdserverpb.AlarmType_CORRUPT:
			p.Message = "this member's data differ from those of the others: replace the member, as etcd's documentation on " +
				"data corruption describes"
		default:
			continue
		}
		out = append(out, p)
	}
	return registry.SortProblems(out)
}
