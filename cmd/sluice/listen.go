package main

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/spf13/pflag"

	"sluice/controlplane/spec"
)

// listenFlags say where the API answers, and who may use it.
type listenFlags struct {
	listen    string
	plain     bool
	tokenFile string
	cert      string
	key       string
	clientCA  string
	roles     []string
	auditLog  string
}

func (l *listenFlags) register(flags *pflag.FlagSet) {
	flags.StringVar(&l.listen, "listen", "127.0.0.1:7070", "address of the API; beyond loopback it needs TLS, and --token-file or --tls-client-ca")
	flags.StringVar(&l.tokenFile, "token-file", "", "file with the token of an admin, with which the others are made")
	flags.StringVar(&l.cert, "tls-cert", "", "PEM file of the API's certificate chain; read again when it changes")
	flags.StringVar(&l.key, "tls-key", "", "PEM file of its key")
	flags.StringVar(&l.clientCA, "tls-client-ca", "", "PEM file of the certificate authority of clients, with --tls-role")
	flags.StringArrayVar(&l.roles, "tls-role", nil, "role of a client certificate, as NAME=operator: NAME is its common name, or its whole subject (may be repeated)")
	flags.BoolVar(&l.plain, "insecure-listen", false, "answer without TLS beyond loopback: something in front speaks TLS, or the network is trusted")
	flags.StringVar(&l.auditLog, "audit-log", "", `file of the audit log, JSON lines; "-" is standard error (default: none)`)
}

// local says whether the API answers this machine alone.
func (l *listenFlags) local() bool {
	host, _, _ := net.SplitHostPort(l.listen) // check has looked at it
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

// check refuses settings that would let in more than was meant.
func (l *listenFlags) check() error {
	if _, _, err := net.SplitHostPort(l.listen); err != nil {
		return fmt.Errorf("--listen %q: write it as 127.0.0.1:7070: %w", l.listen, err)
	}
	switch {
	case (l.cert == "") != (l.key == ""):
		return errors.New("--tls-cert and --tls-key belong together: give both, or none")
	case l.clientCA != "" && l.cert == "":
		return errors.New("--tls-client-ca needs TLS: give --tls-cert and --tls-key")
	case (l.clientCA == "") != (len(l.roles) == 0):
		return errors.New("--tls-client-ca and --tls-role belong together: the one says whose certificates are taken, the other what they are good for")
	case !l.local() && l.tokenFile == "" && l.clientCA == "":
		return fmt.Errorf("--listen %s: beyond loopback the API needs a token or client certificates: name --token-file or --tls-client-ca", l.listen)
	case !l.local() && l.cert == "" && !l.plain:
		return fmt.Errorf("--listen %s: beyond loopback tokens must not travel in the clear: give --tls-cert and --tls-key, "+
			"or say --insecure-listen when something in front of it speaks TLS", l.listen)
	}
	return nil
}

// minToken is how long the admin's token is at least, where others can try to guess it.
const minToken = 16

// token returns the admin's token, or "".
func (l *listenFlags) token() (string, error) {
	if l.tokenFile == "" {
		return "", nil
	}
	token, err := readSecret(l.tokenFile)
	if err == nil && token == "" {
		err = errors.New("the file is empty")
	}
	if err == nil && !l.local() && len(token) < minToken {
		err = fmt.Errorf("%d characters can be guessed: make another one with `openssl rand -hex 32`", len(token))
	}
	if err != nil {
		return "", fmt.Errorf("read --token-file: %w", err)
	}
	return token, nil
}

// subjects returns the roles of client certificates.
func (l *listenFlags) subjects() (map[string]spec.Role, error) {
	roles := map[string]spec.Role{}
	for _, text := range l.roles {
		i := strings.LastIndexByte(text, '=')
		if i < 1 || !slices.Contains(spec.Roles(), spec.Role(text[i+1:])) || spec.Role(text[i+1:]) == spec.Registrar {
			return nil, fmt.Errorf("--tls-role %q: write it as NAME=viewer, NAME=operator or NAME=admin; a registrar has limits, which only a token has", text)
		}
		roles[text[:i]] = spec.Role(text[i+1:])
	}
	return roles, nil
}

// open listens.
func (l *listenFlags) open(log *slog.Logger) (net.Listener, error) {
	var config *tls.Config
	if l.cert != "" {
		certificate := &certificateFile{cert: l.cert, key: l.key, log: log}
		if err := certificate.load(); err != nil {
			return nil, err
		}
		config = &tls.Config{MinVersion: tls.VersionTLS12, GetCertificate: certificate.get, NextProtos: []string{"h2", "http/1.1"}}
	}
	if l.clientCA != "" {
		pem, err := os.ReadFile(l.clientCA)
		if err != nil {
			return nil, fmt.Errorf("read --tls-client-ca: %w", err)
		}
		config.ClientCAs, config.ClientAuth = x509.NewCertPool(), tls.VerifyClientCertIfGiven
		if !config.ClientCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("--tls-client-ca %s: there is no certificate in it", l.clientCA)
		}
	}
	listener, err := net.Listen("tcp", l.listen)
	if err != nil {
		return nil, fmt.Errorf("listen for the API: %w", err)
	}
	if config != nil {
		listener = tls.NewListener(listener, config)
	}
	return listener, nil
}

func (l *listenFlags) scheme() string {
	if l.cert != "" {
		return "https"
	}
	return "http"
}

// certificateFile is a certificate that is read again when its files change.
type certificateFile struct {
	cert, key string
	log       *slog.Logger

	mu     sync.Mutex
	loaded *tls.Certificate
	print  string
	looked time.Time
}

// certificateAge is how long the files are not looked at again.
const certificateAge = time.Second

func (c *certificateFile) load() error {
	c.print, c.looked = c.fingerprint(), time.Now() // before the files are read: what comes in between is seen next time
	pair, err := tls.LoadX509KeyPair(c.cert, c.key)
	if err != nil {
		return fmt.Errorf("read --tls-cert and --tls-key: %w", err)
	}
	c.loaded = &pair
	return nil
}

func (c *certificateFile) fingerprint() string {
	var b strings.Builder
	for _, path := range []string{c.cert, c.key} {
		if info, err := os.Stat(path); err == nil {
			fmt.Fprintln(&b, info.Size(), info.ModTime().UnixNano())
		}
	}
	return b.String()
}

// get implements tls.Config.GetCertificate. Files that are of no use leave the last good pair as it is.
func (c *certificateFile) get(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if now := time.Now(); now.Sub(c.looked) > certificateAge {
		c.looked = now
		if c.fingerprint() != c.print {
			if err := c.load(); err != nil {
				c.log.Error("the API's certificate was not renewed; the last one is shown", "error", err)
			}
		}
	}
	return c.loaded, nil
}
