package spec_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"sluice/controlplane/spec"
)

// makePair makes a self-signed certificate and its key.
func makePair(t *testing.T) (chain, key string) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, &template, &template, private.Public(), private)
	if err != nil {
		t.Fatal(err)
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	return pemText("CERTIFICATE", der), pemText("PRIVATE KEY", pkcs8)
}

func pemText(kind string, der []byte) string {
	return string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}))
}

func TestCertificateValidate(t *testing.T) {
	t.Parallel()
	chain, key := makePair(t)
	otherChain, otherKey := makePair(t)
	encrypted := pemText("ENCRYPTED PRIVATE KEY", []byte("x"))
	hash := spec.KeyHash(key)
	tests := []struct {
		name string
		give spec.Certificate
		want []string
	}{
		{"chain and key", spec.Certificate{Chain: chain, Key: key}, nil},
		{"longer chain", spec.Certificate{Chain: chain + "\n" + otherChain + "\n", Key: key}, nil},
		{"stored key", spec.Certificate{Chain: chain, KeySHA256: hash}, nil},
		{"key and its hash", spec.Certificate{Chain: chain, Key: key, KeySHA256: hash}, nil},
		{"files", spec.Certificate{ChainFile: "/etc/tls/a.pem", KeyFile: "/etc/tls/a.key"}, nil},
		{"nothing", spec.Certificate{}, []string{"give chain and key (PEM), or chainFile and keyFile (paths on the gateways)"}},
		{"both", spec.Certificate{Chain: chain, KeyFile: "/a"}, []string{"a certificate is either chain and key, or chainFile and keyFile: leave one pair out"}},
		{"no key", spec.Certificate{Chain: chain}, []string{"/key: is missing: give the PEM of the chain's private key"}},
		{"no chain", spec.Certificate{Key: key}, []string{"/chain: is missing: give the PEM of the server's certificate, then the intermediate ones"}},
		{"other key", spec.Certificate{Chain: chain, Key: otherKey}, []string{"/key: does not belong to the first certificate of the chain: the server's certificate comes first"}},
		{"wrong order", spec.Certificate{Chain: otherChain + chain, Key: key}, []string{"/key: does not belong to the first certificate of the chain: the server's certificate comes first"}},
		{"other hash", spec.Certificate{Chain: chain, Key: key, KeySHA256: spec.KeyHash("x")}, []string{"/keySHA256: belongs to another key: leave it out, it is made from the key"}},
		{"no hash", spec.Certificate{Chain: chain, KeySHA256: "../x"}, []string{"/keySHA256: is not the hex SHA-256 of a key: leave it out and give the key"}},
		{"not PEM", spec.Certificate{Chain: "hello", Key: "hello"}, []string{"/chain: is not PEM: it has no CERTIFICATE block"}},
		{"key not PEM", spec.Certificate{Chain: chain, Key: "hello"}, []string{"/key: is not PEM: it has no PRIVATE KEY block"}},
		{"key in the chain", spec.Certificate{Chain: chain + key, Key: key}, []string{"/chain: block 2 is not a certificate: only CERTIFICATE blocks belong here, a private key belongs into key"}},
		{"text after the chain", spec.Certificate{Chain: chain + "hello", Key: key}, []string{"/chain: there is text after certificate 1 that is not PEM: remove it"}},
		{"garbage", spec.Certificate{Chain: pemText("CERTIFICATE", []byte("x")), Key: key}, []string{"/chain: certificate 1 cannot be read: x509: malformed certificate"}},
		{"encrypted", spec.Certificate{Chain: chain, Key: encrypted}, []string{"/key: is encrypted: nginx needs it without a pass phrase"}},
		{"broken key", spec.Certificate{Chain: chain, Key: pemText("PRIVATE KEY", []byte("x"))}, []string{"/key: cannot be read: give an unencrypted RSA, ECDSA or Ed25519 key (PKCS #8, PKCS #1 or SEC 1)"}},
		{"one file", spec.Certificate{ChainFile: "/a.pem"}, []string{"/keyFile: is missing: name the file of its key"}},
		{"bad files", spec.Certificate{ChainFile: "a.pem", KeyFile: "/a/../b"}, []string{
			`/chainFile: "a.pem" is not an absolute path of letters, digits and . _ / @ + = : , -`,
			`/keyFile: "/a/../b" is not clean: write "/b"`}},
		{"file that breaks out", spec.Certificate{ChainFile: "/a;b", KeyFile: "/$x"}, []string{
			`/chainFile: "/a;b" is not an absolute path of letters, digits and . _ / @ + = : , -`,
			`/keyFile: "/$x" is not an absolute path of letters, digits and . _ / @ + = : , -`}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			got := lines(tt.give.Validate())
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Error(diff)
			}
			for _, line := range got {
				if block := strings.Split(key, "\n")[1]; strings.Contains(line, block) {
					t.Error("the message shows the key")
				}
			}
		})
	}
}
