package registry

import (
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
)

// SealKeySize is the size in bytes of the key that Seal takes.
const SealKeySize = 32

// Seal returns r with the values of secrets encrypted at rest, with AES-256-GCM and the object's name as additional
// data. Secrets that were stored in the clear before stay readable; writing one again seals it. A secret that does not
// open (another key, a damaged value) is left out of Snapshots and lists, with a Problem in the Snapshot.
func Seal(r Registry, key []byte) (Registry, error) {
	if len(key) != SealKeySize {
		return nil, fmt.Errorf("the key that seals secrets has %d bytes; it must have %d: make one with "+
			"`head -c 32 /dev/urandom`", len(key), SealKeySize)
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, fmt.Errorf("seal secrets: %w", err)
	}
	aead, err := cipher.NewGCM(block)
	if err != nil {
		return nil, fmt.Errorf("seal secrets: %w", err)
	}
	sum := sha256.Sum256(key)
	return &sealed{Registry: r, box: box{aead: aead, keyID: hex.EncodeToString(sum[:4])}}, nil
}

// envelope is the value of a sealed secret.
type envelope struct {
	Sealed string `json:"sealed"` // sealAlgorithm
	Key    string `json:"key"`    // the first 8 hex digits of the key's SHA-256
	Nonce  []byte `json:"nonce"`
	Data   []byte `json:"data"`
}

const sealAlgorithm = "aes-256-gcm"

// box seals and opens values.
type box struct {
	aead  cipher.AEAD
	keyID string
}

func (b box) seal(o Ref, value json.RawMessage) (json.RawMessage, error) {
	nonce := make([]byte, b.aead.NonceSize())
	if _, err := rand.Read(nonce); err != nil {
		return nil, fmt.Errorf("seal %s: %w", o, err)
	}
	return json.Marshal(envelope{
		Sealed: sealAlgorithm,
		Key:    b.keyID,
		Nonce:  nonce,
		Data:   b.aead.Seal(nil, nonce, value, []byte(o.String())),
	})
}

// open returns o with its value in the clear. wasSealed is false for what was stored in the clear, and for other kinds.
func (b box) open(o Object) (opened Object, wasSealed bool, err error) {
	if o.Kind != KindSecret {
		return o, false, nil
	}
	var e envelope
	if err := json.Unmarshal(o.Value, &e); err != nil || e.Sealed == "" {
		return o, false, nil //nolint:nilerr // whatever is not an envelope was stored in the clear
	}
	switch {
	case e.Sealed != sealAlgorithm:
		return o, true, fmt.Errorf("it is sealed with %q, which this version does not know: upgrade it", e.Sealed)
	case e.Key != b.keyID:
		return o, true, fmt.Errorf("it is sealed with key %s, this instance has key %s: "+
			"give all instances the same key file, or store the secret again", e.Key, b.keyID)
	case len(e.Nonce) != b.aead.NonceSize():
		return o, true, errors.New("its nonce is damaged: store the secret again")
	}
	value, err := b.aead.Open(nil, e.Nonce, e.Data, []byte(o.Ref().String()))
	if err != nil {
		return o, true, errors.New("it does not open, its value is damaged or was copied from another name: store the secret again")
	}
	o.Value = value
	return o, true, nil
}

// openAll opens what opens, and tells what does not. Without secrets, it returns objects itself.
func (b box) openAll(objects []Object) ([]Object, []Problem) {
	if !slices.ContainsFunc(objects, func(o Object) bool { return o.Kind == KindSecret }) {
		return objects, nil
	}
	out := make([]Object, 0, len(objects))
	var problems []Problem
	for _, o := range objects {
		opened, _, err := b.open(o)
		if err != nil {
			problems = append(problems, Problem{Object: o.Ref().String(), Message: err.Error()})
			continue
		}
		out = append(out, opened)
	}
	return out, problems
}

// sealed is a Registry that seals secrets on their way in and opens them on their way out.
type sealed struct {
	Registry
	box box
}

func (s *sealed) Get(ctx context.Context, ref Ref) (Object, error) {
	return openOne(s.box)(s.Registry.Get(ctx, ref))
}

func (s *sealed) List(ctx context.Context, kind Kind, from string, limit int) (Page, error) {
	page, err := s.Registry.List(ctx, kind, from, limit)
	page.Objects, _ = s.box.openAll(page.Objects)
	return page, err
}

func (s *sealed) Commit(ctx context.Context, tx Tx) (Committed, error) {
	if err := tx.Validate(); err != nil {
		return Committed{}, err
	}
	tx.Ops = slices.Clone(tx.Ops)
	for i := range tx.Ops {
		op := &tx.Ops[i]
		if op.Kind != KindSecret || op.Value == nil {
			continue
		}
		value, err := s.sealOp(ctx, *op)
		if err != nil {
			return Committed{}, err
		}
		op.Value = value
	}
	if check := tx.Check; check != nil {
		tx.Check = func(ctx context.Context, after View) error { return check(ctx, openView{after, s.box}) }
	}
	return s.Registry.Commit(ctx, tx)
}

// sealOp returns the sealed value of op. A nonce makes each sealing different, so the value that is stored already is
// taken again when it opens to the same: then the registry below sees that nothing changes.
func (s *sealed) sealOp(ctx context.Context, op Op) (json.RawMessage, error) {
	stored, err := s.Registry.Get(ctx, op.Ref)
	if err != nil && !errors.Is(err, ErrNotFound) {
		return nil, fmt.Errorf("seal %s: %w", op.Ref, err)
	}
	if err == nil {
		opened, wasSealed, err := s.box.open(stored)
		if err == nil && wasSealed && SameJSON(opened.Value, op.Value) {
			return stored.Value, nil
		}
	}
	return s.box.seal(op.Ref, op.Value)
}

func (s *sealed) Watch(ctx context.Context, uses func(Object) []string, out chan<- Snapshot) error {
	in := make(chan Snapshot)
	done := make(chan error, 1)
	go func() { done <- s.Registry.Watch(ctx, uses, in) }()
	var (
		raw      []Object // as the registry below sent them last
		opened   []Object
		problems []Problem
		newest   Snapshot
		send     chan<- Snapshot
	)
	for {
		select {
		case newest = <-in:
			if !sameSlice(raw, newest.Objects) {
				raw = newest.Objects
				opened, problems = s.box.openAll(raw)
			}
			newest.Objects = opened
			if len(problems) > 0 {
				newest.Problems = SortProblems(slices.Concat(newest.Problems, problems))
			}
			send = out
		case send <- newest:
			send = nil
		case err := <-done:
			return err
		}
	}
}

// sameSlice reports whether a and b are the same memory: a Snapshot shares what did not change with the one before.
func sameSlice(a, b []Object) bool {
	return len(a) == len(b) && (len(a) == 0 || &a[0] == &b[0])
}

// openView opens what a Check reads.
type openView struct {
	View
	box box
}

func (v openView) Get(ctx context.Context, ref Ref) (Object, error) {
	return openOne(v.box)(v.View.Get(ctx, ref))
}

func (v openView) List(ctx context.Context, kind Kind) ([]Object, error) {
	objects, err := v.View.List(ctx, kind)
	objects, _ = v.box.openAll(objects)
	return objects, err
}

// openOne opens the result of a Get.
func openOne(b box) func(Object, error) (Object, error) {
	return func(o Object, err error) (Object, error) {
		if err != nil {
			return o, err
		}
		o, _, err = b.open(o)
		if err != nil {
			return Object{}, fmt.Errorf("%s: %w", o.Ref(), err)
		}
		return o, nil
	}
}
