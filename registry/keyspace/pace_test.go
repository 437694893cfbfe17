package keyspace

import (
	"testing"
	"time"
)

func TestPace(t *testing.T) {
	t.Parallel()
	var p Pace
	now := time.Now()
	for i := range 5 {
		if wait := p.Wait(now); wait > 0 {
			t.Errorf("after a calm, change %d waits for %s", i+1, wait)
		}
		p.Sent(now)
		now = now.Add(10 * time.Millisecond)
	}
	if wait := p.Wait(now); wait != 90*time.Millisecond {
		t.Errorf("in a storm a change waits for %s", wait)
	}
	if wait := p.Wait(now.Add(90 * time.Millisecond)); wait > 0 {
		t.Errorf("in a storm, a change waits for %s after a while", wait)
	}
	if wait := p.Wait(now.Add(2 * time.Second)); wait > 0 {
		t.Errorf("after the storm a change waits for %s", wait)
	}
}
