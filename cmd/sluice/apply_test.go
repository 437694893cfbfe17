package main

import (
	"strings"
	"testing"
	"time"

	"sluice/controlplane"
	"sluice/registry"
)

const applied = `
upstreams: {io: {}}
sites: {chat: {hosts: ["*"], listeners: [{port: 8080}], routes: [{upstream: io}]}}
`

func TestApplyWaits(t *testing.T) {
	t.Parallel()
	old := time.Now()
	set := func(change func(*controlplane.Status)) func(*controlplane.Status) { return change }
	tests := []struct {
		name string
		// before is the status before the commit, after what it becomes once the instance has looked twice.
		before, after func(*controlplane.Status)
		wait          string
		code          int
		want          string
	}{
		{"live", nil, set(func(s *controlplane.Status) { s.SeqWanted, s.SeqLive = 1, 1 }), "20s", 0, "seq 1 is live on gateway edge-1"},
		{"never", nil, nil, "2s", exitNotLive, "seq 1 is committed, but not live everywhere within 2s:\n  gateway edge-1: it is at seq 0, in_step"},
		{"waits", nil, set(func(s *controlplane.Status) {
			s.SeqWanted, s.Wait = 1, &controlplane.Wait{What: "1 node joins", Why: "3 old generations"}
		}), "1s", exitNotLive, "gateway edge-1: waiting: 1 node joins; 3 old generations"},
		{"refused", nil, set(func(s *controlplane.Status) {
			s.SeqWanted, s.Failure = 1, &controlplane.Failure{At: old.Add(time.Second), Message: "[emerg] bogus"}
		}), "20s", exitNotLive, "gateway edge-1: the last good configuration serves: [emerg] bogus"},
		{"an older failure goes away", set(func(s *controlplane.Status) {
			s.SeqWanted, s.Failure = 1, &controlplane.Failure{At: old, Message: "[emerg] older"}
		}), set(func(s *controlplane.Status) { s.SeqWanted, s.SeqLive, s.Failure = 1, 1, nil }), "20s", 0, "seq 1 is live"},
		{"an object is left out", nil, set(func(s *controlplane.Status) {
			s.SeqWanted, s.SeqLive = 1, 1
			s.Problems = []registry.Problem{{Object: "site/other", Message: "x"}, {Object: "site/chat", Field: "/certificate", Message: "cannot be read"}}
		}), "20s", exitNotLive, "gateway edge-1: site/chat /certificate: cannot be read"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			in := startInstance(t, "")
			change := func(f func(*controlplane.Status)) {
				if f != nil {
					s := *in.status.Load()
					f(&s)
					in.status.Store(&s)
				}
			}
			change(tt.before)
			type end struct {
				stdout, stderr string
				code           int
			}
			ended := make(chan end, 1)
			go func() {
				stdout, stderr, code := in.sluice(t, applied, "apply", "-f", "-", "--wait", tt.wait)
				ended <- end{stdout, stderr, code}
			}()
			eventually(t, "the command looks", func() bool { return in.asked.Load() >= 2 })
			change(tt.after)
			got := <-ended
			stdout, stderr, code := got.stdout, got.stderr, got.code
			if code != tt.code || !strings.Contains(stderr, tt.want) {
				t.Errorf("exit code %d, want %d; stderr %q, want %q", code, tt.code, stderr, tt.want)
			}
			if !strings.Contains(stdout, "created   site/chat\n") {
				t.Error(stdout)
			}
		})
	}
}
