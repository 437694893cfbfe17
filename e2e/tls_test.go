package e2e

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
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
)

// writePair writes a new self-signed certificate with this serial number, and its key, as a renewal does: by rename.
func writePair(tb testing.TB, dir string, serial int64) {
	tb.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		tb.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(serial), Subject: pkix.Name{CommonName: "chat.example.com"},
		DNSNames: []string{"chat.example.com"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, NotAfter: time.Now().Add(time.Hour),
	}
	cert, err := x509.CreateCertificate(rand.Reader, template, template, private.Public(), private)
	if err != nil {
		tb.Fatal(err)
	}
	key, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		tb.Fatal(err)
	}
	for name, block := range map[string]*pem.Block{
		"chain.pem": {Type: "CERTIFICATE", Bytes: cert}, "key.pem": {Type: "PRIVATE KEY", Bytes: key},
	} {
		next := filepath.Join(dir, name+".new")
		if err := os.WriteFile(next, pem.EncodeToMemory(block), 0o600); err != nil {
			tb.Fatal(err)
		}
		if err := os.Rename(next, filepath.Join(dir, name)); err != nil {
			tb.Fatal(err)
		}
	}
}

// serial returns the serial number of the certificate that addr shows for the name.
func serial(ctx context.Context, addr, name string) (int64, error) {
	dialer := tls.Dialer{Config: &tls.Config{ServerName: name, InsecureSkipVerify: true}}
	conn, err := dialer.DialContext(ctx, "tcp", addr)
	if err != nil {
		return 0, err
	}
	defer conn.Close()
	return conn.(*tls.Conn).ConnectionState().PeerCertificates[0].SerialNumber.Int64(), nil
}

// A certificate file that is renewed is served by itself, and costs no socket; unknown names get no certificate.
func TestRenewedCertificateFile(t *testing.T) {
	t.Parallel()
	dir := tempDir(t)
	writePair(t, dir, 1)
	g := startGateway(t, GatewayOptions{})
	g.Apply(fmt.Sprintf(`
upstreams:
  io: {service: io, balance: {method: ip_hash}}
certificates:
  web: {chainFile: %s/chain.pem, keyFile: %s/key.pem}
sites:
  chat:
    hosts: [chat.example.com]
    listeners: [{port: %d}, {port: %d, tls: true, http2: true}]
    certificate: web
    routes:
      - {path: /socket.io/, upstream: io}
      - {path: /ws, match: exact, kind: websocket, upstream: io}
      - {path: /, kind: http, upstream: io}
`, dir, dir, g.Port, g.Port2))
	g.StartNodes(2)
	addr := fmt.Sprintf("127.0.0.1:%d", g.Port2)
	wantSerial := func(within time.Duration, want int64) {
		t.Helper()
		eventually(t, within, fmt.Sprintf("certificate %d is served", want), func(ctx context.Context) error {
			got, err := serial(ctx, addr, "chat.example.com")
			if err == nil && got != want {
				err = fmt.Errorf("certificate %d is", got)
			}
			return err
		})
	}
	wantSerial(5*time.Second, 1)
	if got, err := serial(t.Context(), addr, "other.example.com"); err == nil {
		t.Errorf("a name that nobody has gets certificate %d", got)
	}
	writePair(t, dir, 2)
	wantSerial(10*time.Second, 2)
}
