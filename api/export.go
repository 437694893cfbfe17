package api

import (
	"cmp"
	"context"
	"crypto/hpke"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"sluice/controlplane"
	"sluice/controlplane/spec"
	"sluice/registry"
)

// ExportFormat is the version of an Export. A later one is refused: it may mean something else.
const ExportFormat = 1

// maxExport is the most bytes of the objects of an export: with names, slots and keys it is within what a client reads.
const maxExport = maxAnswer * 3 / 4

// state is all that is desired, at one seq.
type state struct {
	seq     registry.Seq
	objects map[registry.Ref]registry.Object
	slots   []registry.SlotTable // which have no seq
}

// state reads the desired state. Each kind is a list of its own: while others write, it is read again until all are of one seq.
func (s *Server) state(ctx context.Context) (state, error) {
	for range maxAttempts {
		is := state{objects: map[registry.Ref]registry.Object{}}
		moved := false
		for i, kind := range registry.DesiredKinds() {
			page, err := s.registry.List(ctx, kind, "", 0)
			if err != nil {
				return state{}, s.fault(err)
			}
			if moved = i > 0 && page.Seq != is.seq; moved {
				break
			}
			is.seq = page.Seq
			for _, o := range page.Objects {
				is.objects[o.Ref()] = o
			}
		}
		if moved {
			continue
		}
		var err error
		is.slots, err = s.registry.ListSlots(ctx)
		return is, s.fault(err)
	}
	return state{}, newProblem(http.StatusConflict, "others kept changing the desired state: try again")
}

// of returns the objects of a kind, sorted by name.
func (is state) of(kind registry.Kind) []registry.Object {
	var out []registry.Object
	for ref, o := range is.objects {
		if ref.Kind == kind {
			out = append(out, o)
		}
	}
	slices.SortFunc(out, func(a, b registry.Object) int { return cmp.Compare(a.Name, b.Name) })
	return out
}

// maps returns the objects of e by their kinds.
func (e *ExportedState) maps() map[registry.Kind]*map[string]StoredObject {
	return map[registry.Kind]*map[string]StoredObject{
		registry.KindCertificate: &e.Certificates, registry.KindUpstream: &e.Upstreams, registry.KindSite: &e.Sites,
		registry.KindOverride: &e.Overrides, registry.KindApproval: &e.Approvals, registry.KindToken: &e.Tokens,
	}
}

// Export implements StrictServerInterface.
func (s *Server) Export(ctx context.Context, r ExportRequestObject) (ExportResponseObject, error) {
	noteExport(ctx)
	if err := s.checkReadable(); err != nil {
		return nil, err
	}
	is, err := s.state(ctx)
	if err != nil {
		return nil, err
	}
	e := Export{Format: ExportFormat, Seq: is.seq, At: time.Now().UTC().Truncate(time.Second), Slots: map[string][]registry.Slot{}}
	size := 0
	for kind, objects := range e.State.maps() {
		*objects = map[string]StoredObject{}
		for _, o := range is.of(kind) {
			(*objects)[o.Name] = o.Value
			size += len(o.Value)
		}
	}
	if size > maxExport {
		return nil, problemf(http.StatusRequestEntityTooLarge, "the objects have %d bytes, and %d are the most that can be restored", size, maxExport)
	}
	for _, t := range is.slots {
		if _, ok := e.State.Upstreams[t.Upstream]; ok { // others are of upstreams that were deleted
			e.Slots[t.Upstream] = t.Slots
		}
	}
	if r.Params.Recipient != "" {
		recipient, err := parseRecipient(r.Params.Recipient)
		if err != nil {
			return nil, err
		}
		e.Recipient = r.Params.Recipient
		if e.SealedKeys, err = is.sealKeys(recipient); err != nil {
			return nil, err
		}
	}
	if e.Checksum, err = e.digest(); err != nil {
		return nil, fmt.Errorf("encode the export: %w", err)
	}
	text, err := registry.MarshalJSON(e)
	if err != nil {
		return nil, fmt.Errorf("encode the export: %w", err)
	}
	return exported(text), nil
}

// checkReadable refuses to leave out what this instance cannot read: a newer one may have written it. Keys are another matter.
func (s *Server) checkReadable() error {
	snapshot, _ := s.local.Snapshot()
	for _, p := range snapshot.Problems {
		kind, _, _ := strings.Cut(p.Object, "/")
		if _, ok := new(ExportedState).maps()[registry.Kind(kind)]; ok {
			problem := problemf(http.StatusConflict, "the export would lack what this instance cannot read: %s", p)
			problem.Object = p.Object
			return problem
		}
	}
	return nil
}

// sealKeys seals the private keys that certificates name.
func (is state) sealKeys(recipient hpke.PublicKey) (map[string]string, error) {
	sealed := map[string]string{}
	for _, o := range is.of(registry.KindCertificate) {
		hash := keyOf(o)
		if hash == "" || sealed[hash] != "" {
			continue
		}
		secret, err := spec.Decode[controlplane.Secret](is.objects[secretRef(hash)].Value)
		if err != nil || spec.KeyHash(secret.PEM) != hash {
			p := problemf(http.StatusConflict, "the key of %s cannot be read here: run sluice with the --secrets-key-file that it was stored with, "+
				"write the certificate with its key, or export without keys", o.Ref())
			p.Object = o.Ref().String()
			return nil, p
		}
		if sealed[hash], err = sealKey(recipient, hash, secret.PEM); err != nil {
			return nil, err
		}
	}
	return sealed, nil
}

func secretRef(hash string) registry.Ref {
	return registry.Ref{Kind: registry.KindSecret, Name: hash}
}

// digest returns the SHA-256 of e, whatever the order of its keys, its spaces and its escapes.
func (e Export) digest() (string, error) {
	e.Keys, e.Checksum = nil, ""
	text, err := registry.MarshalJSON(e)
	if err != nil {
		return "", err
	}
	tree, err := decodeAny(text)
	if err != nil {
		return "", err
	}
	sum := sha256.Sum256(encodeAny(tree))
	return hex.EncodeToString(sum[:]), nil
}

// exported is the text of an Export. The generated type would escape characters of objects that were not escaped.
type exported json.RawMessage

// VisitExportResponse implements ExportResponseObject.
func (e exported) VisitExportResponse(w http.ResponseWriter) error {
	w.Header().Set("Content-Type", "application/json")
	_, err := w.Write(e)
	return err
}
