package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"sluice/api"
	"sluice/controlplane"
	"sluice/controlplane/spec"
	"sluice/registry"
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
unless --prune deletes what is of the same --owner: so a repository can hold all that there is. With --wait, apply returns when the gateway of the instance that was asked has made it live; else it exits with code 3 and says
what nginx said.`,
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
	flags := cmd.Flags()
	flags.StringArrayVarP(&f.files, "file", "f", nil, "document in YAML or JSON, - is standard input; may be given several times")
	flags.StringVar(&f.owner, "owner", "", "whose the objects are, as the name of a repository: they are marked with it")
	flags.BoolVar(&f.prune, "prune", false, "delete the objects of the owner that the files lack")
	flags.BoolVar(&f.dryRun, "dry-run", false, "check everything and print what would change, but change nothing")
	flags.DurationVar(&f.wait, "wait", 0, "wait this long for it to be live, as 30s")
	flags.StringVar(&f.reason, "reason", "", "why, for the history")
	f.client.register(flags)
	return cmd
}

func (f *applyFlags) run(ctx context.Context, stdout, stderr io.Writer) error {
	if len(f.files) == 0 {
		return usageError(errors.New("name the document with -f FILE; -f - is standard input"))
	}
	doc, err := readDocuments(f.files)
	if err != nil {
		return err
	}
	client, err := f.client.client()
	if err != nil {
		return err
	}
	w := waiter{client: client, stderr: stderr}
	if f.wait > 0 {
		if err := w.begin(ctx); err != nil {
			return err
		}
	}
	resp, err := client.ApplyWithResponse(ctx, &api.ApplyParams{Owner: f.owner, Prune: f.prune, DryRun: f.dryRun, XChangeReason: f.reason}, doc)
	if err := api.Check(resp, err); err != nil {
		return fmt.Errorf("apply: %w", err)
	}
	for _, c := range resp.JSON200.Changes {
		if _, err := fmt.Fprintf(stdout, "%-9s %s/%s\n", c.Action, c.Kind, plain(c.Name)); err != nil {
			return err
		}
	}
	if f.dryRun {
		fmt.Fprintln(stderr, "dry run: nothing was changed")
		return nil
	}
	if f.wait > 0 {
		return w.wait(ctx, f.wait, resp.JSON200)
	}
	return nil
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

// pollEvery is how often a waiter looks.
const pollEvery = 200 * time.Millisecond

// waiter waits until what was committed is live on the gateway of the instance that is asked.
type waiter struct {
	client  api.ClientWithResponsesInterface
	stderr  io.Writer
	failure time.Time // of the newest failure before the commit
}

func (w *waiter) begin(ctx context.Context) error {
	status, err := w.status(ctx)
	if err == nil && status.Failure != nil {
		w.failure = status.Failure.At
	}
	return err
}

func (w *waiter) status(ctx context.Context) (controlplane.Status, error) {
	resp, err := w.client.GetSelfWithResponse(ctx)
	if err := api.Check(resp, err); err != nil {
		return controlplane.Status{}, fmt.Errorf("ask for the status: %w", err)
	}
	return *resp.JSON200, nil
}

// wait returns when the change is live, when nginx has refused it, or when limit has passed.
func (w *waiter) wait(ctx context.Context, limit time.Duration, done *api.ChangeResult) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	last := "it has not answered"
	for {
		status, err := w.status(ctx)
		switch {
		case ctx.Err() != nil:
			return &exitError{exitNotLive, fmt.Errorf("seq %d is committed, but not live after %s: %s", done.Seq, limit, last)}
		case err != nil:
			last = err.Error()
		case status.SeqLive >= done.Seq:
			return w.problems(status, done)
		case w.refused(status, done.Seq):
			return &exitError{exitNotLive, fmt.Errorf("seq %d is committed, but %s serves the last good configuration: %s", done.Seq, status.Gateway, status.Failure.Message)}
		default:
			last = waitsFor(status)
		}
		select {
		case <-ctx.Done():
		case <-tick.C:
		}
	}
}

// refused reports whether nginx refused what holds seq, as opposed to something before it.
func (w *waiter) refused(s controlplane.Status, seq registry.Seq) bool {
	return s.Failure != nil && s.SeqWanted >= seq && s.Failure.At.After(w.failure)
}

func waitsFor(s controlplane.Status) string {
	switch {
	case s.Failure != nil:
		return fmt.Sprintf("gateway %s serves the last good configuration: %s", s.Gateway, s.Failure.Message)
	case s.Wait != nil:
		return fmt.Sprintf("gateway %s waits: %s; %s", s.Gateway, s.Wait.What, s.Wait.Why)
	case !s.Registry.Connected:
		return fmt.Sprintf("gateway %s has no registry: %s", s.Gateway, s.Registry.Error)
	default:
		return fmt.Sprintf("gateway %s is at seq %d, %s", s.Gateway, s.SeqLive, s.Phase)
	}
}

// problems tells whether the gateway left an object out, or kept it as it was before.
func (w *waiter) problems(s controlplane.Status, done *api.ChangeResult) error {
	var found []string
	for _, c := range done.Changes {
		for _, p := range s.Problems {
			if p.Object == c.Kind+"/"+c.Name {
				found = append(found, p.String())
			}
		}
	}
	if len(found) > 0 {
		return &exitError{exitNotLive, fmt.Errorf("seq %d is live on gateway %s, but not all of it:\n  %s", done.Seq, s.Gateway, strings.Join(found, "\n  "))}
	}
	fmt.Fprintf(w.stderr, "seq %d is live on gateway %s\n", done.Seq, s.Gateway)
	return nil
}
