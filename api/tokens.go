package api

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"sluice/controlplane/spec"
	"sluice/registry"
)

func tokenRef(name string) registry.Ref { return registry.Ref{Kind: registry.KindToken, Name: name} }

// ListTokens implements StrictServerInterface.
func (s *Server) ListTokens(ctx context.Context, r ListTokensRequestObject) (ListTokensResponseObject, error) {
	p := r.Params
	var f filters[named[spec.Token]]
	f.add(p.Role != "", func(n named[spec.Token]) bool { return n.Spec.Role == p.Role })
	page, err := list[spec.Token](ctx, s, registry.KindToken, newListing(p.From, p.Prefix, p.Limit), f)
	if err != nil {
		return nil, err
	}
	items := convert(page.items, func(n named[spec.Token]) NamedToken { return namedToken(n.Name, n.Spec) })
	return ListTokens200JSONResponse{Items: items, Next: page.next, Seq: page.seq}, nil
}

// namedToken leaves the hash out: it is of no use to anybody who may read it.
func namedToken(name string, t spec.Token) NamedToken {
	t.Hash = ""
	return NamedToken{Name: name, Spec: t, Expired: expired(t)}
}

// GetToken implements StrictServerInterface.
func (s *Server) GetToken(ctx context.Context, r GetTokenRequestObject) (GetTokenResponseObject, error) {
	token, _, err := get[spec.Token](ctx, s, tokenRef(r.Name))
	if err != nil {
		return nil, err
	}
	return GetToken200JSONResponse(namedToken(r.Name, token)), nil
}

// CreateToken implements StrictServerInterface. The answer is the only place where the token's text ever is.
func (s *Server) CreateToken(ctx context.Context, r CreateTokenRequestObject) (CreateTokenResponseObject, error) {
	text := newTokenText(r.Body.Name)
	now := time.Now().UTC().Truncate(time.Second)
	token := spec.Token{
		Role: r.Body.Role, Hash: tokenHash(text), Created: &now, Note: r.Body.Note, Limits: r.Body.Limits,
	}
	errs := token.Validate()
	if !spec.ValidName(r.Body.Name) {
		errs = append(errs, at("/name", spec.CheckName(r.Body.Name))...)
	}
	if ttl := time.Duration(r.Body.TTL); ttl < 0 || ttl > 0 && ttl < time.Second {
		errs = append(errs, spec.FieldError{Field: "/ttl", Message: fmt.Sprintf("%s is too short: give a second or more, or leave it out", ttl)})
	} else if ttl > 0 {
		token.Expires = new(now.Add(ttl))
	}
	if err := invalid(errs); err != nil {
		return nil, err
	}
	value, err := registry.MarshalJSON(token)
	if err != nil {
		return nil, fmt.Errorf("encode the token: %w", err)
	}
	_, err = s.commitToken(ctx, registry.Op{Ref: tokenRef(r.Body.Name), Value: value, IfSeq: new(registry.Seq(0))}, r.Params.XChangeReason)
	if _, exists := errors.AsType[*registry.ConflictError](err); exists {
		return nil, problemf(http.StatusConflict, "there is a token %q already: revoke it first, or choose another name", r.Body.Name)
	}
	if err != nil {
		return nil, err
	}
	is := namedToken(r.Body.Name, token)
	return CreateToken201JSONResponse{Name: is.Name, Spec: is.Spec, Token: text}, nil
}

// DeleteToken implements StrictServerInterface.
func (s *Server) DeleteToken(ctx context.Context, r DeleteTokenRequestObject) (DeleteTokenResponseObject, error) {
	done, err := s.commitToken(ctx, registry.Op{Ref: tokenRef(r.Name)}, r.Params.XChangeReason)
	if err == nil && done.Unchanged {
		err = fmt.Errorf("%s: %w", tokenRef(r.Name), registry.ErrNotFound)
	}
	if err != nil {
		return nil, err
	}
	return DeleteToken204Response{}, nil
}

// commitToken writes or deletes a token: a change like any other, but one that no gateway has to follow.
func (s *Server) commitToken(ctx context.Context, op registry.Op, reason string) (registry.Committed, error) {
	done, err := s.registry.Commit(ctx, registry.Tx{Ops: []registry.Op{op}, Author: author(ctx), Reason: withoutTokens(reason)})
	if err != nil {
		return done, s.fault(err)
	}
	s.tokens.forget(op.Name)
	noteChange(ctx, done.Seq, done.Changed)
	return done, nil
}

// at moves errors below a field of the body.
func at(field string, errs []spec.FieldError) []spec.FieldError {
	out := make([]spec.FieldError, len(errs))
	for i, e := range errs {
		out[i] = spec.FieldError{Field: field + e.Field, Message: e.Message}
	}
	return out
}
