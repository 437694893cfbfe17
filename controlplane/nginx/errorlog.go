package nginx

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
)

// logTail reads what is added to nginx's error log from now on, over a rotation too: nginx opens its logs anew at a
// reload.
type logTail struct {
	path    string
	file    *os.File // nil when the log does not exist yet, or is no file
	partial string   // a line whose end was not there yet
	skipped bool     // the log cannot be read: nginx's words are elsewhere
}

func openTail(path string) *logTail {
	t := &logTail{path: path}
	if info, err := os.Stat(path); err == nil && !info.Mode().IsRegular() {
		t.skipped = true
		return t
	}
	file, err := os.Open(path)
	if err != nil {
		t.skipped = !os.IsNotExist(err)
		return t
	}
	if _, err := file.Seek(0, io.SeekEnd); err != nil {
		t.skipped = true
		_ = file.Close()
		return t
	}
	t.file = file
	return t
}

func (t *logTail) close() {
	if t.file != nil {
		_ = t.file.Close()
	}
}

// lines returns the complete lines that came since the last call.
func (t *logTail) lines() []logLine {
	if t.skipped {
		return nil
	}
	text := t.partial
	if t.file != nil {
		text += t.rest()
	}
	if now, err := os.Stat(t.path); err == nil && !t.reads(now) {
		if file, err := os.Open(t.path); err == nil {
			t.close()
			t.file = file
			text += t.rest()
		}
	}
	end := strings.LastIndexByte(text, '\n') + 1
	t.partial = text[end:]
	var lines []logLine
	for line := range strings.Lines(text[:end]) {
		if parsed, ok := parseLine(strings.TrimSuffix(line, "\n")); ok {
			lines = append(lines, parsed)
		}
	}
	return lines
}

// reads says whether the tail has the file open that info is about, and has not passed its end.
func (t *logTail) reads(info os.FileInfo) bool {
	if t.file == nil {
		return false
	}
	open, err := t.file.Stat()
	if err != nil || !os.SameFile(open, info) {
		return false
	}
	offset, err := t.file.Seek(0, io.SeekCurrent)
	return err == nil && offset <= info.Size() // else it was truncated
}

// logPiece is as much of a log as one look reads: a busy site's log is not for us.
const logPiece = 1 << 20

func (t *logTail) rest() string {
	text, _ := io.ReadAll(io.LimitReader(t.file, logPiece))
	return string(text)
}

// logLine is one line of nginx's, from a log or from its standard error.
type logLine struct {
	level string // "emerg", "alert", "crit", "error", "warn" …
	pid   int    // zero on standard error, where nginx leaves it out
	text  string
}

func (l logLine) String() string { return "[" + l.level + "] " + l.text }

// lineForm is "2026/11/23 18:03:07 [emerg] 14939#14939: text", and "nginx: [emerg] text" on standard error.
var lineForm = regexp.MustCompile(`^(?:nginx: |\d{4}/\d\d/\d\d \d\d:\d\d:\d\d )\[(\w+)\] (?:(\d+)#\d+: )?(.*)$`)

func parseLine(line string) (logLine, bool) {
	m := lineForm.FindStringSubmatch(line)
	if m == nil {
		return logLine{}, false
	}
	pid, _ := strconv.Atoi(m[2])
	return logLine{level: m[1], pid: pid, text: m[3]}, true
}

// severe says whether the line tells of something that failed.
func (l logLine) severe() bool {
	switch l.level {
	case "emerg", "alert", "crit", "error":
		return true
	}
	return false
}

// bindRetry is what nginx writes for each of its five tries to bind a port. The last word is "still could not bind()".
func (l logLine) bindRetry() bool {
	return strings.HasPrefix(l.text, "bind() to ") && strings.Contains(l.text, "(98: ")
}

// fatal says that the reload has failed for good: an [emerg] of the master, or workers that cannot live.
func (l logLine) fatal(master int) bool {
	return l.pid == master && (l.level == "emerg" && !l.bindRetry() || strings.Contains(l.text, "cannot be respawned"))
}

// words joins lines without repeating one, and without the directory that they are about: it says nothing to people.
func words(lines []logLine, dirs ...string) string {
	var out []string
	seen := map[string]bool{}
	for _, line := range lines {
		text := line.String()
		for _, dir := range dirs {
			text = strings.ReplaceAll(text, dir+string(filepath.Separator), "")
		}
		if !seen[text] {
			seen[text] = true
			out = append(out, text)
		}
	}
	return strings.Join(out, "\n")
}

// errorLog returns the path of nginx's main error log: ours, or, where it is the operator's, what the master's standard
// error is. nginx lets that follow its log.
func (d *Driver) errorLog(master process) string {
	if d.o.Mode == Full {
		return filepath.Join(d.o.Dir, "logs", "error.log")
	}
	path, err := os.Readlink(fmt.Sprintf("/proc/%d/fd/2", master.pid))
	if err != nil {
		return os.DevNull
	}
	return path
}
