package api

import (
	"crypto/ecdh"
	"crypto/hpke"
	"encoding/base64"
	"fmt"
	"maps"
	"net/http"
	"slices"

	"sluice/controlplane/spec"
)

// ExportKey opens the private keys of an export. It is made from a key file; its public half is all that an instance needs
// to seal them, so that none is ever shown by the API, and whoever has only the key file's public half opens nothing.
type ExportKey struct{ private hpke.PrivateKey }

// HPKE's suite (RFC 9180): DHKEM(X25519, HKDF-SHA256), HKDF-SHA256, AES-256-GCM.
func exportKEM() hpke.KEM { return hpke.DHKEM(ecdh.X25519()) }

// keyInfo binds a sealed key to its name.
func keyInfo(hash string) []byte { return []byte("sluice export key " + hash) }

// NewExportKey makes the key pair of a key of 32 bytes.
func NewExportKey(key []byte) (*ExportKey, error) {
	private, err := exportKEM().DeriveKeyPair(key)
	if err != nil {
		return nil, fmt.Errorf("make the key pair of an export: %w", err)
	}
	return &ExportKey{private}, nil
}

// Recipient is the public half, for GET /v1/export.
func (k *ExportKey) Recipient() string {
	return base64.RawURLEncoding.EncodeToString(k.private.PublicKey().Bytes())
}

// Open fills in the Keys of an export whose sealed keys are for k.
func (k *ExportKey) Open(e *Export) error {
	if len(e.SealedKeys) > 0 && e.Recipient != k.Recipient() {
		return fmt.Errorf("the export's private keys are sealed with another key file (recipient %s; this one has %s)", e.Recipient, k.Recipient())
	}
	e.Keys = make(map[string]string, len(e.SealedKeys))
	for _, hash := range slices.Sorted(maps.Keys(e.SealedKeys)) {
		data, err := base64.StdEncoding.DecodeString(e.SealedKeys[hash])
		if err == nil {
			data, err = hpke.Open(k.private, hpke.HKDFSHA256(), hpke.AES256GCM(), keyInfo(hash), data)
		}
		if err != nil || spec.KeyHash(string(data)) != hash {
			return fmt.Errorf("the private key %s of the export is damaged: take another copy of it", hash)
		}
		e.Keys[hash] = string(data)
	}
	return nil
}

// parseRecipient reads a public key.
func parseRecipient(text string) (hpke.PublicKey, error) {
	data, err := base64.RawURLEncoding.DecodeString(text)
	if err == nil {
		var key hpke.PublicKey
		if key, err = exportKEM().NewPublicKey(data); err == nil {
			return key, nil
		}
	}
	return nil, errRecipient
}

var errRecipient = newProblem(http.StatusBadRequest, "recipient is no X25519 public key in base64url: sluice export --key-file sends one")

// sealKey seals a private key for a recipient.
func sealKey(recipient hpke.PublicKey, hash, pem string) (string, error) {
	data, err := hpke.Seal(recipient, hpke.HKDFSHA256(), hpke.AES256GCM(), keyInfo(hash), []byte(pem))
	if err != nil {
		return "", errRecipient // a point of low order, which is nobody's key
	}
	return base64.StdEncoding.EncodeToString(data), nil
}
