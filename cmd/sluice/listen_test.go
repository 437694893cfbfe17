package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"log/slog"
	"math/big"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"sluice/api"
)

func TestWhoIsLetIn(t *testing.T) {
	t.Parallel()
	file, short, empty := writeFile(t, "secret-of-an-admin\n"), writeFile(t, "short\n"), writeFile(t, "\n")
	for _, tt := range []struct {
		flags listenFlags
		want  string
		err   string
	}{
		{listenFlags{listen: "127.0.0.1:7070"}, "", ""},
		{listenFlags{listen: "[::1]:7070"}, "", ""},
		{listenFlags{listen: "localhost:7070"}, "", ""},
		{listenFlags{listen: ":7070"}, "", "needs a token"},
		{listenFlags{listen: "0.0.0.0:7070", plain: true}, "", "needs a token"},
		{listenFlags{listen: "10.0.0.1:7070"}, "", "needs a token"},
		{listenFlags{listen: "7070"}, "", "--listen"},
		{listenFlags{listen: ":7070", tokenFile: file}, "", "in the clear"},
		{listenFlags{listen: ":7070", tokenFile: file, plain: true}, "secret-of-an-admin", ""},
		{listenFlags{listen: ":7070", tokenFile: file, cert: "a", key: "b"}, "secret-of-an-admin", ""},
		{listenFlags{listen: ":7070", clientCA: "ca", roles: []string{"ops=operator"}, cert: "a", key: "b"}, "", ""},
		{listenFlags{listen: ":7070", clientCA: "ca", cert: "a", key: "b"}, "", "belong together"},
		{listenFlags{listen: "127.0.0.1:7070", roles: []string{"ops=operator"}}, "", "belong together"},
		{listenFlags{listen: "127.0.0.1:7070", cert: "a"}, "", "belong together"},
		{listenFlags{listen: "127.0.0.1:7070", clientCA: "ca", roles: []string{"ops=operator"}}, "", "needs TLS"},
		{listenFlags{listen: "127.0.0.1:7070", clientCA: "ca", cert: "a", key: "b", roles: []string{"ops"}}, "", "write it as"},
		{listenFlags{listen: "127.0.0.1:7070", clientCA: "ca", cert: "a", key: "b", roles: []string{"ops=king"}}, "", "write it as"},
		{listenFlags{listen: "127.0.0.1:7070", clientCA: "ca", cert: "a", key: "b", roles: []string{"ops=registrar"}}, "", "a registrar has limits"},
		{listenFlags{listen: ":7070", tokenFile: short, plain: true}, "", "can be guessed"},
		{listenFlags{listen: "127.0.0.1:7070", tokenFile: short}, "short", ""},
		{listenFlags{listen: ":7070", tokenFile: empty, plain: true}, "", "the file is empty"},
		{listenFlags{listen: ":7070", tokenFile: "/nonexistent", plain: true}, "", "read --token-file"},
	} {
		err := tt.flags.check()
		var got string
		if err == nil {
			got, err = tt.flags.token()
		}
		if err == nil {
			_, err = tt.flags.subjects()
		}
		if got != tt.want || (err == nil) != (tt.err == "") || err != nil && !strings.Contains(err.Error(), tt.err) {
			t.Errorf("%+v: %q, %v", tt.flags, got, err)
		}
	}
}

// authority signs certificates.
type authority struct {
	t    *testing.T
	dir  string
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	a := &authority{t: t, dir: t.TempDir()}
	a.cert, a.key = a.sign("ca", &x509.Certificate{IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign})
	return a
}

func (a *authority) path(name string) string { return filepath.Join(a.dir, name) }

// sign writes name.pem and name.key.
func (a *authority) sign(name string, template *x509.Certificate) (*x509.Certificate, *ecdsa.PrivateKey) {
	a.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		a.t.Fatal(err)
	}
	template.SerialNumber, template.Subject = big.NewInt(time.Now().UnixNano()), pkix.Name{CommonName: name}
	template.NotBefore, template.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
	template.DNSNames = []string{"localhost"}
	parent, signer := template, key
	if a.key != nil {
		parent, signer = a.cert, a.key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, &key.PublicKey, signer)
	if err != nil {
		a.t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		a.t.Fatal(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		a.t.Fatal(err)
	}
	for file, block := range map[string]*pem.Block{".pem": {Type: "CERTIFICATE", Bytes: der}, ".key": {Type: "PRIVATE KEY", Bytes: keyDER}} {
		if err := os.WriteFile(a.path(name+file), pem.EncodeToMemory(block), 0o600); err != nil {
			a.t.Fatal(err)
		}
	}
	return cert, key
}

