package registry

import (
	"sync"
	"time"
)

// Link is a Health that many may write: what an implementation knows of its connection.
type Link struct {
	mu  sync.Mutex
	now Health
}

// Start sets the state before the first answer.
func (l *Link) Start(why string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.now = Health{Since: time.Now(), Error: why}
}

// Health returns the state.
func (l *Link) Health() Health {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.now
}

// Up notes an answer and reports whether that is news.
func (l *Link) Up() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.now.Connected {
		return false
	}
	l.now = Health{Connected: true, Since: time.Now()}
	return true
}

// Down notes that there is no answer and reports whether that is news.
func (l *Link) Down(why string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	news := l.now.Connected
	if news {
		l.now = Health{Since: time.Now()}
	}
	l.now.Error = why
	return news
}
