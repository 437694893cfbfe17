package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"sluice/api"
	"sluice/controlplane/spec"
)

// nodeFlags are the settings of drain, undrain and weight.
type nodeFlags struct {
	client clientFlags
	note   string
	reason string
	any    bool
	dryRun bool
}

func newDrainCommand() *cobra.Command {
	var f nodeFlags
	cmd := f.command("drain SERVICE/ID", "Give a node no new sessions; those that it has stay",
		`Give a node no new sessions; those that it has stay. It is an override, which outlives the node's registration: undrain ends it.`,
		`  sluice drain io/n3 --note "new kernel"`, cobra.ExactArgs(1),
		func(o *spec.Override, _ []string) error {
			o.State = spec.Draining
			return nil
		})
	cmd.Flags().StringVar(&f.note, "note", "", "why, shown with the override")
	return cmd
}

func newUndrainCommand() *cobra.Command {
	var f nodeFlags
	return f.command("undrain SERVICE/ID", "Let a node take sessions again",
		`Let a node take sessions again that was drained or disabled. A weight that ops gave it stays.`,
		`  sluice undrain io/n3`, cobra.ExactArgs(1),
		func(o *spec.Override, _ []string) error {
			o.State, o.Note = "", ""
			return nil
		})
}

func newWeightCommand() *cobra.Command {
	var f nodeFlags
	return f.command("weight SERVICE/ID WEIGHT", "Give a node another share of new sessions",
		`Give a node another share of new sessions, instead of the weight that it registered with: 1 to 1000, or "none" for its own.`,
		`  sluice weight io/n3 5
  sluice weight io/n3 none`, cobra.ExactArgs(2),
		func(o *spec.Override, args []string) error {
			if args[1] == "none" {
				o.Weight = nil
				return nil
			}
			weight, err := strconv.Atoi(args[1])
			if err != nil {
				return usageError(fmt.Errorf("%q is no weight: give 1 to 1000, or none", args[1]))
			}
			o.Weight = &weight
			return nil
		})
}

func (f *nodeFlags) command(use, short, long, example string, args cobra.PositionalArgs, change func(*spec.Override, []string) error) *cobra.Command {
	cmd := &cobra.Command{
		Use: use, Short: short, Long: long, Example: example, Args: args,
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := fillFlags(cmd.Flags(), ""); err != nil {
				return usageError(err)
			}
			client, err := f.client.client()
			if err != nil {
				return err
			}
			return f.run(cmd.Context(), cmd.OutOrStdout(), cmd.ErrOrStderr(), client, strings.TrimPrefix(args[0], "node/"), func(o *spec.Override) error { return change(o, args) })
		},
	}
	f.client.register(cmd.Flags())
	cmd.Flags().StringVar(&f.reason, "reason", "", "why, for the history")
	cmd.Flags().BoolVar(&f.any, "absent", false, "also when the node is not registered now")
	cmd.Flags().BoolVar(&f.dryRun, "dry-run", false, "check everything and print what would change, but change nothing")
	return cmd
}

// overrideTries is how often an override is read anew when somebody else changes it at the same time.
const overrideTries = 10

// run changes a node's override, and loses nothing that somebody else changes in it meanwhile.
func (f *nodeFlags) run(ctx context.Context, stdout, stderr io.Writer, client apiClient, name string, change func(*spec.Override) error) error {
	service, id, err := splitNode(name)
	if err != nil {
		return err
	}
	if !f.any {
		if _, err := findNode(ctx, client, service, id); err != nil {
			return fmt.Errorf("%w; --absent sets it all the same", err)
		}
	}
	for range overrideTries {
		before, etag, err := overrideOf(ctx, client, service, id)
		if err != nil {
			return fmt.Errorf("get the override of %s: %w", name, err)
		}
		after := before
		if err := change(&after); err != nil {
			return err
		}
		if f.note != "" {
			after.Note = f.note
		}
		if after == (spec.Override{}) {
			if etag == "" {
				fmt.Fprintf(stdout, "unchanged override/%s\n", plain(name))
				return nil
			}
			resp, err := client.DeleteOverrideWithResponse(ctx, service, id, &api.DeleteOverrideParams{IfMatch: etag, XChangeReason: f.reason, DryRun: f.dryRun})
			err = api.Check(resp, err)
			if again(err) {
				continue
			}
			if err != nil {
				return err
			}
			return written(stdout, stderr, resp.JSON200, f.dryRun, 0)
		}
		params := &api.PutOverrideParams{IfMatch: etag, XChangeReason: f.reason, DryRun: f.dryRun}
		if etag == "" {
			params.IfNoneMatch = "*"
		}
		resp, err := client.PutOverrideWithResponse(ctx, service, id, params, after)
		err = api.Check(resp, err)
		if again(err) {
			continue
		}
		if err != nil {
			return fmt.Errorf("set the override of %s: %w", name, err)
		}
		if err := written(stdout, stderr, cmp.Or(resp.JSON200, resp.JSON201), f.dryRun, 0); err != nil {
			return err
		}
		if after.State == spec.Draining && !f.dryRun {
			tellSockets(ctx, stderr, client, name)
		}
		return nil
	}
	return &exitError{exitConflict, fmt.Errorf("others kept changing the override of %s: try again", name)}
}

// tellSockets tells how many sockets a node that is drained still has.
func tellSockets(ctx context.Context, stderr io.Writer, client apiClient, name string) {
	gateways, err := gatewaysOfAPI(client, api.ListGatewaysParams{})(ctx)
	if err != nil {
		fmt.Fprintf(stderr, "the gateways cannot be asked for its open sockets: %v\n", err)
		return
	}
	if n := socketsOf(gateways, name); n != "-" {
		fmt.Fprintf(stderr, "open sockets that it keeps: %s; sluice get node/%s tells how many are left\n", n, plain(name))
	}
}

// again reports whether somebody else changed the object in between.
func again(err error) bool {
	p, ok := errors.AsType[*api.Problem](err)
	return ok && p.Status == http.StatusPreconditionFailed
}
