package api

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"

	"sluice/controlplane"
	"sluice/controlplane/spec"
	"sluice/registry"
)

// keys gathers what becomes of private keys in a change: certificates hold only their hash, the keys are secrets.
type keys struct {
	store map[string]string // PEM by hash, to be stored
	left  map[string]bool   // hashes that certificates gave up
	kept  map[string]bool   // hashes that they name now
}

func newKeys() keys {
	return keys{store: map[string]string{}, left: map[string]bool{}, kept: map[string]bool{}}
}

// patchOfKey returns the patch of a certificate, which takes the hash of the key before away when it brings another key.
func patchOfKey(patch json.RawMessage) json.RawMessage {
	var fields map[string]json.RawMessage
	if err := json.Unmarshal(patch, &fields); err != nil || fields["key"] == nil || fields["keySHA256"] != nil {
		return patch
	}
	fields["keySHA256"] = json.RawMessage("null")
	if out, err := json.Marshal(fields); err == nil {
		return out
	}
	return patch
}

// split takes the key out of a certificate, and notes what happens to it and to the one before.
func (k keys) split(o object, before registry.Object) object {
	if old, err := spec.Decode[spec.Certificate](before.Value); before.Seq > 0 && err == nil && old.KeySHA256 != "" {
		k.left[old.KeySHA256] = true
	}
	cert, ok := o.(spec.Certificate)
	if !ok {
		return nil
	}
	if cert.Key != "" {
		cert.KeySHA256 = spec.KeyHash(cert.Key)
		k.store[cert.KeySHA256] = cert.Key
		cert.Key = ""
	}
	if cert.KeySHA256 != "" {
		k.kept[cert.KeySHA256] = true
	}
	return cert
}

// planKeys adds the secrets to the operations: those that are stored, and those that no certificate names any more.
func (s *Server) planKeys(ctx context.Context, p *plan, k keys) error {
	for _, hash := range slices.Sorted(maps.Keys(k.store)) {
		value, err := json.Marshal(controlplane.Secret{PEM: k.store[hash]})
		if err != nil {
			return fmt.Errorf("encode a key: %w", err)
		}
		p.ops = append(p.ops, registry.Op{Ref: registry.Ref{Kind: registry.KindSecret, Name: hash}, Value: value})
	}
	maps.DeleteFunc(k.left, func(hash string, _ bool) bool { return k.kept[hash] })
	if len(k.left) == 0 {
		return nil
	}
	page, err := s.registry.List(ctx, registry.KindCertificate, "", 0)
	if err != nil {
		return s.fault(err)
	}
	edited := map[registry.Ref]bool{}
	for _, e := range p.edits {
		edited[e.Ref] = true
	}
	for _, o := range page.Objects {
		if !edited[o.Ref()] {
			delete(k.left, keyOf(o))
		}
	}
	for _, hash := range slices.Sorted(maps.Keys(k.left)) {
		p.dropped = append(p.dropped, hash)
		p.ops = append(p.ops, registry.Op{Ref: registry.Ref{Kind: registry.KindSecret, Name: hash}})
	}
	return nil
}

// keyOf returns the hash of a stored certificate's key, or "".
func keyOf(o registry.Object) string {
	cert, err := spec.Decode[spec.Certificate](o.Value)
	if err != nil {
		return "" // names no key that could be used
	}
	return cert.KeySHA256
}

// checkDropped makes sure that no certificate needs a key that the change deletes.
func (s *Server) checkDropped(ctx context.Context, p plan, after registry.View) error {
	if len(p.dropped) == 0 {
		return nil
	}
	certs, err := after.List(ctx, registry.KindCertificate)
	if err != nil {
		return s.fault(err)
	}
	if slices.ContainsFunc(certs, func(o registry.Object) bool { return slices.Contains(p.dropped, keyOf(o)) }) {
		return errAgain
	}
	return nil
}

// checkStoredKey looks whether the key that a certificate names by its hash is there, and fits.
func (s *Server) checkStoredKey(ctx context.Context, cert spec.Certificate, after registry.View) ([]spec.FieldError, error) {
	if cert.KeySHA256 == "" || cert.Key != "" {
		return nil, nil
	}
	o, err := after.Get(ctx, registry.Ref{Kind: registry.KindSecret, Name: cert.KeySHA256})
	if errors.Is(err, registry.ErrNotFound) {
		return []spec.FieldError{{Field: "/keySHA256", Message: "no such key is stored: give the key itself"}}, nil
	}
	if err != nil {
		return nil, s.fault(err)
	}
	if why := misfit(cert.Chain, o); why != "" {
		return []spec.FieldError{{Field: "/keySHA256", Message: why}}, nil
	}
	return nil, nil
}

// keyIsGone refuses to bring a certificate back: when no certificate names a key any more, the key is deleted.
func keyIsGone(ref registry.Ref) error {
	p := problemf(http.StatusConflict, "the key of %s as it was is not stored any more: write the certificate with its key", ref)
	p.Object = ref.String()
	return p
}

// misfit says why a stored key does not fit a chain, or "".
func misfit(chain string, o registry.Object) string {
	secret, err := spec.Decode[controlplane.Secret](o.Value)
	if err != nil {
		return "the stored key cannot be read: give the key itself"
	}
	if err := spec.CheckKey(chain, secret.PEM); err != nil {
		return err.Error()
	}
	return ""
}
