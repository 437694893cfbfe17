package e2e

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"sluice/internal/testport"
)

// An nginx that the system runs, with an nginx.conf of its operator: sluice adds its sites, and takes nothing away.
func TestOperatorsOwnNginx(t *testing.T) {
	t.Parallel()
	dir, own := tempDir(t), testport.Free(t)
	pid, conf := filepath.Join(dir, "nginx.pid"), filepath.Join(dir, "nginx.conf")
	state := filepath.Join(dir, "state")
	text := fmt.Sprintf(`
daemon off;
pid %s;
error_log stderr notice;
events { }
http {
	access_log off;
	server { listen %d; location / { return 200 "the operator's own\n"; } }
	include %s/nginx/current/http.conf;
}
`, pid, own, state)
	if os.Getuid() == 0 {
		text = "user root;" + text // the test's directory
	}
	if err := os.WriteFile(conf, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	g := startGateway(t, GatewayOptions{Args: []string{
		"--state-dir", state, "--nginx-mode", "include", "--nginx-conf", conf, "--attach", pid, "--on-exit", "leave",
	}})
	g.Apply(document(g.Port, "ip_hash"))
	g.wantFailed(10*time.Second, "it is not sluice's to start")

	operators := startProcess(t, "the operator's nginx", nil, "/usr/sbin/nginx", "-p", dir, "-c", conf, "-e", "stderr")
	g.StartNodes(2)
	g.serves(10 * time.Second)
	fleet := openFleet(t, g.Addr(), 10)
	g.StartNode("n3")
	g.WaitNodes(20*time.Second, 3)
	fleet.WantAlive()
	eventually(t, 5*time.Second, "the operator's own site", func(ctx context.Context) error {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, fmt.Sprintf("http://127.0.0.1:%d/", own), http.NoBody)
		if err != nil {
			return err
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		body, err := io.ReadAll(resp.Body)
		if err == nil && !strings.Contains(string(body), "the operator's own") {
			err = fmt.Errorf("%s: %s", resp.Status, body)
		}
		return err
	})
	g.Stop()
	select {
	case <-operators.Done():
		t.Error("nginx has ended with sluice")
	default:
	}
	fleet.WantAlive()
}
