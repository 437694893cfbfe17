package consul

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strings"

	"sluice/registry"
	"sluice/registry/keyspace"
)

// Config says where Consul is and who we are there.
type Config struct {
	// Addresses are URLs of agents of one cluster: http://127.0.0.1:8500, https://10.0.0.1:8501. The first that answers is
	// used; the others are for when it does not.
	Addresses []string
	// Fleet is the name that the keys begin with: sluice/<fleet>/. Default: keyspace.DefaultFleet.
	Fleet string

	CAFile     string // PEM; default: the system's
	CertFile   string // PEM, with KeyFile: the client's certificate, read again for each connection
	KeyFile    string
	ServerName string // the name to expect in the agent's certificate; default: the address's host

	Token      string // ACL token; default: CONSUL_HTTP_TOKEN of the environment, as with all of Consul's programs
	Datacenter string // default: the agent's. Nodes can be registered in the agent's only
	Namespace  string // Consul Enterprise

	Logger *slog.Logger // default: slog.Default()
}

func (c Config) withDefaults() Config {
	if c.Fleet == "" {
		c.Fleet = keyspace.DefaultFleet
	}
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	return c
}

// Validate returns what is wrong with c.
func (c Config) Validate() error {
	var errs []error
	if len(c.Addresses) == 0 {
		errs = append(errs, errors.New("addresses: name at least one, as http://127.0.0.1:8500"))
	}
	if c.Fleet != "" && !registry.ValidName(c.Fleet) {
		errs = append(errs, fmt.Errorf("fleet: %q is not a name: use lower-case letters, digits, dots, dashes and underscores, at most 63", c.Fleet))
	}
	if (c.CertFile == "") != (c.KeyFile == "") {
		errs = append(errs, errors.New("certFile and keyFile: give both or none"))
	}
	for _, a := range c.Addresses {
		if err := c.checkAddress(a); err != nil {
			errs = append(errs, fmt.Errorf("addresses: %w", err))
		}
	}
	return errors.Join(errs...)
}

func (c Config) checkAddress(address string) error {
	u, err := url.Parse(address)
	switch {
	case err != nil:
		return err
	case u.Scheme != "http" && u.Scheme != "https":
		return fmt.Errorf("%q is not a URL: write it as http://127.0.0.1:8500 or https://host:8501", address)
	case u.Host == "" || strings.Trim(u.Path, "/") != "" || u.RawQuery != "" || u.User != nil:
		return fmt.Errorf("%q is not of the form %s://host:port", address, u.Scheme)
	case u.Scheme == "http" && (c.CAFile != "" || c.CertFile != ""):
		return fmt.Errorf("%q is not encrypted, but certificates are given: write https://", address)
	case u.Scheme == "http" && c.Token != "" && !isLoopback(u.Hostname()):
		return fmt.Errorf("%q would carry the token unencrypted: write https://, or use the agent of this machine", address)
	}
	return nil
}

func (c Config) tls() (*tls.Config, error) {
	conf := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: c.ServerName}
	if c.CAFile != "" {
		pem, err := os.ReadFile(filepath.Clean(c.CAFile))
		if err != nil {
			return nil, fmt.Errorf("read the certificate authority for Consul: %w", err)
		}
		conf.RootCAs = x509.NewCertPool()
		if !conf.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("read the certificate authority for Consul: %s holds no certificate in PEM", c.CAFile)
		}
	}
	if c.CertFile != "" {
		load := func() (*tls.Certificate, error) {
			cert, err := tls.LoadX509KeyPair(c.CertFile, c.KeyFile)
			return &cert, err
		}
		if _, err := load(); err != nil {
			return nil, fmt.Errorf("read our certificate for Consul: %w", err)
		}
		conf.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return load() }
	}
	return conf, nil
}

func isLoopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}
