package e2e

import (
	"bytes"
	"context"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"sluice/internal/testport"
)

// secured is a gateway whose API asks who comes.
type secured struct {
	t       *testing.T
	dir     string
	listen  string
	process *Process
}

const adminToken = "the-token-of-an-admin"

// startSecured starts one with TLS, an admin's token in the file admin, and an audit log.
func startSecured(t *testing.T, args ...string) *secured {
	t.Helper()
	s := &secured{t: t, dir: tempDir(t), listen: "127.0.0.1:" + strconv.Itoa(testport.Free(t))}
	writePair(t, s.dir, 1)
	s.file("admin", adminToken)
	s.file("secrets.key", strings.Repeat("5e", 32))
	for i, arg := range args { // files of the test's directory
		args[i] = strings.ReplaceAll(arg, "DIR", s.dir)
	}
	state := filepath.Join(s.dir, "gw")
	t.Cleanup(func() { endNginx(t, state) })
	s.process = startProcess(t, "sluice", nil, append([]string{
		sluiceBinary, "run", "--state-dir", state, "--listen", s.listen, "--on-exit", "quit",
		"--tls-cert", s.path("chain.pem"), "--tls-key", s.path("key.pem"), "--token-file", s.path("admin"), "--audit-log", s.path("audit.log"),
	}, args...)...)
	t.Cleanup(s.process.Stop)
	eventually(t, 60*time.Second, "the API answers over TLS", func(ctx context.Context) error {
		out, err := s.cli(ctx, "", "status", "--token-file", s.path("admin"))
		if err != nil {
			err = fmt.Errorf("%w: %s", err, out)
		}
		return err
	})
	return s
}

func (s *secured) path(name string) string { return filepath.Join(s.dir, name) }

func (s *secured) file(name, text string) string {
	s.t.Helper()
	if err := os.WriteFile(s.path(name), []byte(text), 0o600); err != nil {
		s.t.Fatal(err)
	}
	return s.path(name)
}

// env has the CLI find the API: the certificate is its own authority, and names this machine's address.
func (s *secured) env() []string {
	return []string{"SLUICE_API=https://" + s.listen, "SLUICE_API_CA=" + s.path("chain.pem")}
}

func (s *secured) cli(ctx context.Context, stdin string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, sluiceBinary, args...)
	cmd.Env = append(os.Environ(), s.env()...)
	cmd.Stdin = strings.NewReader(stdin)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// token creates a token and returns the file that holds it.
func (s *secured) token(name string, args ...string) string {
	s.t.Helper()
	text, err := s.cli(s.t.Context(), "", append([]string{"token", "create", name, "--token-file", s.path("admin")}, args...)...)
	if err != nil {
		s.t.Fatalf("%v: %s", err, text)
	}
	return s.file(name+".token", text)
}

// wantNowhere fails for a text that is in a log.
func (s *secured) wantNowhere(texts ...string) {
	s.t.Helper()
	audit, err := os.ReadFile(s.path("audit.log"))
	if err != nil {
		s.t.Fatal(err)
	}
	for what, log := range map[string]string{"audit log": string(audit), "log": s.process.Output()} {
		for _, text := range texts {
			if strings.Contains(log, strings.TrimSpace(text)) {
				s.t.Errorf("a secret is in the %s", what)
			}
		}
	}
}

// read returns the content of a file of the test.
func (s *secured) read(name string) string {
	s.t.Helper()
	text, err := os.ReadFile(s.path(name))
	if err != nil {
		s.t.Fatal(err)
	}
	return string(text)
}

