package main

import (
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"sluice/controlplane"
	"sluice/registry"
)

func TestMachine(t *testing.T) {
	t.Parallel()
	good := func() machine {
		return machine{proc: fstest.MapFS{
			"sys/net/ipv4/ip_local_port_range": {Data: []byte("32768\t60999\n")},
			"sys/net/core/somaxconn":           {Data: []byte("4096\n")},
			"meminfo":                          {Data: []byte("MemTotal:  8000000 kB\nMemAvailable:  4096000 kB\n")},
		}, openFiles: 100_000}
	}
	set := func(path, text string) func(*machine) {
		return func(m *machine) { m.proc.(fstest.MapFS)[path] = &fstest.MapFile{Data: []byte(text)} }
	}
	for name, tt := range map[string]struct {
		change func(*machine)
		check  string // that warns; empty: none
		says   string
	}{
		"all is well":        {func(*machine) {}, "", ""},
		"few descriptors":    {func(m *machine) { m.openFiles = 1024 }, "descriptors", "LimitNOFILE=32768"},
		"few ports":          {set("sys/net/ipv4/ip_local_port_range", "50000 60999"), "ports", "11000 connections"},
		"unreadable ports":   {set("sys/net/ipv4/ip_local_port_range", "x"), "ports", "cannot be read"},
		"a short queue":      {set("sys/net/core/somaxconn", "128"), "backlog", "somaxconn=4096"},
		"little memory":      {set("meminfo", "MemAvailable: 100000 kB\n"), "memory", "97 MB"},
		"an older kernel":    {set("meminfo", "MemFree: 1 kB\n"), "memory", "no MemAvailable"},
		"a queue of nothing": {set("sys/net/core/somaxconn", ""), "backlog", "cannot be read"},
	} {
		m := good()
		tt.change(&m)
		for _, f := range m.examine(16384) {
			warns := f.Check == tt.check
			if (f.Level == warn) != warns || warns && !strings.Contains(f.Message+f.Mend, tt.says) {
				t.Errorf("%s: %+v", name, f)
			}
		}
	}
}

func TestExamineGateways(t *testing.T) {
	t.Parallel()
	now := time.Now()
	healthy := controlplane.Status{Gateway: "edge-1", Version: "1", Registry: controlplane.RegistryHealth{Connected: true}, Nginx: controlplane.Live{Running: true}}
	for name, tt := range map[string]struct {
		change func(*controlplane.Status)
		level  level
		says   string
	}{
		"healthy":  {func(*controlplane.Status) {}, fine, "in step"},
		"nginx":    {func(s *controlplane.Status) { s.Nginx.Running = false }, fail, "nginx does not run"},
		"failure":  {func(s *controlplane.Status) { s.Failure = &controlplane.Failure{Message: "[emerg] bogus"} }, fail, "[emerg] bogus"},
		"registry": {func(s *controlplane.Status) { s.Registry.Connected = false }, fail, "the registry is away"},
		"stale":    {func(s *controlplane.Status) { s.Stale = true }, warn, "its disk held"},
		"alarm":    {func(s *controlplane.Status) { s.Alarms = []registry.Problem{{Object: "upstream/io", Message: "held"}} }, fail, "upstream/io: held"},
		"problem":  {func(s *controlplane.Status) { s.Problems = []registry.Problem{{Object: "site/a", Message: "bad"}} }, warn, "site/a: bad"},
		"certificate": {func(s *controlplane.Status) {
			s.Certificates = []controlplane.CertificateStatus{{Name: "web", NotAfter: now.Add(50 * time.Hour)}}
		}, warn, "expires in 2 days"},
		"expired": {func(s *controlplane.Status) {
			s.Certificates = []controlplane.CertificateStatus{{Name: "web", NotAfter: now.Add(-time.Hour)}}
		}, fail, "has expired"},
	} {
		s := healthy
		tt.change(&s)
		got := examineGateways([]controlplane.Status{s}, now)
		if len(got) != 1 || got[0].Level != tt.level || !strings.Contains(got[0].Message, tt.says) {
			t.Errorf("%s: %+v", name, got)
		}
	}
	other := healthy
	other.Version = "2"
	if got := examineGateways([]controlplane.Status{healthy, other}, now); got[len(got)-1].Check != "versions" {
		t.Errorf("two versions: %+v", got)
	}
}

func TestClockSkew(t *testing.T) {
	t.Parallel()
	now := time.Now()
	for far, want := range map[time.Duration]bool{0: false, time.Minute: true, -time.Minute: true} {
		header := now.Add(far).UTC().Format("Mon, 02 Jan 2006 15:04:05 GMT")
		if got := clockSkew(header, now, now.Add(time.Millisecond)); (got > 2*time.Second) != want {
			t.Errorf("%s: %s", far, got)
		}
	}
}

// The real nginx of this machine, and an instance.
func TestDoctorCommand(t *testing.T) {
	t.Parallel()
	in := startInstance(t, "")
	dir := t.TempDir()
	stdout, stderr, code := in.sluice(t, "", "doctor", "--state-dir", dir)
	if code != 0 || !strings.Contains(stdout, "ok    nginx") || !strings.Contains(stdout, "ok    gateway edge-1") || strings.Contains(stdout, "FAIL") {
		t.Errorf("code %d\n%s%s", code, stdout, stderr)
	}
	if err := os.Chmod(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	stdout, _, code = in.sluice(t, "", "doctor", "--state-dir", dir, "--local", "-o", "json")
	var findings []finding
	if err := json.Unmarshal([]byte(stdout), &findings); err != nil || code != exitFailed {
		t.Fatalf("%v, code %d: %s", err, code, stdout)
	}
	if last := findings[len(findings)-1]; last.Level != fail || last.Check != "state directory" || !strings.Contains(last.Mend, "chmod") {
		t.Errorf("%+v", last)
	}
	for args, says := range map[string]string{
		"--api http://127.0.0.1:1": "is sluice running?",
		"--nginx /nonexistent":     "install nginx",
	} {
		stdout, _, code := in.sluice(t, "", append(strings.Fields("doctor "+args), "--state-dir", t.TempDir())...)
		if code != exitFailed || !strings.Contains(stdout, says) {
			t.Errorf("%s: code %d\n%s", args, code, fmt.Sprint(stdout))
		}
	}
}
