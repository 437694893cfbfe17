package etcd

import (
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"strings"

	"go.etcd.io/etcd/client/pkg/v3/transport"

	"sluice/registry"
	"sluice/registry/keyspace"
)

// Config says where etcd is and who we are there.
type Config struct {
	// Endpoints are URLs: https://host:2379, http://127.0.0.1:2379, unix:///path. Default: those of Server.
	Endpoints []string
	// Server is the embedded server behind Endpoints, if it is one; Health then knows why it does not answer.
	Server *Embedded
	// Fleet is the name that the keys begin with: /sluice/<fleet>/. Default: keyspace.DefaultFleet.
	Fleet string

	CAFile     string // PEM; default: the system's
	CertFile   string // PEM, with KeyFile: the client's certificate, read again for each connection
	KeyFile    string
	ServerName string // the name to expect in the server's certificate; default: the endpoint's host

	Username string // instead of a client certificate
	Password string

	Logger *slog.Logger // default: slog.Default()
}

func (c Config) withDefaults() Config {
	if len(c.Endpoints) == 0 && c.Server != nil {
		c.Endpoints = []string{c.Server.ClientURL()}
	}
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
	if len(c.Endpoints) == 0 {
		errs = append(errs, errors.New("endpoints: name at least one, as https://10.0.0.1:2379"))
	}
	if c.Fleet != "" && !registry.ValidName(c.Fleet) {
		errs = append(errs, fmt.Errorf("fleet: %q is not a name: use lower-case letters, digits, dots, dashes and underscores, at most 63", c.Fleet))
	}
	if (c.CertFile == "") != (c.KeyFile == "") {
		errs = append(errs, errors.New("certFile and keyFile: give both or none"))
	}
	if (c.Username == "") != (c.Password == "") {
		errs = append(errs, errors.New("username and password: give both or none"))
	}
	for _, e := range c.Endpoints {
		if first, _, _ := strings.Cut(c.Endpoints[0], ":"); !strings.HasPrefix(e, first+":") {
			errs = append(errs, fmt.Errorf("endpoints: %q and %q: all must be of one scheme", c.Endpoints[0], e))
		}
		if err := c.checkEndpoint(e); err != nil {
			errs = append(errs, fmt.Errorf("endpoints: %w", err))
		}
	}
	return errors.Join(errs...)
}

func (c Config) checkEndpoint(endpoint string) error {
	u, err := url.Parse(endpoint)
	if err != nil {
		return err
	}
	local := u.Scheme == "unix" || u.Scheme == "unixs" || isLoopback(u.Hostname())
	switch u.Scheme {
	case "http", "https":
		if u.Host == "" || strings.Trim(u.Path, "/") != "" {
			return fmt.Errorf("%q is not of the form %s://host:port", endpoint, u.Scheme)
		}
	case "unix", "unixs":
		if u.Host+u.Path == "" {
			return fmt.Errorf("%q is not of the form %s:///path", endpoint, u.Scheme)
		}
	default:
		return fmt.Errorf("%q is not a URL: write it as https://host:2379, http://127.0.0.1:2379 or unix:///path", endpoint)
	}
	if u.Scheme == "http" && (c.CAFile != "" || c.CertFile != "") {
		return fmt.Errorf("%q is not encrypted, but certificates are given: write https://", endpoint)
	}
	if u.Scheme == "http" && c.Password != "" && !local {
		return fmt.Errorf("%q would carry the password unencrypted: write https://", endpoint)
	}
	return nil
}

// tls returns nil where no certificate is named: https then trusts what the system trusts.
func (c Config) tls() (*tls.Config, error) {
	if c.CAFile == "" && c.CertFile == "" {
		return nil, nil
	}
	info := transport.TLSInfo{CertFile: c.CertFile, KeyFile: c.KeyFile, TrustedCAFile: c.CAFile}
	conf, err := info.ClientConfig()
	if err != nil {
		return nil, fmt.Errorf("read the certificates for etcd: %w", err)
	}
	return conf, nil
}

func isLoopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}
