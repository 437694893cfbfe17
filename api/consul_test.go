package api_test

import (
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"sluice/internal/testport"
	"sluice/registry/consul"
)

// consulBinary is built by make from tools/consul.
const consulBinary = "../.cache/bin/consul"

// newConsul starts a Consul server, and returns a registry in it. It is none of -dev: these lose their leader, which is themselves,
// when the machine is busy for 20 ms.
func newConsul(t *testing.T) *consul.Registry {
	t.Helper()
	if _, err := os.Stat(consulBinary); err != nil {
		t.Fatalf("%v: `make setup-test` builds it", err)
	}
	log, err := os.Create(filepath.Join(t.TempDir(), "consul.log"))
	if err != nil {
		t.Fatal(err)
	}
	port := testport.Free(t)
	ports := fmt.Sprintf("disable_update_check = true, bootstrap_expect = 1, data_dir = %q, ports { http = %d, server = %d, serf_lan = %d, serf_wan = -1, dns = -1, grpc = -1, grpc_tls = -1 }",
		t.TempDir(), port, testport.Free(t), testport.Free(t))
	agent := exec.Command(consulBinary, "agent", "-server", "-bind", "127.0.0.1", "-log-level", "warn", "-hcl", ports)
	agent.Stdout, agent.Stderr = log, log
	if err := agent.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = agent.Process.Kill()
		_ = agent.Wait()
		_ = log.Close()
	})
	url := fmt.Sprintf("http://127.0.0.1:%d", port)
	limit := time.After(30 * time.Second)
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	for leads := false; !leads; {
		if resp, err := client.Get(url + "/v1/catalog/nodes?near=_agent"); err == nil {
			leads = resp.StatusCode == http.StatusOK && resp.Header.Get("X-Consul-Index") > "0"
			_ = resp.Body.Close()
		}
		select {
		case <-limit:
			text, _ := os.ReadFile(log.Name())
			t.Fatalf("consul does not answer: %.2000s", text)
		case <-time.After(20 * time.Millisecond):
		}
	}
	r, err := consul.New(t.Context(), consul.Config{Addresses: []string{url}, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	})
	return r
}
