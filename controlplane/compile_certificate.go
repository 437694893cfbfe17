package controlplane

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"os"
	"slices"
	"time"

	"sluice/controlplane/spec"
	"sluice/registry"
	"sluice/templates"
)

// certificate is a compiled certificate; only those that a site uses are rendered.
type certificate struct {
	config   templates.Certificate
	notAfter time.Time
	used     bool
}

// Secret is the value of a KindSecret object.
type Secret struct {
	PEM string `json:"pem"`
}

// CertificateFiles returns the files that the certificates of a Snapshot, or the last good ones, name.
func CertificateFiles(s registry.Snapshot, good Good) []string {
	var paths []string
	add := func(o registry.Object) {
		if o.Kind != registry.KindCertificate {
			return
		}
		if value, err := spec.Decode[spec.Certificate](o.Value); err == nil && value.ChainFile != "" {
			paths = append(paths, value.ChainFile, value.KeyFile)
		}
	}
	for _, o := range s.Objects {
		add(o)
	}
	for _, o := range good.Objects {
		add(o)
	}
	slices.Sort(paths)
	return slices.Compact(paths)
}

// ReadFiles reads the files that certificates name.
func ReadFiles(paths []string) map[string]FileFact {
	files := make(map[string]FileFact, len(paths))
	for _, path := range paths {
		data, err := os.ReadFile(path)
		if err != nil {
			files[path] = FileFact{Err: err.Error()}
		} else {
			files[path] = FileFact{Data: data}
		}
	}
	return files
}

// certificate returns the named certificate, compiled at its first use; nil when it does not exist or no version will do.
func (c *compiler) certificate(name string) *certificate {
	if cert, ok := c.certificates[name]; ok {
		return cert
	}
	var cert *certificate
	c.choose(registry.Ref{Kind: registry.KindCertificate, Name: name}, func(o registry.Object) []spec.FieldError {
		value, faults := Recall[spec.Certificate](c.facts.Readings, o)
		if len(faults) > 0 {
			return faults
		}
		if value.ChainFile != "" {
			cert, faults = c.certificateFromFiles(o.Ref(), value)
		} else {
			cert, faults = c.certificateFromSecret(name, value)
		}
		return faults
	})
	c.certificates[name] = cert
	return cert
}

func (c *compiler) certificateFromSecret(name string, value spec.Certificate) (*certificate, []spec.FieldError) {
	ref := registry.Ref{Kind: registry.KindSecret, Name: value.KeySHA256}
	o, ok := c.objects[ref]
	if !ok {
		o, ok = c.good.Objects[ref]
	}
	if !ok {
		return nil, []spec.FieldError{{Field: "/keySHA256", Message: "its private key is not in the registry: submit the certificate again with its key"}}
	}
	var secret Secret
	if err := json.Unmarshal(o.Value, &secret); err != nil {
		return nil, []spec.FieldError{{Field: "/keySHA256", Message: "its private key can't be read: submit the certificate again with its key"}}
	}
	chain, key := []byte(value.Chain), []byte(secret.PEM)
	if err := checkPair(chain, key); err != nil {
		return nil, []spec.FieldError{{Field: "/chain", Message: err.Error()}}
	}
	c.used.Objects[ref] = o
	return newCertificate(name, chain, key), nil
}

// certificateFromFiles takes the files as they are now; while they can't be used (a renewal is half done), as they last
// were good.
func (c *compiler) certificateFromFiles(ref registry.Ref, value spec.Certificate) (*certificate, []spec.FieldError) {
	chain, key, err := c.pair(value)
	if err != nil {
		oldChain, oldKey := c.good.Files[value.ChainFile], c.good.Files[value.KeyFile]
		if checkPair(oldChain, oldKey) != nil {
			return nil, []spec.FieldError{{Field: "/chainFile", Message: err.Error()}}
		}
		c.problem(ref, "/chainFile", "%s; until then the last good pair stays", err)
		chain, key = oldChain, oldKey
	}
	c.used.Files[value.ChainFile], c.used.Files[value.KeyFile] = chain, key
	return newCertificate(ref.Name, chain, key), nil
}

func (c *compiler) pair(value spec.Certificate) (chain, key []byte, err error) {
	for _, path := range []string{value.ChainFile, value.KeyFile} {
		if fact, ok := c.facts.Files[path]; !ok {
			return nil, nil, fmt.Errorf("%s was not read yet", path)
		} else if fact.Err != "" {
			return nil, nil, fmt.Errorf("%s: let the user that sluice runs as read it", fact.Err)
		}
	}
	chain, key = c.facts.Files[value.ChainFile].Data, c.facts.Files[value.KeyFile].Data
	return chain, key, checkPair(chain, key)
}

// newCertificate takes of two files only the certificates and the key: parameters, comments and a key that stands in the
// chain's file stay out.
func newCertificate(name string, chain, key []byte) *certificate {
	return &certificate{notAfter: notAfter(chain), config: templates.Certificate{
		Name:  name,
		Chain: blocks(chain, func(kind string) bool { return kind == "CERTIFICATE" }),
		Key:   blocks(key, func(kind string) bool { return kind != "CERTIFICATE" && kind != "EC PARAMETERS" }),
	}}
}

// notAfter returns when the first certificate of a chain that was checked expires.
func notAfter(chain []byte) time.Time {
	block, _ := pem.Decode(chain)
	if block == nil {
		return time.Time{}
	}
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return time.Time{}
	}
	return cert.NotAfter
}

func blocks(data []byte, take func(kind string) bool) []byte {
	var out bytes.Buffer
	for block, rest := pem.Decode(data); block != nil; block, rest = pem.Decode(rest) {
		if take(block.Type) {
			_ = pem.Encode(&out, block) // a bytes.Buffer takes everything
		}
	}
	return out.Bytes()
}

// checkPair returns why chain and key can't serve together.
func checkPair(chain, key []byte) error {
	pair, err := tls.X509KeyPair(chain, key)
	if err != nil {
		return fmt.Errorf("chain and key do not fit together (%w): renew both", err)
	}
	for i, der := range pair.Certificate {
		if _, err := x509.ParseCertificate(der); err != nil {
			return fmt.Errorf("certificate %d of the chain can't be parsed: %w", i+1, err)
		}
	}
	return nil
}
