package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"sluice/api"
	"sluice/controlplane"
)

// statusFlags are the settings of sluice status.
type statusFlags struct {
	client clientFlags
	output outputFlag
	all    bool
}

func newStatusCommand() *cobra.Command {
	var f statusFlags
	cmd := &cobra.Command{
		Use:   "status [GATEWAY]",
		Short: "Show what a gateway serves, what waits, and why",
		Long: `Show what a gateway serves, what waits and why, what nginx refused in its own words, and what somebody has to mend.

Without a name it is the gateway of the instance that is asked; this also works while the registry is away.`,
		Example: `  sluice status
  sluice status edge-2
  sluice status --all -o json`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := fillFlags(cmd.Flags(), ""); err != nil {
				return usageError(err)
			}
			return f.run(cmd.Context(), cmd.OutOrStdout(), strings.Join(args, ""))
		},
	}
	cmd.Flags().BoolVar(&f.all, "all", false, "all gateways of the fleet")
	f.client.register(cmd.Flags())
	f.output.register(cmd)
	return cmd
}

func (f *statusFlags) run(ctx context.Context, stdout io.Writer, name string) error {
	if err := f.output.check(); err != nil {
		return err
	}
	if f.all && name != "" {
		return usageError(errors.New("give the name of a gateway, or --all"))
	}
	client, err := f.client.client()
	if err != nil {
		return err
	}
	list, err := f.ask(ctx, client, name)
	if err != nil {
		return fmt.Errorf("ask for the status: %w", err)
	}
	switch {
	case f.output.text():
	case f.all:
		return f.output.write(stdout, list)
	default:
		return f.output.write(stdout, list[0])
	}
	for i, s := range list {
		text := statusText(s, time.Now())
		if i > 0 {
			text = "\n" + text
		}
		if _, err := io.WriteString(stdout, text); err != nil {
			return err
		}
	}
	return nil
}

func (f *statusFlags) ask(ctx context.Context, client api.ClientWithResponsesInterface, name string) ([]controlplane.Status, error) {
	switch {
	case f.all:
		return gatewaysOfAPI(client, api.ListGatewaysParams{})(ctx)
	case name != "":
		resp, err := client.GetGatewayWithResponse(ctx, name)
		if err := api.Check(resp, err); err != nil {
			return nil, err
		}
		return []controlplane.Status{*resp.JSON200}, nil
	default:
		resp, err := client.GetSelfWithResponse(ctx)
		if err := api.Check(resp, err); err != nil {
			return nil, err
		}
		return []controlplane.Status{*resp.JSON200}, nil
	}
}

// phases are the phases in words.
var phases = map[controlplane.Phase]string{
	controlplane.Starting: "nothing was applied yet",
	controlplane.InStep:   "what is wanted is live",
	controlplane.Applying: "a change is being applied",
	controlplane.Waiting:  "a change waits",
	controlplane.Failed:   "the newest change failed, the last good configuration serves",
}

