package main

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"unicode"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"sigs.k8s.io/yaml"

	"sluice/api"
)

// defaultAPI is where an instance on this machine answers.
const defaultAPI = "http://127.0.0.1:7070"

// clientFlags say which instances are asked.
type clientFlags struct {
	api       string
	tokenFile string
	ca        string
	cert      string
	key       string
}

func (c *clientFlags) register(flags *pflag.FlagSet) {
	flags.StringVar(&c.api, "api", defaultAPI, "addresses of instances, with commas between them: when one fails, the next is asked")
	flags.StringVar(&c.tokenFile, "token-file", "", "file with the token that the instances ask for")
	flags.StringVar(&c.ca, "api-ca", "", "PEM file of the certificate authority that the instances' certificates must be from (default: the system's)")
	flags.StringVar(&c.cert, "api-cert", "", "PEM file of our client certificate, instead of a token")
	flags.StringVar(&c.key, "api-key", "", "PEM file of its key")
}

func (c *clientFlags) client() (*api.ClientWithResponses, error) {
	options, err := c.options()
	if err != nil {
		return nil, err
	}
	client, err := api.NewFailoverClient(options)
	if err != nil {
		return nil, fmt.Errorf("--api: %w", err)
	}
	return client, nil
}

// options say whom a client asks, and how.
func (c *clientFlags) options() (api.ClientOptions, error) {
	options := api.ClientOptions{}
	for address := range strings.SplitSeq(c.api, ",") {
		if address = strings.TrimSpace(address); address != "" {
			options.Addresses = append(options.Addresses, address)
		}
	}
	if c.tokenFile != "" {
		token, err := readSecret(c.tokenFile)
		if err != nil {
			return options, fmt.Errorf("read --token-file: %w", err)
		}
		options.Token = token
	}
	if len(options.Addresses) == 0 {
		return options, errors.New("--api: no address of an instance was given")
	}
	var err error
	options.TLS, err = c.tls()
	return options, err
}

// tls returns how instances are spoken to over https; nil is the ordinary way.
func (c *clientFlags) tls() (*tls.Config, error) {
	if c.ca == "" && c.cert == "" && c.key == "" {
		return nil, nil
	}
	config := &tls.Config{MinVersion: tls.VersionTLS12}
	if c.ca != "" {
		pem, err := os.ReadFile(c.ca)
		if err != nil {
			return nil, fmt.Errorf("read --api-ca: %w", err)
		}
		config.RootCAs = x509.NewCertPool()
		if !config.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("--api-ca %s: there is no certificate in it", c.ca)
		}
	}
	if c.cert != "" || c.key != "" {
		pair, err := tls.LoadX509KeyPair(c.cert, c.key)
		if err != nil {
			return nil, fmt.Errorf("read --api-cert and --api-key: %w", err)
		}
		config.Certificates = []tls.Certificate{pair}
	}
	return config, nil
}

// outputFlag is how an answer is printed.
type outputFlag string

func (o *outputFlag) register(cmd *cobra.Command) {
	formats := []string{"text", "json", "yaml"}
	cmd.Flags().StringVarP((*string)(o), "output", "o", "text", "text, json or yaml")
	if err := cmd.RegisterFlagCompletionFunc("output", cobra.FixedCompletions(formats, cobra.ShellCompDirectiveNoFileComp)); err != nil {
		panic(err) // the flag is defined above
	}
}

func (o outputFlag) check() error {
	if o != "text" && o != "json" && o != "yaml" {
		return usageError(fmt.Errorf("--output %q: choose text, json or yaml", o))
	}
	return nil
}

func (o outputFlag) text() bool { return o == "text" }

// write writes v for scripts.
func (o outputFlag) write(w io.Writer, v any) error {
	if o == "yaml" {
		text, err := yaml.Marshal(v)
		if err != nil {
			return err
		}
		_, err = w.Write(text)
		return err
	}
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	return e.Encode(v)
}

// writeLine writes v as one line of JSON.
func writeLine(w io.Writer, v any) error { return json.NewEncoder(w).Encode(v) }

// plain takes control characters out of what goes to a terminal: texts come from nodes and from nginx.
func plain(s string) string {
	return strings.Map(func(r rune) rune {
		if r != '\n' && unicode.IsControl(r) {
			return '\uFFFD'
		}
		return r
	}, s)
}

func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}
