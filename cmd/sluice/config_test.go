package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/spf13/pflag"
)

// testFlags are flags of several types.
type testFlags struct {
	*pflag.FlagSet
	name  string
	limit int
	wait  time.Duration
	list  []string
}

func newTestFlags() *testFlags {
	f := &testFlags{FlagSet: pflag.NewFlagSet("test", pflag.ContinueOnError)}
	f.StringVar(&f.name, "state-dir", "default", "")
	f.IntVar(&f.limit, "limit", 1, "")
	f.DurationVar(&f.wait, "wait", time.Second, "")
	f.StringSliceVar(&f.list, "groups", nil, "")
	return f
}

func writeFile(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "sluice.yaml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// The command line comes first, then the environment, then the file.
func TestFillFlagsOrder(t *testing.T) {
	t.Setenv("SLUICE_STATE_DIR", "environment")
	t.Setenv("SLUICE_LIMIT", "2")
	file := writeFile(t, "state-dir: file\nlimit: 3\nwait: 4s\ngroups: [a, b]\n")
	flags := newTestFlags()
	if err := flags.Parse([]string{"--state-dir", "command line"}); err != nil {
		t.Fatal(err)
	}
	if err := fillFlags(flags.FlagSet, file); err != nil {
		t.Fatal(err)
	}
	if flags.name != "command line" || flags.limit != 2 || flags.wait != 4*time.Second {
		t.Errorf("state-dir %q, limit %d, wait %s", flags.name, flags.limit, flags.wait)
	}
	if diff := cmp.Diff([]string{"a", "b"}, flags.list); diff != "" {
		t.Error(diff)
	}
}

func TestFillFlagsRefuses(t *testing.T) {
	for _, tt := range []struct{ name, env, file, want string }{
		{"an unknown setting", "", "limit: 1\nlimits: 2\n", `sluice.yaml:2: unknown setting "limits"`},
		{"a bad value", "", "\nlimit: many\n", `sluice.yaml:2: setting limit`},
		{"a mapping", "", "limit: {a: 1}\n", "takes a plain value"},
		{"no mapping", "", "- limit\n", "must be a mapping"},
		{"no YAML", "", "limit: [1\n", "sluice.yaml"},
		{"the file's own name", "", "config: x\n", `unknown setting "config"`},
		{"a bad value of the environment", "many", "", "environment variable SLUICE_LIMIT"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if tt.env != "" {
				t.Setenv("SLUICE_LIMIT", tt.env)
			}
			file := ""
			if tt.file != "" {
				file = writeFile(t, tt.file)
			}
			flags := newTestFlags()
			flags.String("config", "", "")
			if err := fillFlags(flags.FlagSet, file); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error %v, want one with %q", err, tt.want)
			}
		})
	}
	flags := newTestFlags()
	if err := fillFlags(flags.FlagSet, filepath.Join(t.TempDir(), "missing.yaml")); err == nil {
		t.Error("a file that is missing is no error")
	}
	if err := fillFlags(flags.FlagSet, writeFile(t, "# nothing\n")); err != nil {
		t.Errorf("an empty file: %v", err)
	}
}

func TestReadKey(t *testing.T) {
	t.Parallel()
	for text, ok := range map[string]bool{
		strings.Repeat("ab", 32) + "\n":                true,
		"AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=": true,
		strings.Repeat("ab", 16):                       false,
		"":                                             false,
	} {
		key, err := readKey(writeFile(t, text))
		if ok != (err == nil && len(key) == secretsKeyBytes) {
			t.Errorf("%q: %d bytes, %v", text, len(key), err)
		}
	}
}
