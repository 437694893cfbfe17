package templates

func certificatePath(name string) string { return "certs/" + name + ".pem" }
func keyPath(name string) string         { return "certs/" + name + ".key" }

// addCertificates checks the certificates, so that sites can name them.
func (b *builder) addCertificates() {
	for _, c := range b.cfg.Certificates {
		object := "certificate/" + c.Name
		value(b, object, "name", name, c.Name)
		if b.certificates[c.Name] {
			b.refuse(object, "is there twice")
		}
		b.certificates[c.Name] = true
		if len(c.Chain) == 0 || len(c.Key) == 0 {
			b.refuse(object, "has no chain or no key")
		}
	}
}

// tlsView is how a server speaks TLS.
type tlsView struct {
	Certificate token // path; empty where the handshake is rejected
	Key         token
	TLS13Only   bool // no handshake with anything older
}

// tls returns the view of a certificate; an empty name has none.
func (b *builder) tls(certificate string, tls13Only bool) *tlsView {
	if certificate == "" {
		return &tlsView{TLS13Only: tls13Only}
	}
	return &tlsView{
		Certificate: b.base + token(certificatePath(certificate)),
		Key:         b.base + token(keyPath(certificate)),
		TLS13Only:   tls13Only,
	}
}
