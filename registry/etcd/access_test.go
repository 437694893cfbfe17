package etcd

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"log/slog"
	"math/big"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.etcd.io/etcd/client/pkg/v3/transport"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/server/v3/embed"

	"sluice/internal/testport"
	"sluice/registry"
)

// TestPassword: a user of etcd's own, with rights to sluice's keys only.
func TestPassword(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	e := server(t, EmbeddedConfig{Dir: dir})
	root, err := clientv3.New(clientv3.Config{Endpoints: []string{e.ClientURL()}, Logger: zapTo(slog.New(slog.DiscardHandler), quiet, nil)})
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	ctx := t.Context()
	steps := []func() error{
		func() error { _, err := root.UserAdd(ctx, "root", "r"); return err },
		func() error { _, err := root.UserGrantRole(ctx, "root", "root"); return err },
		func() error { _, err := root.RoleAdd(ctx, "sluice"); return err },
		func() error {
			_, err := root.RoleGrantPermission(ctx, "sluice", "/sluice/f/", clientv3.GetPrefixRangeEnd("/sluice/f/"),
				clientv3.PermissionType(clientv3.PermReadWrite))
			return err
		},
		func() error { _, err := root.UserAdd(ctx, "sluice", "secret"); return err },
		func() error { _, err := root.UserGrantRole(ctx, "sluice", "sluice"); return err },
		func() error { _, err := root.AuthEnable(ctx); return err },
	}
	for i, step := range steps {
		if err := step(); err != nil {
			t.Fatalf("step %d: %v", i, err)
		}
	}
	login := func(password string) Config {
		return Config{Endpoints: []string{e.ClientURL()}, Fleet: "f", Username: "sluice", Password: password, Logger: quietLog(t)}
	}
	slow := impatient
	slow.call = 20 * time.Second // a hash of a password is meant to take long
	if r, err := newRegistry(ctx, login("wrong"), slow); err == nil {
		_ = r.Close()
		t.Error("a wrong password was taken")
	}
	anybody := open(t, e.ClientURL(), "f", impatient)
	if _, err := anybody.List(ctx, registry.KindSite, "", 0); err == nil {
		t.Error("a list without a password was answered")
	}
	if h := anybody.Health(); h.Connected || h.Error == "" {
		t.Errorf("Health of one who is not let in: %+v", h)
	}

	// With etcd away, New does not wait for ever, and the password is checked when etcd comes.
	e.Close()
	ordinary := impatient
	ordinary.call = defaultTiming.call
	r, err := newRegistry(ctx, login("secret"), ordinary)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = r.Close() })
	uses := func(registry.Object) []string { return []string{registry.EndpointsService("/others")} }
	w := watch(t, r, uses)
	w.silent(50 * time.Millisecond)
	server(t, EmbeddedConfig{Dir: dir})
	w.until("the first", hasSeq(0))
	putNode(t, r, "n1")

	// A prefix that it may not read is a Problem, and holds up nothing.
	seq := commit(t, r, "u", `{}`)
	s := w.until("the upstream", hasSeq(seq))
	if len(s.Nodes) != 1 || len(s.Problems) != 1 || s.Problems[0].Object != "endpoints//others" {
		t.Errorf("with a forbidden prefix: nodes %+v, problems %v", s.Nodes, s.Problems)
	}
	w.silent(2 * impatient.retryMax) // it is tried again, but nothing changed
}

// TestTLS: an etcd of its own that wants a client certificate.
func TestTLS(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	writeCertificates(t, dir)
	file := func(name string) string { return filepath.Join(dir, name) }
	endpoint := fmt.Sprintf("https://127.0.0.1:%d", testport.Free(t))
	u, err := url.Parse(endpoint)
	if err != nil {
		t.Fatal(err)
	}
	conf := embed.NewConfig()
	conf.Dir = file("data")
	conf.ListenClientUrls, conf.AdvertiseClientUrls, conf.ListenPeerUrls = []url.URL{*u}, []url.URL{*u}, nil
	conf.ClientTLSInfo = transport.TLSInfo{
		CertFile: file("server.pem"), KeyFile: file("server.key"), TrustedCAFile: file("ca.pem"), ClientCertAuth: true,
	}
	conf.ZapLoggerBuilder = embed.NewZapLoggerBuilder(zapTo(slog.New(slog.DiscardHandler), quiet, nil))
	e, err := embed.StartEtcd(conf)
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	<-e.Server.ReadyNotify()

	cfg := Config{Endpoints: []string{endpoint}, CAFile: file("ca.pem"), CertFile: file("client.pem"), KeyFile: file("client.key"), Logger: quietLog(t)}
	r, err := newRegistry(t.Context(), cfg, impatient)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if seq := commit(t, r, "a", `{}`); seq != 1 {
		t.Errorf("the first commit is %d", seq)
	}
	named := cfg
	named.ServerName = "etcd.example"
	other, err := newRegistry(t.Context(), named, impatient)
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	if _, err := other.Get(t.Context(), registry.Ref{Kind: registry.KindUpstream, Name: "a"}); err != nil {
		t.Errorf("with the name that is in the certificate: %v", err)
	}
	for name, change := range map[string]func(*Config){
		"no client certificate": func(c *Config) { c.CertFile, c.KeyFile = "", "" },
		"another CA":            func(c *Config) { c.CAFile = file("client.pem") },
		"another name":          func(c *Config) { c.ServerName = "other.example" },
	} {
		bad := cfg
		change(&bad)
		brief := impatient
		brief.call = 300 * time.Millisecond
		r, err := newRegistry(t.Context(), bad, brief)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if _, err := r.Get(t.Context(), registry.Ref{Kind: registry.KindUpstream, Name: "a"}); err == nil {
			t.Errorf("%s: it was let in", name)
		}
		if h := r.Health(); h.Connected || !strings.Contains(h.Error, endpoint) {
			t.Errorf("%s: Health is %+v", name, h)
		}
		_ = r.Close()
	}
}

// writeCertificates makes a CA, and a certificate of the server and one of the client.
func writeCertificates(t *testing.T, dir string) {
	t.Helper()
	ca := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "ca"}, NotBefore: time.Now().Add(-time.Hour),
		NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	caKey := writeCertificate(t, dir, "ca", ca, ca, nil)
	for i, name := range []string{"server", "client"} {
		writeCertificate(t, dir, name, &x509.Certificate{
			SerialNumber: big.NewInt(int64(i + 2)), Subject: pkix.Name{CommonName: name},
			NotBefore: ca.NotBefore, NotAfter: ca.NotAfter, KeyUsage: x509.KeyUsageDigitalSignature,
			ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
			IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, DNSNames: []string{"etcd.example"},
		}, ca, caKey)
	}
}

// writeCertificate signs with the key of parent, or with its own when that is nil, and returns its own.
func writeCertificate(t *testing.T, dir, name string, cert, parent *x509.Certificate, signer *ecdsa.PrivateKey) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	if signer == nil {
		signer = key
	}
	der, err := x509.CreateCertificate(rand.Reader, cert, parent, &key.PublicKey, signer)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	for file, block := range map[string]*pem.Block{
		name + ".pem": {Type: "CERTIFICATE", Bytes: der},
		name + ".key": {Type: "EC PRIVATE KEY", Bytes: keyDER},
	} {
		if err := os.WriteFile(filepath.Join(dir, file), pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return key
}