// The real listener, the real server, and the command line as its client: over TLS, by token and by certificate.
func TestTLSAndClientCertificates(t *testing.T) {
	t.Parallel()
	ca := newAuthority(t)
	ca.sign("server", &x509.Certificate{ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}})
	for _, client := range []string{"ops", "stranger", "CN=boss"} {
		ca.sign(client, &x509.Certificate{ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}})
	}
	tokenFile := writeFile(t, "admin-token")
	flags := listenFlags{
		listen: "127.0.0.1:0", cert: ca.path("server.pem"), key: ca.path("server.key"), clientCA: ca.path("ca.pem"),
		roles: []string{"ops=operator", "CN=boss=admin"}, tokenFile: tokenFile,
	}
	if err := flags.check(); err != nil {
		t.Fatal(err)
	}
	subjects, err := flags.subjects()
	if err != nil {
		t.Fatal(err)
	}
	quiet := slog.New(slog.DiscardHandler)
	listener, err := flags.open(quiet)
	if err != nil {
		t.Fatal(err)
	}
	in := startInstance(t, "")
	handler, err := api.New(api.Options{Registry: in.registry, Local: in, Token: "admin-token", Subjects: subjects, Logger: quiet})
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: handler, ReadHeaderTimeout: time.Minute, ErrorLog: slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)}
	go func() { _ = server.Serve(listener) }() // until it is closed
	t.Cleanup(func() { server.Close() })
	_, port, _ := strings.Cut(listener.Addr().String(), ":")
	in.url = "https://localhost:" + port

	const document = "upstreams: {io: {}}\n"
	apply := []string{"apply", "-f", "-", "--api-ca", ca.path("ca.pem")}
	by := func(name string) []string {
		return []string{"--api-cert", ca.path(name + ".pem"), "--api-key", ca.path(name + ".key")}
	}
	for what, tt := range map[string]struct {
		args []string
		says string
		code int
	}{
		"certificate":                    {append(apply, by("ops")...), "", 0},
		"token":                          {append(apply, "--token-file", tokenFile), "", 0},
		"nobody":                         {apply, "Authorization: Bearer", 1},
		"certificate of no role":         {append(apply, by("stranger")...), "no role is given", 1},
		"name that looks like a subject": {append(apply, by("CN=boss")...), "no role is given", 1},
		"no authority":                   {[]string{"apply", "-f", "-"}, "certificate", 1},
		"file that is not there":         {append(apply, "--api-cert", "/nowhere", "--api-key", "/nowhere"), "read --api-cert", 1},
		"certificate, not enough":        {append([]string{"token", "list", "--api-ca", ca.path("ca.pem")}, by("ops")...), "needs the role", 1},
	} {
		if _, stderr, code := in.sluice(t, document, tt.args...); code != tt.code || !strings.Contains(stderr, tt.says) {
			t.Errorf("%s: code %d: %s", what, code, stderr)
		}
	}

	// A renewed certificate is shown without a restart.
	first := shown(t, listener.Addr().String())
	ca.sign("server", &x509.Certificate{ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}})
	deadline := time.Now().Add(30 * time.Second)
	for shown(t, listener.Addr().String()).Cmp(first) == 0 {
		if time.Now().After(deadline) {
			t.Fatal("the renewed certificate is not shown")
		}
	}
}

// shown returns the serial number of the certificate that a server shows.
func shown(t *testing.T, addr string) *big.Int {
	t.Helper()
	conn, err := tls.Dial("tcp", addr, &tls.Config{InsecureSkipVerify: true})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	return conn.ConnectionState().PeerCertificates[0].SerialNumber
}

func TestAuditLogFollowsRotation(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "audit.log")
	flags := listenFlags{auditLog: path}
	var said strings.Builder
	log, closer, err := flags.auditLogger(slog.New(slog.NewTextHandler(&said, nil)))
	if err != nil {
		t.Fatal(err)
	}
	log.Info("first")
	if err := os.Rename(path, path+".1"); err != nil {
		t.Fatal(err)
	}
	log.Info("second")
	if err := closer.Close(); err != nil {
		t.Fatal(err)
	}
	log.Info("third")
	log.Info("fourth")
	if n := strings.Count(said.String(), "the audit log takes no lines"); n != 1 {
		t.Errorf("lost lines are told %d times: %s", n, &said)
	}
	for file, want := range map[string]string{path + ".1": "first", path: "second"} {
		text, err := os.ReadFile(file)
		if err != nil || strings.Count(string(text), "\n") != 1 || !strings.Contains(string(text), want) {
			t.Errorf("%s: %v: %s", file, err, text)
		}
	}
}

func TestTokenCommand(t *testing.T) {
	t.Parallel()
	in := startInstance(t, "")
	text, stderr, code := in.sluice(t, "", "token", "create", "nodes", "--role", "registrar", "--service", "io", "--port", "6000-6009", "--ttl", "24h", "--note", "of chat")
	if code != 0 || !strings.HasPrefix(text, "sluice_nodes_") {
		t.Fatalf("%q %s", text, stderr)
	}
	if out, _, _ := in.sluice(t, "", "token", "list"); !strings.Contains(out, "nodes  registrar") || !strings.Contains(out, "io 6000-6009") || strings.Contains(out, strings.TrimSpace(text)) {
		t.Errorf("list: %s", out)
	}
	file := writeFile(t, text)
	if _, stderr, code := in.sluice(t, "", "get", "nodes", "--token-file", file); code != 1 || !strings.Contains(stderr, "needs the role") {
		t.Errorf("a registrar lists nodes: %d %s", code, stderr)
	}
	if _, stderr, code := in.sluice(t, "", "token", "revoke", "nodes"); code != 0 {
		t.Errorf("revoke: %s", stderr)
	}
	if _, stderr, code := in.sluice(t, "", "status", "--token-file", file); code != 1 || !strings.Contains(stderr, "Bearer") {
		t.Errorf("a revoked token is taken: %d %s", code, stderr)
	}
	for args, says := range map[string]string{
		"create x":                  "role",
		"create x --role king":      "unknown",
		"create x --role registrar": "limits",
		"revoke x":                  "not found",
	} {
		if _, stderr, code := in.sluice(t, "", append([]string{"token"}, strings.Fields(args)...)...); code == 0 || !strings.Contains(stderr, says) {
			t.Errorf("token %s: %d %s", args, code, stderr)
		}
	}
}
