package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/pflag"

	"sluice/registry"
	"sluice/registry/consul"
	"sluice/registry/etcd"
	"sluice/registry/keyspace"
)

// embeddedRegistry is the value of --registry that starts etcd inside sluice.
const embeddedRegistry = "embedded"

// registryFlags say where the registry is, and who we are there.
type registryFlags struct {
	fleet        string
	caFile       string
	certFile     string
	keyFile      string
	serverName   string
	user         string
	passwordFile string
	secretsKey   string

	consulCA         string
	consulCert       string
	consulKey        string
	consulServerName string
	consulTokenFile  string
	consulDatacenter string
	consulNamespace  string
}

func (r *registryFlags) register(flags *pflag.FlagSet) {
	flags.StringVar(&r.fleet, "fleet", keyspace.DefaultFleet, "name of the fleet: the instances that share the desired state and the nodes")
	flags.StringVar(&r.caFile, "etcd-ca", "", "PEM file of the certificate authority that etcd's certificate must be from (default: the system's)")
	flags.StringVar(&r.certFile, "etcd-cert", "", "PEM file of our client certificate for etcd")
	flags.StringVar(&r.keyFile, "etcd-key", "", "PEM file of its key")
	flags.StringVar(&r.serverName, "etcd-server-name", "", "name to expect in etcd's certificate (default: the host of the endpoint)")
	flags.StringVar(&r.user, "etcd-user", "", "etcd user, with --etcd-password-file")
	flags.StringVar(&r.passwordFile, "etcd-password-file", "", "file with the etcd user's password")
	flags.StringVar(&r.consulCA, "consul-ca", "", "PEM file of the certificate authority that the Consul agent's certificate must be from (default: the system's)")
	flags.StringVar(&r.consulCert, "consul-cert", "", "PEM file of our client certificate for Consul")
	flags.StringVar(&r.consulKey, "consul-key", "", "PEM file of its key")
	flags.StringVar(&r.consulServerName, "consul-server-name", "", "name to expect in the agent's certificate (default: the host of the address)")
	flags.StringVar(&r.consulTokenFile, "consul-token-file", "", "file with the ACL token for Consul")
	flags.StringVar(&r.consulDatacenter, "consul-datacenter", "", "Consul datacenter (default: the agent's)")
	flags.StringVar(&r.consulNamespace, "consul-namespace", "", "namespace in Consul Enterprise")
	flags.StringVar(&r.secretsKey, "secrets-key-file", "", "file with a key of 32 bytes, as hex or base64, that encrypts private keys in the registry")
}

// openRegistry is a registry that can be closed.
type openRegistry interface {
	registry.Registry
	Close() error
}

// open returns the registry that url names, and the function that closes it. server is the embedded one, if it is that.
func (r *registryFlags) open(ctx context.Context, url string, server *etcd.Embedded, log *slog.Logger) (registry.Registry, func() error, error) {
	dial := r.openEtcd
	if strings.HasPrefix(url, "consul") {
		dial = r.openConsul
	}
	opened, err := dial(ctx, url, server, log)
	if err != nil {
		return nil, nil, fmt.Errorf("open registry %s: %w", url, err)
	}
	if r.secretsKey == "" {
		return opened, opened.Close, nil
	}
	key, err := readKey(r.secretsKey)
	if err != nil {
		return nil, nil, errors.Join(fmt.Errorf("read --secrets-key-file: %w", err), opened.Close())
	}
	sealed, err := registry.Seal(opened, key)
	if err != nil {
		return nil, nil, errors.Join(err, opened.Close())
	}
	return sealed, opened.Close, nil
}

func (r *registryFlags) openEtcd(ctx context.Context, url string, server *etcd.Embedded, log *slog.Logger) (openRegistry, error) {
	cfg := etcd.Config{
		Server: server, Fleet: r.fleet, Logger: log,
		CAFile: r.caFile, CertFile: r.certFile, KeyFile: r.keyFile, ServerName: r.serverName, Username: r.user,
	}
	if server == nil {
		endpoints, err := endpoints(url)
		if err != nil {
			return nil, err
		}
		cfg.Endpoints = endpoints
	}
	if r.passwordFile != "" {
		password, err := readSecret(r.passwordFile)
		if err != nil {
			return nil, fmt.Errorf("read --etcd-password-file: %w", err)
		}
		cfg.Password = password
	}
	return etcd.New(ctx, cfg)
}

func (r *registryFlags) openConsul(ctx context.Context, url string, _ *etcd.Embedded, log *slog.Logger) (openRegistry, error) {
	addresses, err := endpoints(url)
	if err != nil {
		return nil, err
	}
	cfg := consul.Config{
		Addresses: addresses, Fleet: r.fleet, Logger: log, Datacenter: r.consulDatacenter, Namespace: r.consulNamespace,
		CAFile: r.consulCA, CertFile: r.consulCert, KeyFile: r.consulKey, ServerName: r.consulServerName,
	}
	if r.consulTokenFile != "" {
		if cfg.Token, err = readSecret(r.consulTokenFile); err != nil {
			return nil, fmt.Errorf("read --consul-token-file: %w", err)
		}
	}
	return consul.New(ctx, cfg)
}

// endpoints turns etcd://a:2379,b:2379 and consul://a:8500,b:8500 into the URLs that the clients take; etcds:// and
// consuls:// mean TLS, and etcd:///path a unix socket.
func endpoints(url string) ([]string, error) {
	scheme, hosts, ok := strings.Cut(url, "://")
	var prefix string
	switch scheme {
	case "etcd", "consul":
		prefix = "http://"
	case "etcds", "consuls":
		prefix = "https://"
	default:
		ok = false
	}
	if !ok || hosts == "" {
		return nil, fmt.Errorf("registry %q: write %q, etcd://host:2379,host:2379, etcds://host:2379 (TLS), etcd:///path/of.sock, "+
			"consul://host:8500 or consuls://host:8501 (TLS)", url, embeddedRegistry)
	}
	var list []string
	for host := range strings.SplitSeq(hosts, ",") {
		if strings.HasPrefix(host, "/") {
			list = append(list, "unix://"+host)
		} else {
			list = append(list, prefix+host)
		}
	}
	return list, nil
}

func readSecret(path string) (string, error) {
	data, err := os.ReadFile(filepath.Clean(path))
	if err != nil {
		return "", err
	}
	return strings.TrimSpace(string(data)), nil
}
