package consul

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/hashicorp/consul/api"

	"sluice/registry"
	"sluice/registry/keyspace"
)

// maxTxnOps is Consul's limit on the operations of one transaction.
const maxTxnOps = 128

// txn runs one transaction. ok is false when one of its comparisons did not hold. One that writes is not tried twice: the
// first time may have been enough.
func (r *Registry) txn(ctx context.Context, limit time.Duration, ops ...*api.KVTxnOp) (pairs []*api.KVPair, ok bool, err error) {
	list := make(api.TxnOps, len(ops))
	for i, op := range ops {
		list[i] = &api.TxnOp{KV: op}
	}
	var resp *api.TxnResponse
	call := r.call
	if slices.ContainsFunc(ops, func(op *api.KVTxnOp) bool { return op.Verb != api.KVGetOrEmpty && op.Verb != api.KVGetTree }) {
		call = r.once
	}
	err = call(ctx, limit, func(ctx context.Context, c *api.Client) (err error) {
		ok, resp, _, err = c.Txn().Txn(list, linearizable(ctx))
		return err
	})
	if err != nil {
		return nil, false, err
	}
	if !ok {
		for _, e := range resp.Errors {
			if strings.Contains(e.What, "ermission denied") {
				return nil, false, &refusal{http.StatusForbidden, e.What}
			}
			if i := e.OpIndex; i < 0 || i >= len(ops) || !compares(ops[i].Verb) {
				return nil, false, fmt.Errorf("transaction: %s", e.What)
			}
		}
		return nil, false, nil
	}
	for _, result := range resp.Results {
		if result.KV != nil {
			pairs = append(pairs, result.KV)
		}
	}
	return pairs, true, nil
}

func compares(verb api.KVOp) bool {
	switch verb {
	case api.KVCAS, api.KVDeleteCAS, api.KVLock, api.KVCheckIndex, api.KVCheckNotExists, api.KVCheckSession:
		return true
	}
	return false
}

func opGet(key string) *api.KVTxnOp { return &api.KVTxnOp{Verb: api.KVGetOrEmpty, Key: key} }

func opTree(prefix string) *api.KVTxnOp { return &api.KVTxnOp{Verb: api.KVGetTree, Key: prefix} }

func opSet(key, value string) *api.KVTxnOp {
	return &api.KVTxnOp{Verb: api.KVSet, Key: key, Value: []byte(value)}
}

// opCAS sets a key that was last changed at index; 0 means that it must not exist.
func opCAS(key, value string, index uint64) *api.KVTxnOp {
	return &api.KVTxnOp{Verb: api.KVCAS, Key: key, Value: []byte(value), Index: index}
}

func opDelete(key string) *api.KVTxnOp { return &api.KVTxnOp{Verb: api.KVDelete, Key: key} }

// exists tells a pair from the empty one that stands for a key that is not there.
func exists(p *api.KVPair) bool { return p.ModifyIndex > 0 }

// getKey returns nil when the key does not exist.
func (r *Registry) getKey(ctx context.Context, key string) (*api.KVPair, error) {
	pairs, ok, err := r.txn(ctx, r.timing.call, opGet(key))
	switch {
	case err != nil:
		return nil, err
	case !ok || len(pairs) != 1:
		return nil, errors.New("consul does not know get-or-empty: it is older than 1.14, upgrade it")
	case !exists(pairs[0]):
		return nil, nil
	}
	return pairs[0], nil
}

// moment is some of the state, read at one moment.
type moment struct {
	seq   registry.Seq
	index uint64 // ModifyIndex of the head; zero when there is none
	pairs []*api.KVPair
}

// read reads the head and what ops say, at one moment.
func (r *Registry) read(ctx context.Context, limit time.Duration, ops ...*api.KVTxnOp) (moment, error) {
	pairs, ok, err := r.txn(ctx, limit, append([]*api.KVTxnOp{opGet(r.keys.Head)}, ops...)...)
	if err != nil {
		return moment{}, err
	}
	if !ok || len(pairs) == 0 {
		return moment{}, errors.New("consul does not know get-or-empty: it is older than 1.14, upgrade it")
	}
	m := moment{pairs: pairs[1:], index: pairs[0].ModifyIndex}
	if !exists(pairs[0]) {
		return m, nil
	}
	if m.seq, err = keyspace.DecodeHead(pairs[0].Value); err != nil {
		// Without its seq nothing can be numbered, so a damaged head is an error and not a Problem.
		return m, fmt.Errorf(`%s is damaged (%w). Mend it: consul kv put %s '{"v":1,"seq":N}', with N of the newest entry of %s`,
			r.keys.Head, err, r.keys.Head, r.keys.History)
	}
	return m, nil
}
