package api

import (
	"context"
	"crypto/x509"
	"encoding/pem"
	"net/http"
	"time"

	"sluice/controlplane/spec"
	"sluice/registry"
)

func certificateRef(name string) registry.Ref {
	return registry.Ref{Kind: registry.KindCertificate, Name: name}
}

// ListCertificates implements StrictServerInterface.
func (s *Server) ListCertificates(ctx context.Context, r ListCertificatesRequestObject) (ListCertificatesResponseObject, error) {
	p := r.Params
	var f filters[named[spec.Certificate]]
	f.add(p.Owner != "", func(n named[spec.Certificate]) bool { return n.Spec.Owner == p.Owner })
	if p.ExpiresBefore != "" {
		before, err := time.Parse(time.RFC3339, p.ExpiresBefore)
		if err != nil {
			return nil, problemf(http.StatusBadRequest, "expiresBefore: %q is not a time: write it as 2026-12-31T00:00:00Z", p.ExpiresBefore)
		}
		f.add(true, func(n named[spec.Certificate]) bool { return expiresBefore(n.Spec, before) })
	}
	page, err := list[spec.Certificate](ctx, s, registry.KindCertificate, newListing(p.From, p.Prefix, p.Limit), f)
	if err != nil {
		return nil, err
	}
	items := convert(page.items, namedCertificate)
	return ListCertificates200JSONResponse{Items: items, Next: page.next, Seq: page.seq}, nil
}

// GetCertificate implements StrictServerInterface.
func (s *Server) GetCertificate(ctx context.Context, r GetCertificateRequestObject) (GetCertificateResponseObject, error) {
	object, seq, err := get[spec.Certificate](ctx, s, certificateRef(r.Name))
	if err != nil {
		return nil, err
	}
	return GetCertificate200JSONResponse{Body: object, Headers: GetCertificate200ResponseHeaders{ETag: etag(seq)}}, nil
}

// PutCertificate implements StrictServerInterface.
func (s *Server) PutCertificate(ctx context.Context, r PutCertificateRequestObject) (PutCertificateResponseObject, error) {
	return s.put(ctx, certificateRef(r.Name), *r.Body, writing(r.Params))
}

// PatchCertificate implements StrictServerInterface.
func (s *Server) PatchCertificate(ctx context.Context, r PatchCertificateRequestObject) (PatchCertificateResponseObject, error) {
	return s.patch(ctx, certificateRef(r.Name), *r.Body, writing(r.Params))
}

// DeleteCertificate implements StrictServerInterface.
func (s *Server) DeleteCertificate(ctx context.Context, r DeleteCertificateRequestObject) (DeleteCertificateResponseObject, error) {
	return s.remove(ctx, certificateRef(r.Name), deleting(r.Params))
}

func namedCertificate(n named[spec.Certificate]) NamedCertificate {
	return NamedCertificate{Name: n.Name, Seq: n.Seq, Spec: n.Spec, NotAfter: notAfter(n.Spec.Chain)}
}

// notAfter returns when the first certificate of a chain expires, or the zero time.
func notAfter(chain string) time.Time {
	block, _ := pem.Decode([]byte(chain))
	if block == nil {
		return time.Time{}
	}
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return time.Time{}
	}
	return cert.NotAfter
}

// expiresBefore reports whether it is known that a certificate expires before a time.
func expiresBefore(c spec.Certificate, at time.Time) bool {
	expires := notAfter(c.Chain)
	return !expires.IsZero() && expires.Before(at)
}
