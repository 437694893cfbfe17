package main

import (
	"bytes"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"sluice/controlplane"
)

// output gathers what a process writes while it runs.
type output struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.String()
}

func TestEventsCommand(t *testing.T) {
	t.Parallel()
	in := startInstance(t, "")
	in.events.Add(
		controlplane.Event{Type: controlplane.EventNode, What: "joined", Objects: []string{"node/io/n1"}, Message: "10.0.0.1:6001"},
		controlplane.Event{Type: controlplane.EventApply, What: "live", Seq: 3, How: controlplane.Reload})
	stdout, stderr, code := in.sluice(t, "", "events")
	if code != 0 || !strings.Contains(stdout, "node  joined  node/io/n1: 10.0.0.1:6001") || !strings.Contains(stdout, "apply  live  seq 3  by reload") {
		t.Errorf("%d %s %s", code, stdout, stderr)
	}
	if stdout, _, _ = in.sluice(t, "", "events", "--type", "apply", "-o", "json"); strings.Count(stdout, "\n") != 2 || !strings.Contains(stdout, `"how":"reload"`) {
		t.Errorf("%s", stdout)
	}
	if _, stderr, code = in.sluice(t, "", "events", "--type", "nonsense"); code != 1 || !strings.Contains(stderr, "is unknown") {
		t.Errorf("%d %s", code, stderr)
	}

	// With -w it goes on, over an instance that does not answer, until it is interrupted.
	cmd := exec.CommandContext(t.Context(), "sluice", "events", "-w", "--api", "http://127.0.0.1:1,"+in.url)
	cmd.Env = os.Environ()
	var out output
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	deadline := time.Now().Add(time.Minute)
	for !strings.Contains(out.String(), "joined") {
		if time.Now().After(deadline) {
			t.Fatalf("it does not follow: %s", out.String())
		}
	}
	in.events.Add(controlplane.Event{Type: controlplane.EventAlarm, What: "raised", Message: "look"})
	for !strings.Contains(out.String(), "alarm  raised: look") {
		if time.Now().After(deadline) {
			t.Fatalf("it does not follow: %s", out.String())
		}
	}
	if err := cmd.Process.Signal(syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil && !strings.Contains(err.Error(), "interrupt") {
		t.Errorf("%v: %s", err, out.String())
	}
}
