package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"sluice/api"
	"sluice/controlplane"
)

func newEventsCommand() *cobra.Command {
	var client clientFlags
	var output outputFlag
	var watch bool
	var types, after string
	cmd := &cobra.Command{
		Use:   "events",
		Short: "Show what happens: changes, nodes, reloads, alarms",
		Long: `Show what the gateway of the instance that is asked sees happen: changes of the desired state, nodes that come and go,
what became of configurations, alarms, and the registry. Without --watch it shows what it remembers and ends.`,
		Example: `  sluice events -w
  sluice events -w --type alarm,apply -o json`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := fillFlags(cmd.Flags(), ""); err != nil {
				return usageError(err)
			}
			if err := output.check(); err != nil {
				return err
			}
			options, err := client.options()
			if err != nil {
				return err
			}
			show := func(e controlplane.Event) error {
				if !output.text() {
					return writeLine(cmd.OutOrStdout(), e)
				}
				_, err := fmt.Fprintln(cmd.OutOrStdout(), eventText(e))
				return err
			}
			q := api.EventQuery{After: after, Types: types, Follow: watch}
			if err := api.FollowEvents(cmd.Context(), options, q, show); err != nil && !errors.Is(err, context.Canceled) {
				return fmt.Errorf("follow the events: %w", err)
			}
			return nil
		},
	}
	client.register(cmd.Flags())
	output.register(cmd)
	cmd.Flags().BoolVarP(&watch, "watch", "w", false, "go on with what comes, until Ctrl-C")
	cmd.Flags().StringVar(&types, "type", "", "only these types, with commas between them: change, node, apply, alarm, registry")
	cmd.Flags().StringVar(&after, "after", "0-0", "begin after the event with this id")
	return cmd
}

func eventText(e controlplane.Event) string {
	parts := []string{e.At.Local().Format(time.TimeOnly), string(e.Type)}
	add := func(format string, args ...any) { parts = append(parts, fmt.Sprintf(format, args...)) }
	if e.What != "" {
		add("%s", e.What)
	}
	if len(e.Objects) > 0 {
		add("%s", strings.Join(e.Objects, " "))
	}
	if e.Seq > 0 {
		add("seq %d", e.Seq)
	}
	if e.How != "" {
		add("by %s", e.How)
	}
	text := strings.Join(parts, "  ")
	if e.Message != "" {
		text += ": " + e.Message
	}
	return strings.ReplaceAll(plain(text), "\n", "\n          ")
}