// The flags of sluice run come together: TLS, an admin's token, tokens made with it, and the audit log.
func TestAPIOverTLSWithTokens(t *testing.T) {
	t.Parallel()
	s := startSecured(t)
	ops := s.token("ops", "--role", "operator")
	if out, err := s.cli(t.Context(), "upstreams: {io: {}}", "apply", "-f", "-", "--token-file", ops); err != nil {
		t.Errorf("an operator applies: %v: %s", err, out)
	}
	if out, err := s.cli(t.Context(), "", "token", "list", "--token-file", ops); err == nil || !strings.Contains(out, "needs the role") {
		t.Errorf("an operator lists tokens: %s", out)
	}
	if out, err := s.cli(t.Context(), "", "status"); err == nil || !strings.Contains(out, "Bearer") {
		t.Errorf("nobody sees the status: %s", out)
	}
	audit := s.read("audit.log")
	for _, want := range []string{`"operation":"createToken"`, `"caller":"token/ops"`, `"objects":["upstream/io"]`, `"msg":"denied"`} {
		if !strings.Contains(audit, want) {
			t.Errorf("the audit log does not have %s:\n%s", want, audit)
		}
	}
	s.wantNowhere(s.read("ops.token"), adminToken)
}

// A registrar registers what its token names, until it is revoked. Desired state is written with a client certificate, and a
// private key is nowhere that it does not belong.
func TestRegistrarAndClientCertificate(t *testing.T) {
	t.Parallel()
	s := startSecured(t, "--tls-client-ca", "DIR/chain.pem", "--tls-role", "chat.example.com=operator", "--secrets-key-file", "DIR/secrets.key",
		"--etcd-listen", "unix://DIR/etcd.sock")
	certificate := []string{"--api-cert", s.path("chain.pem"), "--api-key", s.path("key.pem")}
	operator := func(stdin string, args ...string) string {
		t.Helper()
		out, err := s.cli(t.Context(), stdin, append(args, certificate...)...)
		if err != nil {
			t.Fatalf("%v: %v: %s", args, err, out)
		}
		return out
	}
	indent := func(text string) string {
		return "\n      " + strings.ReplaceAll(strings.TrimSpace(text), "\n", "\n      ")
	}
	operator("upstreams: {io: {}}\ncertificates:\n  main:\n    chain: |"+indent(s.read("chain.pem"))+"\n    key: |"+indent(s.read("key.pem")), "apply", "-f", "-")

	port := strconv.Itoa(testport.Free(t))
	token := s.token("nodes", "--role", "registrar", "--service", "io", "--network", "127.0.0.0/8", "--port", port)
	register := func(service, address string) *Process {
		return startProcess(t, "register", s.env(), sluiceBinary, "register", "--token-file", token, "--ttl", "5s", "--service", service, "--id", "n1", "--address", address)
	}
	for what, p := range map[string]*Process{
		`not of \"web\"`: register("web", "127.0.0.1:"+port), "127.0.0.0/8": register("io", "10.0.0.1:"+port), "ports": register("io", "127.0.0.1:1"),
		"API or registry": register("io", "unix:"+s.path("etcd.sock")),
	} {
		p.waitFor(60*time.Second, what)
		p.Kill()
	}
	node := register("io", "127.0.0.1:"+port)
	nodes := func(n int) {
		t.Helper()
		eventually(t, 60*time.Second, fmt.Sprintf("there are %d nodes", n), func(ctx context.Context) error {
			out, err := s.cli(ctx, "", append([]string{"get", "nodes", "-o", "json"}, certificate...)...)
			if err != nil || strings.Count(out, `"address"`) != n {
				return fmt.Errorf("%w: %s", err, out)
			}
			return nil
		})
	}
	nodes(1)
	if out, err := s.cli(t.Context(), "", "token", "revoke", "nodes", "--token-file", s.path("admin")); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	nodes(0) // its lease has run out: no beat was taken any more
	node.waitFor(60*time.Second, "not registered")

	key := strings.Split(s.read("key.pem"), "\n")[1]
	for what, text := range map[string]string{
		"history": operator("", "history", "-o", "json"), "certificates": operator("", "get", "certificates", "-o", "json"),
		"certificate": operator("", "describe", "certificate/main"), "events": operator("", "events", "-o", "json"),
	} {
		if strings.Contains(text, key) {
			t.Errorf("the private key is in %s", what)
		}
	}
	err := filepath.WalkDir(s.path("gw/etcd"), func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		data, err := os.ReadFile(path)
		if bytes.Contains(data, []byte(key)) {
			t.Errorf("the private key is in the registry in the clear: %s", path)
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
	s.wantNowhere(s.read("nodes.token"), adminToken, key)
}
