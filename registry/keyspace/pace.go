package keyspace

import "time"

// A Snapshot is a copy of thousands of nodes. The first ones after a calm are sent at once, those of a storm at a distance.
const (
	calm     = time.Second
	distance = 100 * time.Millisecond
)

// Pace says when the next Snapshot may be sent.
type Pace struct {
	sent [5]time.Time // oldest first
}

// Sent notes that one was sent.
func (p *Pace) Sent(now time.Time) {
	copy(p.sent[:], p.sent[1:])
	p.sent[len(p.sent)-1] = now
}

// Wait returns how long the next one has to wait; nothing, or less, when it may be sent at once.
func (p *Pace) Wait(now time.Time) time.Duration {
	if now.Sub(p.sent[0]) > calm {
		return 0
	}
	return distance - now.Sub(p.sent[len(p.sent)-1])
}
