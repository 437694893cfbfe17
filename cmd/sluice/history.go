package main

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"sluice/api"
)

// historyFlags are the settings of sluice history and sluice revert.
type historyFlags struct {
	client clientFlags
	output outputFlag
	limit  int
	from   int64
	to     int64

	back   bool
	dryRun bool
	wait   time.Duration
	reason string
}

func newHistoryCommand() *cobra.Command {
	var f historyFlags
	cmd := &cobra.Command{
		Use:   "history [SEQ | KIND/NAME]",
		Short: "Show who changed what, when and why",
		Long: `Show who changed what, when and why: the newest changes, those of one object, or one change with all that differs and where
it is live. With --from it shows what differs between the states at two changes; 0 is the empty one.`,
		Example: `  sluice history
  sluice history site/chat
  sluice history 17
  sluice history --from 15 --to 17`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			client, err := f.prepare(cmd)
			if err != nil {
				return err
			}
			what := strings.Join(args, "")
			seq, notSeq := strconv.ParseInt(what, 10, 64)
			switch {
			case cmd.Flags().Changed("from"):
				if what != "" {
					return usageError(fmt.Errorf("--from compares two states: leave out %q", what))
				}
				return f.diff(cmd.Context(), cmd.OutOrStdout(), client)
			case notSeq == nil:
				return f.show(cmd.Context(), cmd.OutOrStdout(), client, seq)
			default:
				return f.list(cmd.Context(), cmd.OutOrStdout(), client, what)
			}
		},
	}
	f.client.register(cmd.Flags())
	f.output.register(cmd)
	cmd.Flags().IntVar(&f.limit, "limit", 20, "how many changes, at most 1000")
	cmd.Flags().Int64Var(&f.from, "from", 0, "compare the state at this seq")
	cmd.Flags().Int64Var(&f.to, "to", 0, "with the state at this one (default: the newest)")
	return cmd
}

func newRevertCommand() *cobra.Command {
	var f historyFlags
	cmd := &cobra.Command{
		Use:   "revert SEQ",
		Short: "Undo a change, or go back to one",
		Long: `Undo a change, as a change of its own; it is refused when one of its objects was changed since. With --back, all changes after
SEQ are undone: the state is as it was then.`,
		Example: `  sluice revert 17 --dry-run
  sluice revert 17 --wait 30s --reason "it broke the login"
  sluice revert 12 --back`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			f.output = "text"
			client, err := f.prepare(cmd)
			if err != nil {
				return err
			}
			seq, err := strconv.ParseInt(args[0], 10, 64)
			if err != nil {
				return usageError(fmt.Errorf("%q is no seq: sluice history lists them", args[0]))
			}
			params := api.RevertParams{Back: f.back, DryRun: f.dryRun, XChangeReason: f.reason}
			if f.wait > 0 {
				params.Wait = f.wait.String()
			}
			resp, err := client.RevertWithResponse(cmd.Context(), seq, &params)
			if err := api.Check(resp, err); err != nil {
				return fmt.Errorf("revert %d: %w", seq, err)
			}
			return written(cmd.OutOrStdout(), cmd.ErrOrStderr(), cmp.Or(resp.JSON200, resp.JSON202), f.dryRun, f.wait)
		},
	}
	f.client.register(cmd.Flags())
	cmd.Flags().BoolVar(&f.back, "back", false, "undo all changes after SEQ, and leave this one")
	cmd.Flags().BoolVar(&f.dryRun, "dry-run", false, "check everything and print what would change, but change nothing")
	cmd.Flags().DurationVar(&f.wait, "wait", 0, "wait this long for it to be live, as 30s")
	cmd.Flags().StringVar(&f.reason, "reason", "", "why, for the history")
	return cmd
}

func newDiffCommand() *cobra.Command {
	var f applyFlags
	var files bool
	cmd := &cobra.Command{
		Use:   "diff -f FILE",
		Short: "Show what apply would change",
		Long: `Show what apply would change, field by field, and with --files what nginx would read. Exits with code 1 when there is a
difference, as diff does, with 0 when there is none, and with 2 when that cannot be told.`,
		Example: `  sluice diff -f chat.yaml
  sluice diff -f chat.yaml --files
  sluice diff -f chat.yaml --owner team-chat --prune`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := fillFlags(cmd.Flags(), ""); err != nil {
				return usageError(err)
			}
			f.dryRun = true
			result, err := f.send(cmd.Context())
			if err != nil {
				// Code 1 says that there is a difference.
				return &exitError{exitUsage, err}
			}
			changed := false
			for _, c := range result.Changes {
				if c.Action != api.Unchanged {
					changed = true
					fmt.Fprint(cmd.OutOrStdout(), changeText(c))
				}
			}
			if p := result.Preview; p != nil && files {
				fmt.Fprintf(cmd.OutOrStdout(), "\non this gateway: %s\n", cmp.Or(hows[p.How], "it could not be tried"))
				for _, file := range p.Files {
					fmt.Fprint(cmd.OutOrStdout(), plain(file.Diff))
				}
			}
			if changed {
				return &exitError{code: exitFailed}
			}
			return nil
		},
	}
	f.register(cmd.Flags())
	cmd.Flags().BoolVar(&files, "files", false, "show also what would differ in the files that nginx reads")
	return cmd
}

