package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"sluice/api"
	"sluice/controlplane/spec"
)

// applyFlags are the settings of sluice apply.
type applyFlags struct {
	client clientFlags
	files  []string
	owner  string
	prune  bool
	dryRun bool
	wait   time.Duration
	reason string
}

func newApplyCommand() *cobra.Command {
	var f applyFlags
	cmd := &cobra.Command{
		Use:   "apply -f FILE",
		Short: "Create or replace upstreams, sites, certificates and overrides",
		Long: `Create or replace upstreams, sites, certificates and overrides, all of them or none.

One line is printed for each object: created, updated, deleted or unchanged. What the files do not name stays as it is,
unless --prune deletes what is of the same --owner: so a repository can hold all that there is. With --wait, apply
returns when all gateways have proven it live; else it exits with code 3 and says what nginx said.`,
		Example: `  sluice apply -f chat.yaml --wait 30s
  sluice apply -f upstreams.yaml -f sites.yaml --reason "ticket 4711"
  sluice apply -f chat.yaml --owner team-chat --prune
  generate | sluice apply -f - --dry-run`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := fillFlags(cmd.Flags(), ""); err != nil {
				return usageError(err)
			}
			return f.run(cmd.Context(), cmd.OutOrStdout(), cmd.ErrOrStderr())
		},
	}
	f.register(cmd.Flags())
	cmd.Flags().BoolVar(&f.dryRun, "dry-run", false, "check everything and print what would change, but change nothing")
	cmd.Flags().DurationVar(&f.wait, "wait", 0, "wait this long for it to be live, as 30s")
	cmd.Flags().StringVar(&f.reason, "reason", "", "why, for the history")
	return cmd
}

// register adds the flags that say what is applied.
func (f *applyFlags) register(flags *pflag.FlagSet) {
	flags.StringArrayVarP(&f.files, "file", "f", nil, "document in YAML or JSON, - is standard input; may be given several times")
	flags.StringVar(&f.owner, "owner", "", "whose the objects are, as the name of a repository: they are marked with it")
	flags.BoolVar(&f.prune, "prune", false, "delete the objects of the owner that the files lack")
	f.client.register(flags)
}

func (f *applyFlags) run(ctx context.Context, stdout, stderr io.Writer) error {
	result, err := f.send(ctx)
	if err != nil {
		return err
	}
	return written(stdout, stderr, result, f.dryRun, f.wait)
}

// send sends the documents, and returns what they changed.
func (f *applyFlags) send(ctx context.Context) (*api.ChangeResult, error) {
	if len(f.files) == 0 {
		return nil, usageError(errors.New("name the document with -f FILE; -f - is standard input"))
	}
	doc, err := readDocuments(f.files)
	if err != nil {
		return nil, err
	}
	client, err := f.client.client()
	if err != nil {
		return nil, err
	}
	params := api.ApplyParams{Owner: f.owner, Prune: f.prune, DryRun: f.dryRun, XChangeReason: f.reason}
	if f.wait > 0 {
		params.Wait = f.wait.String()
	}
	resp, err := client.ApplyWithResponse(ctx, &params, doc)
	if err := api.Check(resp, err); err != nil {
		return nil, fmt.Errorf("apply: %w", err)
	}
	return cmp.Or(resp.JSON200, resp.JSON202), nil
}

// waited tells what became of a change on the gateways. It is an error of its own when it is not live on all of them.
func waited(stderr io.Writer, result *api.ChangeResult, limit time.Duration) error {
	var not []string
	for _, g := range result.Gateways {
		if g.Live {
			fmt.Fprintf(stderr, "seq %d is live on gateway %s\n", result.Seq, plain(g.Gateway))
		} else {
			not = append(not, fmt.Sprintf("gateway %s: %s", g.Gateway, g.Why))
		}
	}
	if len(not) == 0 {
		return nil
	}
	return &exitError{exitNotLive, fmt.Errorf("seq %d is committed, but not live everywhere within %s:\n  %s", result.Seq, limit, strings.Join(not, "\n  "))}
}

// readDocuments reads documents and makes one of them. An object may be in one of them only.
func readDocuments(files []string) (spec.Document, error) {
	all := spec.Document{
		Upstreams: map[string]spec.Upstream{}, Sites: map[string]spec.Site{},
		Certificates: map[string]spec.Certificate{}, Overrides: map[string]spec.Override{},
	}
	for _, file := range files {
		data, err := readInput(file)
		if err != nil {
			return all, err
		}
		doc, err := spec.ParseDocument(data)
		if err == nil {
			err = errors.Join(
				merge(all.Upstreams, doc.Upstreams, "upstream"), merge(all.Sites, doc.Sites, "site"),
				merge(all.Certificates, doc.Certificates, "certificate"), merge(all.Overrides, doc.Overrides, "override"))
		}
		if err != nil {
			return all, fmt.Errorf("%s: %w", inputName(file), err)
		}
	}
	return all, nil
}

func readInput(file string) ([]byte, error) {
	if file == "-" {
		data, err := io.ReadAll(os.Stdin)
		if err != nil {
			return nil, fmt.Errorf("read standard input: %w", err)
		}
		return data, nil
	}
	return os.ReadFile(filepath.Clean(file))
}

func inputName(file string) string {
	if file == "-" {
		return "standard input"
	}
	return file
}

func merge[T any](all, more map[string]T, kind string) error {
	var errs []error
	for name, object := range more {
		if _, ok := all[name]; ok {
			errs = append(errs, fmt.Errorf("%s %q is in a file before, too: leave one out", kind, name))
		}
		all[name] = object
	}
	return errors.Join(errs...)
}
