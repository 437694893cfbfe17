package main

import (
	"context"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"sluice/api"
	"sluice/controlplane"
	"sluice/registry"
)

// paceFlags are the pace of the rollouts of changes that are made through an instance.
type paceFlags struct {
	canary int
	share  int
	soak   time.Duration
}

func (f *paceFlags) register(flags *pflag.FlagSet) {
	pace := controlplane.DefaultRolloutSettings()
	flags.IntVar(&f.canary, "rollout-canary", pace.Canary, "gateways of a group that have a change first, where a group has several; 0: all at once")
	flags.IntVar(&f.share, "rollout-share", pace.Share, "of a group's gateways that each wave after them takes, in percent")
	flags.DurationVar(&f.soak, "rollout-soak", time.Duration(pace.Soak*float64(time.Second)), "a wave must be well for this long before the next one")
}

func (f *paceFlags) settings() (registry.RolloutSettings, error) {
	switch {
	case f.canary < 0:
		return registry.RolloutSettings{}, usageError(fmt.Errorf("--rollout-canary %d is not a number of gateways", f.canary))
	case f.share < 1 || f.share > 100:
		return registry.RolloutSettings{}, usageError(fmt.Errorf("--rollout-share %d is not between 1 and 100", f.share))
	case f.soak < 0:
		return registry.RolloutSettings{}, usageError(fmt.Errorf("--rollout-soak %s is not a time", f.soak))
	}
	return registry.RolloutSettings{Canary: f.canary, Share: f.share, Soak: f.soak.Seconds()}, nil
}

// rolloutFlags are the settings of sluice rollout and the commands below it.
type rolloutFlags struct {
	client clientFlags
	output outputFlag
	state  string
}

func newRolloutCommand() *cobra.Command {
	var f rolloutFlags
	cmd := &cobra.Command{
		Use:   "rollout",
		Short: "See and steer changes on their way through a fleet",
		Long: `See and steer changes on their way through a fleet of several gateways: first one of a group has a change, then the others in
waves. docs/rollouts.md has more. SEQ is the number of the change.`,
		Example: `  sluice rollout list
  sluice rollout show 17
  sluice rollout pause 17`,
	}
	list := f.command("list", "List the changes that are on their way, and those that were lately", cobra.NoArgs, f.list)
	list.Flags().StringVar(&f.state, "state", "", "only those in this state: running, paused, reverting, done, promoted, reverted, merged")
	show := f.command("show SEQ", "Show a rollout, and how far each gateway is", cobra.ExactArgs(1), f.show)
	cmd.AddCommand(list, show)
	for _, action := range []struct{ name, short string }{
		{"pause", "Let no further gateway's turn come"},
		{"resume", "Go on with a rollout that was paused"},
		{"abort", "Take a change back: everybody has what stood before"},
		{"promote", "Let all gateways have a change at once, whatever they make of it"},
	} {
		cmd.AddCommand(f.command(action.name+" SEQ", action.short, cobra.ExactArgs(1),
			func(ctx context.Context, stdout io.Writer, client apiClient, seq int64) error {
				resp, err := client.SteerRolloutWithResponse(ctx, seq, action.name)
				if err := api.Check(resp, err); err != nil {
					return fmt.Errorf("%s rollout %d: %w", action.name, seq, err)
				}
				return f.write(stdout, *resp.JSON200)
			}))
	}
	return cmd
}