func (f *historyFlags) prepare(cmd *cobra.Command) (apiClient, error) {
	if err := fillFlags(cmd.Flags(), ""); err != nil {
		return nil, usageError(err)
	}
	if err := f.output.check(); err != nil {
		return nil, err
	}
	return f.client.client()
}

func (f *historyFlags) list(ctx context.Context, stdout io.Writer, client apiClient, of string) error {
	params := api.ListHistoryParams{Limit: f.limit}
	if of != "" {
		t, err := parseTarget([]string{of})
		if err != nil {
			return err
		}
		params.Kind, params.Name = t.aliases[0], t.object
	}
	resp, err := client.ListHistoryWithResponse(ctx, &params)
	if err := api.Check(resp, err); err != nil {
		return fmt.Errorf("list the history: %w", err)
	}
	if !f.output.text() {
		return f.output.write(stdout, resp.JSON200.Items)
	}
	var rows []row
	for _, e := range resp.JSON200.Items {
		var objects []string
		for _, c := range e.Changes {
			objects = append(objects, string(c.Action)+" "+c.Kind+"/"+c.Name)
		}
		rows = append(rows, row{cells: []string{fmt.Sprint(e.Seq), ago(time.Now(), e.At) + " ago", e.Author, strings.Join(objects, ", "), orDash(e.Reason)}})
	}
	return writeTable(stdout, []string{"SEQ", "WHEN", "WHO", "WHAT", "WHY"}, rows)
}

func (f *historyFlags) show(ctx context.Context, stdout io.Writer, client apiClient, seq int64) error {
	resp, err := client.GetHistoryWithResponse(ctx, seq)
	if err := api.Check(resp, err); err != nil {
		return fmt.Errorf("get change %d: %w", seq, err)
	}
	e := resp.JSON200
	if !f.output.text() {
		return f.output.write(stdout, e)
	}
	fmt.Fprintf(stdout, "change %d by %s, %s: %s\n", e.Seq, plain(e.Author), e.At.UTC().Format(time.RFC3339), plain(orDash(e.Reason)))
	for _, c := range e.Changes {
		fmt.Fprint(stdout, changeText(c))
	}
	for _, g := range e.Gateways {
		state := "live"
		if !g.Live {
			state = g.Why
		}
		fmt.Fprintf(stdout, "gateway %s: %s\n", plain(g.Gateway), plain(state))
	}
	return nil
}

func (f *historyFlags) diff(ctx context.Context, stdout io.Writer, client apiClient) error {
	if f.to == 0 {
		resp, err := client.ListHistoryWithResponse(ctx, &api.ListHistoryParams{Limit: 1})
		if err := api.Check(resp, err); err != nil {
			return fmt.Errorf("list the history: %w", err)
		}
		f.to = int64(resp.JSON200.Seq)
	}
	resp, err := client.DiffHistoryWithResponse(ctx, &api.DiffHistoryParams{From: f.from, To: f.to})
	if err := api.Check(resp, err); err != nil {
		return fmt.Errorf("compare %d and %d: %w", f.from, f.to, err)
	}
	if !f.output.text() {
		return f.output.write(stdout, resp.JSON200)
	}
	for _, c := range resp.JSON200.Changes {
		fmt.Fprint(stdout, changeText(c))
	}
	return nil
}

// written prints what a write changed, or would change, and what became of it on the gateways.
func written(stdout, stderr io.Writer, result *api.ChangeResult, dryRun bool, wait time.Duration) error {
	for _, c := range result.Changes {
		if _, err := fmt.Fprintf(stdout, "%-9s %s/%s\n", c.Action, c.Kind, plain(c.Name)); err != nil {
			return err
		}
	}
	if dryRun {
		if result.Preview != nil {
			if err := writePreview(stderr, *result.Preview); err != nil {
				return err
			}
		}
		fmt.Fprintln(stderr, "dry run: nothing was changed")
		return nil
	}
	return waited(stderr, result, wait)
}

// changeText shows an object's change field by field.
func changeText(c api.Change) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s/%s\n", c.Action, plain(c.Kind), plain(c.Name))
	for _, d := range c.Differences {
		path := cmp.Or(d.Path, "/")
		for _, side := range []struct {
			sign string
			json json.RawMessage
		}{{"-", d.Before}, {"+", d.After}} {
			if side.json != nil {
				fmt.Fprintf(&b, "  %s %s: %s\n", side.sign, plain(path), plain(string(side.json)))
			}
		}
	}
	return b.String()
}
