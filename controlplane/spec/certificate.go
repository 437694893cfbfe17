package spec

import (
	"bytes"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"path/filepath"
	"regexp"
	"strings"
)

// KeyHash returns the hex SHA-256 of a private key's text, by which its secret is named.
func KeyHash(pem string) string {
	sum := sha256.Sum256([]byte(pem))
	return hex.EncodeToString(sum[:])
}

var (
	keyHash  = regexp.MustCompile(`^[0-9a-f]{64}$`)
	filePath = regexp.MustCompile(`^/[A-Za-z0-9._/@+=:,-]{1,1000}$`)
)

// Validate returns what is wrong with c. No message holds anything of the key.
func (c Certificate) Validate() []FieldError {
	at := newChecker()
	checkOwner(at, c.Owner)
	inline := c.Chain != "" || c.Key != "" || c.KeySHA256 != ""
	files := c.ChainFile != "" || c.KeyFile != ""
	switch {
	case inline && files:
		at.add("a certificate is either chain and key, or chainFile and keyFile: leave one pair out")
	case files:
		checkFile(at.in("chainFile"), c.ChainFile, "the chain")
		checkFile(at.in("keyFile"), c.KeyFile, "its key")
	case inline:
		c.checkInline(at)
	default:
		at.add("give chain and key (PEM), or chainFile and keyFile (paths on the gateways)")
	}
	return *at.errs
}

func checkFile(c checker, path, what string) {
	switch {
	case path == "":
		c.add("is missing: name the file of %s", what)
	case !filePath.MatchString(path):
		c.add("%q is not an absolute path of letters, digits and . _ / @ + = : , -", path)
	case filepath.Clean(path) != path:
		c.add("%q is not clean: write %q", path, filepath.Clean(path))
	}
}

func (c Certificate) checkInline(at checker) {
	chainOK := false
	if c.Chain == "" {
		at.in("chain").add("is missing: give the PEM of the server's certificate, then the intermediate ones")
	} else if err := checkChain(c.Chain); err != nil {
		at.in("chain").add("%s", err)
	} else {
		chainOK = true
	}
	if c.KeySHA256 != "" && !keyHash.MatchString(c.KeySHA256) {
		at.in("keySHA256").add("is not the hex SHA-256 of a key: leave it out and give the key")
	}
	switch {
	case c.Key != "" && c.KeySHA256 != "" && c.KeySHA256 != KeyHash(c.Key):
		at.in("keySHA256").add("belongs to another key: leave it out, it is made from the key")
	case c.Key == "" && c.KeySHA256 == "":
		at.in("key").add("is missing: give the PEM of the chain's private key")
	case c.Key != "" && chainOK:
		if err := CheckKey(c.Chain, c.Key); err != nil {
			at.in("key").add("%s", err)
		}
	}
}

// checkChain wants certificates and nothing else: nginx ignores other blocks, and a key that slipped in here would be
// shown to everyone who may read the certificate.
func checkChain(chain string) error {
	rest, n := []byte(chain), 0
	for {
		var block *pem.Block
		block, rest = pem.Decode(rest)
		if block == nil {
			break
		}
		n++
		if block.Type != "CERTIFICATE" {
			return fmt.Errorf("block %d is not a certificate: only CERTIFICATE blocks belong here, a private key belongs into key", n)
		}
		if _, err := x509.ParseCertificate(block.Bytes); err != nil {
			return fmt.Errorf("certificate %d cannot be read: %w", n, err)
		}
	}
	if n == 0 {
		return errors.New("is not PEM: it has no CERTIFICATE block")
	}
	if len(bytes.TrimSpace(rest)) > 0 {
		return fmt.Errorf("there is text after certificate %d that is not PEM: remove it", n)
	}
	return nil
}

// CheckKey returns why the private key key does not fit the first certificate of chain, or nil. Both are PEM.
func CheckKey(chain, key string) error {
	block, _ := pem.Decode([]byte(key))
	switch {
	case block == nil:
		return errors.New("is not PEM: it has no PRIVATE KEY block")
	case strings.Contains(block.Type, "ENCRYPTED") || block.Headers["DEK-Info"] != "":
		return errors.New("is encrypted: nginx needs it without a pass phrase")
	}
	if _, err := tls.X509KeyPair([]byte(chain), []byte(key)); err != nil {
		if strings.Contains(err.Error(), "does not match") {
			return errors.New("does not belong to the first certificate of the chain: the server's certificate comes first")
		}
		return errors.New("cannot be read: give an unencrypted RSA, ECDSA or Ed25519 key (PKCS #8, PKCS #1 or SEC 1)")
	}
	return nil
}
