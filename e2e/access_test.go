package e2e

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"sluice/internal/testport"
)

// The flags of sluice run come together: TLS, an admin's token, tokens made with it, and the audit log.
func TestAPIOverTLSWithTokens(t *testing.T) {
	t.Parallel()
	dir := tempDir(t)
	writePair(t, dir, 1)
	file := func(name, text string) string {
		t.Helper()
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	admin := file("admin", "the-token-of-an-admin")
	listen := "127.0.0.1:" + strconv.Itoa(testport.Free(t))
	state := filepath.Join(dir, "gw")
	t.Cleanup(func() { endNginx(t, state) })
	sluice := startProcess(t, "sluice", nil, sluiceBinary, "run", "--state-dir", state, "--listen", listen, "--on-exit", "quit",
		"--tls-cert", filepath.Join(dir, "chain.pem"), "--tls-key", filepath.Join(dir, "key.pem"), "--token-file", admin,
		"--audit-log", filepath.Join(dir, "audit.log"))
	t.Cleanup(sluice.Stop)
	// The certificate is for chat.example.com and is its own authority; the CLI finds it at this machine's address.
	cli := func(ctx context.Context, stdin string, args ...string) (string, error) {
		cmd := exec.CommandContext(ctx, sluiceBinary, args...)
		cmd.Env = append(os.Environ(), "SLUICE_API=https://"+listen, "SLUICE_API_CA="+filepath.Join(dir, "chain.pem"))
		cmd.Stdin = strings.NewReader(stdin)
		out, err := cmd.CombinedOutput()
		return string(out), err
	}
	eventually(t, 30*time.Second, "the API answers over TLS", func(ctx context.Context) error {
		out, err := cli(ctx, "", "status", "--token-file", admin)
		if err != nil {
			err = fmt.Errorf("%w: %s", err, out)
		}
		return err
	})
	created, err := cli(t.Context(), "", "token", "create", "ops", "--role", "operator", "--token-file", admin)
	if err != nil {
		t.Fatalf("%v: %s", err, created)
	}
	ops := file("ops", created)
	if out, err := cli(t.Context(), "upstreams: {io: {}}", "apply", "-f", "-", "--token-file", ops); err != nil {
		t.Errorf("an operator applies: %v: %s", err, out)
	}
	if out, err := cli(t.Context(), "", "token", "list", "--token-file", ops); err == nil || !strings.Contains(out, "needs the role") {
		t.Errorf("an operator lists tokens: %s", out)
	}
	if out, err := cli(t.Context(), "", "status"); err == nil || !strings.Contains(out, "Bearer") {
		t.Errorf("nobody sees the status: %s", out)
	}
	audit, err := os.ReadFile(filepath.Join(dir, "audit.log"))
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{`"operation":"createToken"`, `"caller":"token/ops"`, `"objects":["upstream/io"]`, `"msg":"denied"`} {
		if !strings.Contains(string(audit), want) {
			t.Errorf("the audit log does not have %s:\n%s", want, audit)
		}
	}
	for what, text := range map[string]string{"audit log": string(audit), "log": sluice.Output()} {
		if strings.Contains(text, strings.TrimSpace(created)) || strings.Contains(text, "the-token-of-an-admin") {
			t.Errorf("a token is in the %s", what)
		}
	}
}
