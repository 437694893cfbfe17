package main

import (
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"sluice/api"
	"sluice/controlplane/spec"
)

func newApproveCommand() *cobra.Command {
	var client clientFlags
	var note, reason string
	var lasting time.Duration
	cmd := &cobra.Command{
		Use:   "approve UPSTREAM",
		Short: "Let go of the nodes that the guard holds",
		Long: `Let go of the nodes that the guard holds: they were really lost, and this is known. It counts for what is held now; with
--for also for what is lost in that time. "registry" instead of an upstream lets go of objects that the registry lost.
docs/guard.md says what the guard does, and when.`,
		Example: `  sluice approve io --note "rack 4 is gone"
  sluice approve io --for 30m --note "the fleet moves"`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := fillFlags(cmd.Flags(), ""); err != nil {
				return usageError(err)
			}
			c, err := client.client()
			if err != nil {
				return err
			}
			approval := spec.Approval{Note: note}
			if lasting > 0 {
				now := time.Now().UTC()
				approval.At, approval.Until = &now, new(now.Add(lasting))
			}
			resp, err := c.PutApprovalWithResponse(cmd.Context(), args[0], &api.PutApprovalParams{XChangeReason: reason}, approval)
			if err := api.Check(resp, err); err != nil {
				return fmt.Errorf("approve %s: %w", args[0], err)
			}
			fmt.Fprintf(cmd.OutOrStdout(), "approved  %s\n", plain(args[0]))
			return nil
		},
	}
	client.register(cmd.Flags())
	cmd.Flags().StringVar(&note, "note", "", "why, shown with the approval")
	cmd.Flags().StringVar(&reason, "reason", "", "why, for the history")
	cmd.Flags().DurationVar(&lasting, "for", 0, "hold nothing for this long, at most 24h")
	return cmd
}