func (f *rolloutFlags) command(use, short string, args cobra.PositionalArgs, run func(context.Context, io.Writer, apiClient, int64) error) *cobra.Command {
	cmd := &cobra.Command{
		Use: use, Short: short,
		Args: func(cmd *cobra.Command, list []string) error {
			if err := args(cmd, list); err != nil {
				return usageError(err)
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := fillFlags(cmd.Flags(), ""); err != nil {
				return usageError(err)
			}
			if err := f.output.check(); err != nil {
				return err
			}
			var seq int64
			if len(args) > 0 {
				var err error
				if seq, err = strconv.ParseInt(args[0], 10, 64); err != nil || seq < 0 {
					return usageError(fmt.Errorf("%q is no seq: sluice rollout list lists them", args[0]))
				}
			}
			client, err := f.client.client()
			if err != nil {
				return err
			}
			return run(cmd.Context(), cmd.OutOrStdout(), client, seq)
		},
	}
	f.client.register(cmd.Flags())
	f.output.register(cmd)
	return cmd
}

func (f *rolloutFlags) list(ctx context.Context, stdout io.Writer, client apiClient, _ int64) error {
	rollouts := []api.Rollout{}
	for params := (api.ListRolloutsParams{State: registry.RolloutState(f.state)}); ; {
		resp, err := client.ListRolloutsWithResponse(ctx, &params)
		if err := api.Check(resp, err); err != nil {
			return fmt.Errorf("list the rollouts: %w", err)
		}
		rollouts = append(rollouts, resp.JSON200.Items...)
		if params.From = resp.JSON200.Next; params.From == 0 {
			break
		}
	}
	if !f.output.text() {
		return f.output.write(stdout, rollouts)
	}
	var rows []row
	for _, r := range rollouts {
		rows = append(rows, row{cells: []string{
			fmt.Sprint(r.Seq), ago(time.Now(), r.At) + " ago", r.Author, string(r.State), orDash(countGateways(r.Gateways)), objectsOf(r.Changes), orDash(r.Message),
		}})
	}
	return writeTable(stdout, []string{"SEQ", "WHEN", "WHO", "STATE", "GATEWAYS", "WHAT", "WHY"}, rows)
}

// countGateways is "2 live, 1 waits".
func countGateways(gateways []api.RolloutGateway) string {
	var states []string
	counts := map[string]int{}
	for _, g := range gateways {
		if counts[string(g.State)] == 0 {
			states = append(states, string(g.State))
		}
		counts[string(g.State)]++
	}
	for i, s := range states {
		states[i] = fmt.Sprintf("%d %s", counts[s], s)
	}
	return strings.Join(states, ", ")
}

func objectsOf(changes []api.Change) string {
	var objects []string
	for _, c := range changes {
		objects = append(objects, string(c.Action)+" "+c.Kind+"/"+c.Name)
	}
	return strings.Join(objects, ", ")
}

func (f *rolloutFlags) show(ctx context.Context, stdout io.Writer, client apiClient, seq int64) error {
	resp, err := client.GetRolloutWithResponse(ctx, seq)
	if err := api.Check(resp, err); err != nil {
		return fmt.Errorf("get rollout %d: %w", seq, err)
	}
	return f.write(stdout, *resp.JSON200)
}

func (f *rolloutFlags) write(stdout io.Writer, r api.Rollout) error {
	if !f.output.text() {
		return f.output.write(stdout, r)
	}
	text := fmt.Sprintf("rollout of seq %d: %s\n", r.Seq, r.State)
	for _, line := range [][2]string{
		{"why", r.Message}, {"by", r.Author}, {"reason", r.Reason}, {"what", objectsOf(r.Changes)},
		{"pace", fmt.Sprintf("first %d of a group, then waves of %d %%, each when the one before was well for %g s", r.Canary, r.Share, r.Soak)},
	} {
		if line[1] != "" {
			text += fmt.Sprintf("  %-8s %s\n", line[0], plain(line[1]))
		}
	}
	if r.Into > 0 {
		text += fmt.Sprintf("  %-8s the rollout of seq %d carries it\n", "into", r.Into)
	}
	if _, err := io.WriteString(stdout, text); err != nil || len(r.Gateways) == 0 {
		return err
	}
	var rows []row
	for _, g := range r.Gateways {
		wave, since := "-", "-"
		if g.Wave > 0 {
			wave, since = strconv.Itoa(g.Wave), ago(time.Now(), g.Since)+" ago"
		}
		rows = append(rows, row{cells: []string{g.Gateway, g.Group, wave, string(g.State), since, orDash(g.Message)}})
	}
	return writeTable(stdout, []string{"GATEWAY", "GROUP", "WAVE", "STATE", "RELEASED", "WHY"}, rows)
}
