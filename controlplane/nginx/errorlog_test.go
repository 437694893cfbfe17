package nginx

import (
	"os"
	"path/filepath"
	"slices"
	"testing"
)

func TestParseLine(t *testing.T) {
	t.Parallel()
	for line, want := range map[string]logLine{
		"2026/11/23 18:03:07 [emerg] 12#34: bind() to 0.0.0.0:80 failed (98: Address already in use)": {"emerg", 12, "bind() to 0.0.0.0:80 failed (98: Address already in use)"},
		"nginx: [warn] something in /a/b:1":                                    {"warn", 0, "something in /a/b:1"},
		"2026/11/23 18:03:07 [warn] 12#12: *7 upstream sent":                   {"warn", 12, "*7 upstream sent"},
		"nginx: the configuration file /a syntax is ok":                        {},
		"stack traceback:":                                                     {},
		"x 2026/11/23 18:03:07 [emerg] 1#1: not at the start of the line":      {},
		"2026/11/23 18:03:07 [error] 12#12: init_by_lua error: (command line)": {"error", 12, "init_by_lua error: (command line)"},
	} {
		got, ok := parseLine(line)
		if got != want || ok != (want != logLine{}) {
			t.Errorf("%q: %+v, %v; want %+v", line, got, ok, want)
		}
	}
}

func TestFatal(t *testing.T) {
	t.Parallel()
	for line, want := range map[logLine]bool{
		{"emerg", 1, "still could not bind()"}:                                            true,
		{"emerg", 1, "bind() to 0.0.0.0:80 failed (98: Address already in use)"}:          false, // four more tries
		{"emerg", 1, "bind() to 0.0.0.0:80 failed (13: Permission denied)"}:               true,
		{"emerg", 2, "still could not bind()"}:                                            false, // of another process
		{"alert", 1, "worker process 7 exited with fatal code 2 and cannot be respawned"}: true,
		{"alert", 1, "worker process 7 exited on signal 9"}:                               false,
	} {
		if got := line.fatal(1); got != want {
			t.Errorf("%s: fatal %v, want %v", line, got, want)
		}
	}
}

func TestLogTail(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "error.log")
	write := func(text string, flags int) {
		t.Helper()
		f, err := os.OpenFile(file, os.O_CREATE|os.O_WRONLY|flags, 0o600)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.WriteString(text); err != nil {
			t.Fatal(err)
		}
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
	}
	write("nginx: [warn] old\n", os.O_APPEND)
	tail := openTail(file)
	defer func() { tail.close() }()
	reads := func(want ...string) {
		t.Helper()
		var got []string
		for _, l := range tail.lines() {
			got = append(got, l.text)
		}
		if !slices.Equal(got, want) {
			t.Errorf("read %q, want %q", got, want)
		}
	}
	reads()
	write("nginx: [warn] a\nnginx: [wa", os.O_APPEND)
	reads("a")
	write("rn] b\n", os.O_APPEND)
	reads("b")
	write("nginx: [warn] c\n", os.O_APPEND)
	if err := os.Rename(file, file+".1"); err != nil {
		t.Fatal(err)
	}
	reads("c")
	write("nginx: [warn] d\n", os.O_APPEND)
	reads("d")
	write("", os.O_TRUNC)
	reads()
	write("nginx: [warn] f\n", os.O_APPEND)
	reads("f")

	missing := openTail(file + ".new")
	if missing.skipped || missing.lines() != nil {
		t.Error("a log that does not exist yet is nothing to skip")
	}
	if device := openTail(os.DevNull); !device.skipped {
		t.Error("a device cannot be read")
	}
}
