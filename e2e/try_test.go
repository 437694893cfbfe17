package e2e

import (
	"context"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// What nginx would refuse is refused before it is committed, in nginx's words, and a dry run shows what would differ.
func TestChangeIsTriedBeforeItsCommit(t *testing.T) {
	t.Parallel()
	// A template that some sites make nginx stumble over, as one of an operator's own may.
	overrides := tempDir(t)
	original, err := os.ReadFile(filepath.Join(root, "templates", "site.conf.tmpl"))
	if err != nil {
		t.Fatal(err)
	}
	text := strings.Replace(string(original), "    server_name {{.}};", "    server_name {{.}};{{if eq . \"bad.example\"}} bogus on;{{end}}", 1)
	if err := os.WriteFile(filepath.Join(overrides, "site.conf.tmpl"), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	g := startGateway(t, GatewayOptions{Args: []string{"--templates", overrides}})
	g.Apply(document(g.Port, "ip_hash"))
	g.StartNodes(1)
	before := g.WaitLive(20 * time.Second)
	other := strings.NewReplacer("chat:", "bad:", `hosts: ["*"]`, `hosts: ["bad.example"]`).Replace(document(g.Port, "ip_hash"))

	out, err := g.CLI(t.Context(), other, "apply", "-f", "-")
	if err == nil || !strings.Contains(err.Error(), `unknown directive "bogus"`) || !strings.Contains(err.Error(), "/sites/bad") {
		t.Errorf("nginx would refuse it: %v\n%s", err, out)
	}
	if after := g.Status(); after.SeqWanted != before.SeqWanted || after.RevisionLive != before.RevisionLive || len(after.Problems) > 0 {
		t.Errorf("something was committed: %+v", after)
	}
	good := strings.ReplaceAll(other, "bad", "fine")
	if out, err = g.CLI(t.Context(), good, "diff", "--files", "-f", "-"); err == nil || !strings.Contains(out, "created site/fine") || !strings.Contains(out, "+    server_name fine.example;") {
		t.Errorf("the difference (%v):\n%s", err, out)
	}
	// That a port is taken shows at the reload only; then the object is quarantined, and all else goes on.
	listener, err := net.Listen("tcp", ":"+strconv.Itoa(g.Port2))
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	g.Apply(strings.Replace(good, strconv.Itoa(g.Port), strconv.Itoa(g.Port2), 1))
	g.wantProblem(30*time.Second, "site/fine", "Address already in use")
	eventually(t, 10*time.Second, "nginx serves", func(ctx context.Context) error {
		_, err := request(ctx, "GET", g.URL()+"/whoami", "")
		return err
	})
}
