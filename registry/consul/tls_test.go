package consul

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"sluice/internal/testport"
)

// writePair writes a certificate for this machine, signed by itself, and its key.
func writePair(t *testing.T, dir string) (cert, key string) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "consul"}, NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, DNSNames: []string{"server.dc1.consul"},
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &private.PublicKey, private)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	cert, key = filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	for file, block := range map[string]*pem.Block{cert: {Type: "CERTIFICATE", Bytes: der}, key: {Type: "PRIVATE KEY", Bytes: raw}} {
		if err := os.WriteFile(file, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return cert, key
}

func TestTLS(t *testing.T) {
	t.Parallel()
	cert, key := writePair(t, t.TempDir())
	port := testport.Free(t)
	a := newAgent(t, true, map[string]any{
		"tls":       map[string]any{"https": map[string]any{"ca_file": cert, "cert_file": cert, "key_file": key, "verify_incoming": true}},
		"addresses": map[string]string{"https": "127.0.0.1"},
		"https":     port,
	})
	url := fmt.Sprintf("https://127.0.0.1:%d", port)
	r := open(t, a, Config{Addresses: []string{url}, CAFile: cert, CertFile: cert, KeyFile: key}, impatient)
	commit(t, r, "io")
	putNode(t, r, "io", "n")
	watch(t, r).until("the node", hasIDs("n"))
	for name, cfg := range map[string]Config{
		"no certificate of ours":           {CAFile: cert},
		"an authority that it is not from": {CertFile: cert, KeyFile: key},
		"another name":                     {CAFile: cert, CertFile: cert, KeyFile: key, ServerName: "other.example"},
	} {
		cfg.Addresses = []string{url}
		if nodes, err := open(t, a, cfg, impatient).ListNodes(t.Context(), "io", "", 0); err == nil {
			t.Errorf("%s: it lists %v", name, nodes)
		}
	}
}
