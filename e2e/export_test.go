package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"sluice/controlplane"
)

// The state goes from an embedded etcd to another etcd, to Consul, and to an embedded etcd again. Each time the gateway there
// renders the same bytes: positions of ip_hash that have a history, an override, and a certificate whose key is in the
// registry. The key is seen nowhere on its way.
func TestMigration(t *testing.T) {
	t.Parallel()
	dir := tempDir(t)
	writePair(t, dir, 7)
	file := func(name, text string) string {
		path := filepath.Join(dir, name)
		if text != "" {
			if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		return path
	}
	read := func(name string) string {
		text, err := os.ReadFile(file(name, ""))
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	keyFile, wrongFile := file("export.key", strings.Repeat("5e", 32)), file("wrong.key", strings.Repeat("5f", 32))
	secrets := file("secrets.key", strings.Repeat("77", 32))
	indented := func(name string) string {
		return "|\n      " + strings.ReplaceAll(strings.TrimSpace(read(name)), "\n", "\n      ")
	}

	g := startGateway(t, GatewayOptions{Name: "first", Args: []string{"--secrets-key-file", secrets}})
	port := g.Port
	g.Apply(fmt.Sprintf(`
upstreams:
  io: {balance: {method: ip_hash}, check: {type: none}} # nobody is at its ports
certificates:
  main:
    chain: %s
    key: %s
sites:
  chat: {hosts: ["*"], listeners: [{port: %d, tls: true}], certificate: main, routes: [{upstream: io}]}
`, indented("chain.pem"), indented("key.pem"), port))
	for i, id := range []string{"n4", "n2", "n3", "n1"} { // one after the other, so not in the order of their names
		g.putNode(id, 7001+i, true)
		g.WaitNodes(20*time.Second, i+1)
	}
	g.putNode("n2", 0, false)
	g.WaitNodes(20*time.Second, 3)
	g.Apply(`overrides: {io/n3: {state: draining, note: "new kernel"}}`)
	revision := g.WaitLive(20 * time.Second).RevisionLive

	var said strings.Builder
	gateways := []*Gateway{g}
	cli := func(g *Gateway, args ...string) {
		t.Helper()
		out, err := g.CLI(t.Context(), "", args...)
		if err != nil {
			t.Fatal(err)
		}
		said.WriteString(out)
	}
	stations := []string{startEtcd(t, nil).URL, startConsul(t, nil).URL, ""}
	for i, registry := range stations {
		name := fmt.Sprintf("export-%d.json", i)
		cli(g, "export", "-o", file(name, ""), "--key-file", keyFile)
		g.Stop() // its nginx goes along, and leaves the port

		g = startGateway(t, GatewayOptions{Name: fmt.Sprintf("to-%d", i), Registry: registry, Args: []string{"--secrets-key-file", secrets}})
		gateways = append(gateways, g)
		for i, id := range []string{"n1", "n3", "n4"} { // before the state, so that they take the positions that they had
			g.putNode(id, []int{7004, 7003, 7001}[i], true)
		}
		for _, wrong := range [][]string{{"--key-file", wrongFile}, nil} {
			if out, err := g.CLI(t.Context(), "", append([]string{"restore", "-f", file(name, "")}, wrong...)...); err == nil {
				t.Errorf("restored with %v: %s", wrong, out)
			}
		}
		if seq := g.Status().SeqWanted; seq != 0 {
			t.Errorf("what was refused made seq %d", seq)
		}
		cli(g, "restore", "-f", file(name, ""), "--key-file", keyFile, "--dry-run")
		cli(g, "restore", "-f", file(name, ""), "--key-file", keyFile, "--wait", "30s")
		g.Wait(20*time.Second, "the same revision is live", func(s controlplane.Status) error {
			if s.RevisionLive != revision {
				return fmt.Errorf("revision %s, want %s", s.RevisionLive, revision)
			}
			return nil
		})
		eventually(t, 10*time.Second, "the certificate is shown", func(ctx context.Context) error {
			if n, err := serial(ctx, fmt.Sprintf("127.0.0.1:%d", port), "chat.example.com"); err != nil || n != 7 {
				return fmt.Errorf("serial %d: %w", n, err)
			}
			return nil
		})
		cli(g, "history", "-o", "json")
		cli(g, "events", "-o", "json")
		cli(g, "describe", "certificate/main")
	}

	secret := strings.Split(read("key.pem"), "\n")[1]
	for _, g := range gateways {
		said.WriteString(g.Output())
		err := filepath.WalkDir(filepath.Join(g.Dir, "etcd"), func(path string, d fs.DirEntry, err error) error {
			if errors.Is(err, fs.ErrNotExist) || err == nil && !d.Type().IsRegular() {
				return nil // of a gateway with a registry elsewhere
			}
			data, err := os.ReadFile(path)
			if bytes.Contains(data, []byte(secret)) {
				t.Errorf("the private key is in the registry in the clear: %s", path)
			}
			return err
		})
		if err != nil {
			t.Error(err)
		}
	}
	for i := range stations {
		path := file(fmt.Sprintf("export-%d.json", i), "")
		said.WriteString(read(filepath.Base(path)))
		if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, %v", path, info.Mode(), err)
		}
	}
	if strings.Contains(said.String(), secret) {
		t.Error("the private key is in an export, an answer or a log")
	}
}

// A sluice that is killed in the middle of a restore of thousands of objects, its etcd with it, goes on with the same command.
func TestRestoreIsKilled(t *testing.T) {
	t.Parallel()
	const objects = 2500
	upstreams := make(map[string]any, objects)
	for i := range objects {
		upstreams[fmt.Sprintf("u%d", i)] = map[string]any{"service": "io"}
	}
	text, err := json.Marshal(map[string]any{"format": 1, "seq": 9, "at": "2026-01-02T15:04:05Z", "state": map[string]any{"upstreams": upstreams}})
	if err != nil {
		t.Fatal(err)
	}
	g := startGateway(t, GatewayOptions{})
	cut := make(chan error, 1)
	go func() {
		_, err := g.CLI(t.Context(), string(text), "restore", "-f", "-")
		cut <- err
	}()
	var history struct{ Seq int }
	for deadline := time.Now().Add(30 * time.Second); history.Seq < 2; {
		answer, err := g.get(t.Context(), "/v1/history?limit=1")
		if err == nil {
			err = json.Unmarshal(answer, &history)
		}
		if err != nil || time.Now().After(deadline) {
			t.Fatalf("seq %d: %v", history.Seq, err)
		}
	}
	g.Kill()
	if err := <-cut; err == nil {
		t.Fatal("the kill came too late")
	}
	g.Start()
	out, err := g.CLI(t.Context(), string(text), "restore", "-f", "-")
	if err != nil {
		t.Fatal(err)
	}
	before, after := strings.Count(out, "unchanged"), strings.Count(out, "created")
	if before == 0 || after == 0 || before+after != objects {
		t.Errorf("%d objects were there, %d came", before, after)
	}
	var e struct {
		State struct{ Upstreams map[string]json.RawMessage }
	}
	again, err := g.CLI(t.Context(), "", "export")
	if err == nil {
		err = json.Unmarshal([]byte(again), &e)
	}
	if err != nil || len(e.State.Upstreams) != objects {
		t.Errorf("%d objects at the end: %v", len(e.State.Upstreams), err)
	}
	t.Logf("killed when %d of %d objects were restored", before, objects)
}
