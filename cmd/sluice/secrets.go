package main

import (
	"encoding/base64"
	"encoding/hex"
	"fmt"
)

// secretsKeyBytes is the length of an AES-256 key.
const secretsKeyBytes = 32

// readKey reads a file with a key in hex or base64.
func readKey(path string) ([]byte, error) {
	text, err := readSecret(path)
	if err != nil {
		return nil, err
	}
	for _, decode := range []func(string) ([]byte, error){hex.DecodeString, base64.StdEncoding.DecodeString} {
		if key, err := decode(text); err == nil && len(key) == secretsKeyBytes {
			return key, nil
		}
	}
	return nil, fmt.Errorf("%s holds no key of %d bytes in hex or base64: make one with `openssl rand -hex %d`", path, secretsKeyBytes, secretsKeyBytes)
}