// statusText is a status for people.
func statusText(s controlplane.Status, now time.Time) string {
	var b strings.Builder
	line := func(label, format string, args ...any) {
		text := strings.ReplaceAll(plain(fmt.Sprintf(format, args...)), "\n", "\n             ")
		fmt.Fprintf(&b, "  %-10s %s\n", label, text)
	}
	phase := phases[s.Phase]
	if phase == "" {
		phase = string(s.Phase) // of a newer version
	}
	fmt.Fprintf(&b, "gateway %s: %s\n", plain(s.Gateway), plain(phase))
	if s.RevisionLive == "" {
		line("live", "nothing")
	} else {
		line("live", "seq %d, revision %s, %s", s.SeqLive, short(s.RevisionLive), count(s.Nodes, "node"))
	}
	if a := s.Applied; a != nil {
		line("applied", "%s ago, by %s, in %.0f ms", ago(now, a.At), hows[a.How], a.Milliseconds)
	}
	if w := s.Wait; w != nil {
		line("waits", "seq %d: %s; %s, because %s", s.SeqWanted, w.What, in(now, w.Until), w.Why)
	}
	if r := s.Rollout; r != nil && r.State == controlplane.PartWaits {
		line("rollout", "seq %d: waits for its wave; nodes come and go as ever", r.Seq)
	}
	if f := s.Failure; f != nil {
		line("failed", "seq %d, %s ago, %s, next %s", s.SeqWanted, ago(now, f.At), count(f.Attempts, "attempt"), in(now, f.NextTry))
		line("", "%s", strings.TrimSpace(f.Message))
	}
	line("registry", "%s", registryText(s, now))
	line("nginx", "%s", nginxText(s.Nginx))
	for _, g := range s.Nginx.Generations {
		line("", "%s", generationText(g, now))
	}
	if s.Sockets != nil {
		line("sockets", "%s", socketsText(*s.Sockets))
	}
	line("sluice", "%s, group %s", s.Version, s.Group)
	for _, u := range s.Upstreams {
		text := fmt.Sprintf("%s: %d of %s up", u.Name, u.Up, count(u.Nodes, "node"))
		if u.Held > 0 {
			text += fmt.Sprintf(", %d held by the guard", u.Held)
		}
		if u.Sockets > 0 {
			text += ", " + count(u.Sockets, "socket")
		}
		line("upstream", "%s", text)
	}
	for i, n := range s.Exceptions {
		label := ""
		if i == 0 {
			label = "nodes"
		}
		line(label, "%s/%s is %s: %s", n.Service, n.ID, n.State, n.Reason)
	}
	if s.MoreExceptions > 0 {
		line("", "and %d more", s.MoreExceptions)
	}
	for i, a := range s.Alarms {
		label := ""
		if i == 0 {
			label = "alarms"
		}
		line(label, "%s", a.String())
	}
	for i, p := range s.Problems {
		label := ""
		if i == 0 {
			label = "problems"
		}
		line(label, "%s", p.String())
	}
	return b.String()
}

var hows = map[controlplane.How]string{
	controlplane.Nothing: "no reload",
	controlplane.Reload:  "a reload",
	controlplane.Start:   "a start of nginx",
}

func registryText(s controlplane.Status, now time.Time) string {
	text := "connected"
	if !s.Registry.Connected {
		text = "away for " + ago(now, s.Registry.Since) + ": " + s.Registry.Error
	}
	if s.Stale {
		text += "\nit has not answered since the start: what serves is what the disk held as last proven good"
	}
	return text
}

func nginxText(n controlplane.Live) string {
	if !n.Running {
		return fmt.Sprintf("%s %s, does not run", n.Binary, n.Version)
	}
	return fmt.Sprintf("%s %s, pid %d", n.Binary, n.Version, n.PID)
}

func socketsText(s controlplane.Sockets) string {
	text := fmt.Sprintf("%d to nodes", s.Total)
	if s.Old > 0 {
		text += fmt.Sprintf(", %d of these in old generations", s.Old)
	}
	if s.Uncounted != "" {
		text += "; some are not counted: " + s.Uncounted
	}
	return text
}

func generationText(g controlplane.Generation, now time.Time) string {
	var memory int64
	sockets := 0
	for _, w := range g.Workers {
		memory += w.Memory
		sockets += w.Sockets
	}
	state := "accepts"
	if g.Old {
		state = "old, serves what is open"
	}
	return fmt.Sprintf("generation %d: %s; %s, %s, %d MB, since %s", g.Number, state, count(len(g.Workers), "worker"), count(sockets, "socket"),
		memory>>20, ago(now, g.Since))
}

func count(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

// short is enough of a revision to tell two apart.
func short(revision string) string { return revision[:min(12, len(revision))] }

// ago is a duration for people; the clocks of two machines may differ a little.
func ago(now, t time.Time) string {
	d := max(0, now.Sub(t))
	switch {
	case d < time.Minute:
		return d.Round(100 * time.Millisecond).String()
	case d < 48*time.Hour:
		return strings.TrimSuffix(d.Round(time.Minute).String(), "0s")
	default:
		return fmt.Sprintf("%d days", int(d/(24*time.Hour)))
	}
}

func in(now, t time.Time) string {
	if !t.After(now) {
		return "now"
	}
	return "in " + ago(t, now)
}
