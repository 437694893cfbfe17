package main

import (
	"fmt"
	"io"
	"log/slog"
	"os"
	"sync"
)

// auditLog returns the logger of the audit log, nil for none, and what closes it.
func (l *listenFlags) auditLogger(log *slog.Logger) (*slog.Logger, io.Closer, error) {
	switch l.auditLog {
	case "":
		return nil, io.NopCloser(nil), nil
	case "-":
		return slog.New(slog.NewJSONHandler(os.Stderr, nil)), io.NopCloser(nil), nil
	}
	file := &movingFile{path: l.auditLog, log: log}
	if err := file.open(); err != nil {
		return nil, nil, fmt.Errorf("open --audit-log: %w", err)
	}
	return slog.New(slog.NewJSONHandler(file, nil)), file, nil
}

// movingFile appends to a file, and to another one of the same name when that one was moved away: so logrotate need tell
// nobody.
type movingFile struct {
	path string
	log  *slog.Logger // is told when lines are lost

	mu      sync.Mutex
	file    *os.File
	failing bool
}

func (m *movingFile) open() error {
	file, err := os.OpenFile(m.path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	if m.file != nil {
		m.file.Close()
	}
	m.file = file
	return nil
}

// Write implements io.Writer. When the file can't be opened anew, the one that was moved away still takes the line.
func (m *movingFile) Write(p []byte) (int, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	n, err := m.write(p)
	if failing := err != nil; failing != m.failing {
		m.failing = failing
		if failing {
			m.log.Error("the audit log takes no lines; what happens is not written down", "error", err)
		} else {
			m.log.Info("the audit log takes lines again")
		}
	}
	return n, err
}

func (m *movingFile) write(p []byte) (int, error) {
	have, err := m.file.Stat()
	if err != nil {
		return 0, err
	}
	if is, err := os.Stat(m.path); err != nil || !os.SameFile(have, is) {
		_ = m.open()
	}
	return m.file.Write(p)
}

// Close implements io.Closer.
func (m *movingFile) Close() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.file.Close()
}
