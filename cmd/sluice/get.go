package main

import (
	"context"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	"sigs.k8s.io/yaml"

	"sluice/api"
	"sluice/controlplane"
)

// getFlags are the settings of sluice get, describe and delete.
type getFlags struct {
	client clientFlags
	output outputFlag
	reason string
}

const kindsHelp = `Kinds: upstreams, sites, certificates, overrides, nodes, services, gateways; also in the singular. An object is named as
"site chat" or "site/chat", a node as "node/io/n1".`

func newGetCommand() *cobra.Command {
	var f getFlags
	cmd := &cobra.Command{
		Use:   "get KIND[/NAME]",
		Short: "List objects, nodes and gateways, or show one",
		Long:  "List objects, nodes and gateways, all or those that flags select (of several flags, all must hold), or show one.\n\n" + kindsHelp,
		Example: `  sluice get sites
  sluice get node/io/n1
  sluice get upstream/chat -o yaml
  sluice get nodes --service io --state unhealthy
  sluice get certificates --expires-before 720h`,
		Args:              cobra.RangeArgs(1, 2),
		ValidArgsFunction: f.complete,
		RunE: func(cmd *cobra.Command, args []string) error {
			selected := filtersOf(cmd.Flags())
			client, t, err := f.prepare(cmd, args)
			if err != nil {
				return err
			}
			if err := selected.check(t); err != nil {
				return err
			}
			return f.get(cmd.Context(), cmd.OutOrStdout(), cmd.ErrOrStderr(), client, t, selected)
		},
	}
	f.client.register(cmd.Flags())
	f.output.register(cmd)
	registerFilters(cmd.Flags())
	return cmd
}

func newDescribeCommand() *cobra.Command {
	var f getFlags
	cmd := &cobra.Command{
		Use:   "describe KIND/NAME",
		Short: "Show one object with all that is known about it",
		Long:  "Show one object with all that is known about it: as it is stored, how it is served, and what is wrong.\n\n" + kindsHelp,
		Example: `  sluice describe upstream/chat
  sluice describe node/io/n1`,
		Args:              cobra.RangeArgs(1, 2),
		ValidArgsFunction: f.complete,
		RunE: func(cmd *cobra.Command, args []string) error {
			client, t, err := f.prepare(cmd, args)
			if err != nil {
				return err
			}
			if t.object == "" {
				return usageError(fmt.Errorf("name one: sluice describe %s/NAME", t.aliases[0]))
			}
			return f.describe(cmd.Context(), cmd.OutOrStdout(), client, t)
		},
	}
	f.client.register(cmd.Flags())
	return cmd
}

func newDeleteCommand() *cobra.Command {
	var f getFlags
	cmd := &cobra.Command{
		Use:   "delete KIND/NAME",
		Short: "Delete an object, or take a node out on purpose",
		Long:  "Delete an object, or take a node out on purpose: it comes back when it registers again.\n\n" + kindsHelp,
		Example: `  sluice delete site/chat --reason "ticket 4711"
  sluice delete node/io/n1`,
		Args:              cobra.RangeArgs(1, 2),
		ValidArgsFunction: f.complete,
		RunE: func(cmd *cobra.Command, args []string) error {
			client, t, err := f.prepare(cmd, args)
			switch {
			case err != nil:
				return err
			case t.object == "":
				return usageError(fmt.Errorf("name one: sluice delete %s/NAME", t.aliases[0]))
			case t.delete == nil:
				return usageError(fmt.Errorf("%s cannot be deleted: they are there for as long as somebody runs them", t.name))
			}
			if err := t.delete(cmd.Context(), client, t.object, f.reason); err != nil {
				return fmt.Errorf("delete %s: %w", t, err)
			}
			fmt.Fprintf(cmd.OutOrStdout(), "deleted   %s\n", plain(t.String()))
			return nil
		},
	}
	f.client.register(cmd.Flags())
	cmd.Flags().StringVar(&f.reason, "reason", "", "why, for the history")
	return cmd
}

func (f *getFlags) prepare(cmd *cobra.Command, args []string) (apiClient, target, error) {
	if err := fillFlags(cmd.Flags(), ""); err != nil {
		return nil, target{}, usageError(err)
	}
	if f.output != "" {
		if err := f.output.check(); err != nil {
			return nil, target{}, err
		}
	}
	t, err := parseTarget(args)
	if err != nil {
		return nil, target{}, err
	}
	client, err := f.client.client()
	return client, t, err
}

// complete offers kinds, and the names of what there is.
func (f *getFlags) complete(cmd *cobra.Command, args []string, begun string) ([]string, cobra.ShellCompDirective) {
	var words []string
	if kind, name, named := strings.Cut(begun, "/"); named && len(args) == 0 {
		if client, err := f.client.client(); err == nil {
			if r, err := findResource(kind); err == nil {
				rows, _ := r.list(cmd.Context(), client, filters{"prefix": name}) // none are offered while the API is away
				for _, row := range rows {
					words = append(words, kind+"/"+row.name)
				}
			}
		}
		return words, cobra.ShellCompDirectiveNoFileComp
	}
	if len(args) == 0 {
		for _, r := range resources() {
			words = append(words, r.name)
		}
	}
	return words, cobra.ShellCompDirectiveNoFileComp
}

func (f *getFlags) get(ctx context.Context, stdout, stderr io.Writer, client apiClient, t target, selected filters) error {
	rows, err := t.rows(ctx, client, selected)
	if err != nil {
		return err
	}
	if !f.output.text() {
		if t.object != "" {
			return f.output.write(stdout, rows[0].value)
		}
		values := make([]any, len(rows))
		for i, r := range rows {
			values[i] = r.value
		}
		return f.output.write(stdout, values)
	}
	if len(rows) == 0 {
		such := ""
		if len(selected) > 0 {
			such = "such "
		}
		fmt.Fprintf(stderr, "there are no %s%s\n", such, t.name)
		return nil
	}
	return writeTable(stdout, t.header, rows)
}

func writeTable(w io.Writer, header []string, rows []row) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, strings.Join(header, "\t"))
	for _, r := range rows {
		cells := make([]string, len(r.cells))
		for i, c := range r.cells {
			cells[i] = plain(c)
		}
		fmt.Fprintln(t, strings.Join(cells, "\t"))
	}
	return t.Flush()
}

func (f *getFlags) describe(ctx context.Context, stdout io.Writer, client apiClient, t target) error {
	rows, err := t.rows(ctx, client, nil)
	if err != nil {
		return err
	}
	if status, ok := rows[0].value.(controlplane.Status); ok {
		_, err := io.WriteString(stdout, statusText(status, time.Now()))
		return err
	}
	text, err := yaml.Marshal(rows[0].value)
	if err != nil {
		return err
	}
	fmt.Fprintf(stdout, "%s", plain(string(text)))
	gateways, err := gatewaysOfAPI(client, api.ListGatewaysParams{})(ctx)
	if err != nil {
		return fmt.Errorf("ask for the gateways: %w", err)
	}
	if problems := problemsOf(gateways, t.String()); len(problems) > 0 {
		fmt.Fprintln(stdout, "\nproblems:")
		for _, p := range problems {
			fmt.Fprintf(stdout, "  %s\n", plain(p))
		}
	}
	switch t.name {
	case "upstreams":
		return describeUpstream(stdout, gateways, t.object)
	case "nodes":
		fmt.Fprintln(stdout)
		return why(ctx, stdout, client, t.object)
	}
	return nil
}

// describeUpstream tells how each gateway serves an upstream.
func describeUpstream(stdout io.Writer, gateways []controlplane.Status, name string) error {
	var rows, nodes []row
	for _, g := range gateways {
		for _, u := range g.Upstreams {
			if u.Name == name {
				rows = append(rows, row{cells: []string{g.Gateway, fmt.Sprint(u.Nodes), fmt.Sprint(u.Up), fmt.Sprint(u.Held), fmt.Sprint(u.Sockets), orDash(u.Alarm)}})
			}
		}
		for _, n := range g.Exceptions {
			if n.Upstream == name {
				nodes = append(nodes, row{cells: []string{g.Gateway, n.Service + "/" + n.ID, string(n.State), ago(time.Now(), n.Since), orDash(n.Reason)}})
			}
		}
	}
	for _, part := range []struct {
		header []string
		rows   []row
	}{
		{[]string{"GATEWAY", "NODES", "UP", "HELD", "SOCKETS", "ALARM"}, rows},
		{[]string{"GATEWAY", "NODE", "STATE", "SINCE", "REASON"}, nodes},
	} {
		if len(part.rows) == 0 {
			continue
		}
		fmt.Fprintln(stdout)
		if err := writeTable(stdout, part.header, part.rows); err != nil {
			return err
		}
	}
	return nil
}

// why prints the way of a node from its registration to each gateway.
func why(ctx context.Context, stdout io.Writer, client apiClient, node string) error {
	resp, err := client.TraceWithResponse(ctx, &api.TraceParams{Node: node})
	if err := api.Check(resp, err); err != nil {
		return fmt.Errorf("trace %s: %w", node, err)
	}
	_, err = io.WriteString(stdout, traceText(*resp.JSON200))
	return err
}

func traceText(t api.TraceResult) string {
	var b strings.Builder
	summary := "is live on every gateway that should serve it"
	switch {
	case t.Live:
	case t.Serving:
		summary = "is live, but not everywhere"
	default:
		summary = "is not live"
	}
	fmt.Fprintf(&b, "node %s %s\n", plain(t.Node), summary)
	mark := map[bool]string{true: "ok", false: "NO"}
	for _, s := range t.Steps {
		fmt.Fprintf(&b, "  %s  %-12s %s\n", mark[s.Ok], plain(s.Step), plain(s.Message))
	}
	for _, g := range t.Gateways {
		fmt.Fprintf(&b, "  %s  gateway %s (%s): %s, seq %d of %d", mark[g.Live], plain(g.Gateway), plain(g.Group), plain(string(g.Phase)), g.SeqLive, g.SeqWanted)
		if g.Sockets != nil {
			fmt.Fprintf(&b, ", %s", count(*g.Sockets, "socket"))
		}
		b.WriteByte('\n')
		for _, r := range g.Reasons {
			fmt.Fprintf(&b, "        %s\n", strings.ReplaceAll(plain(strings.TrimSpace(r)), "\n", "\n        "))
		}
	}
	return b.String()
}

func newWhyCommand() *cobra.Command {
	var client clientFlags
	var output outputFlag
	cmd := &cobra.Command{
		Use:   "why SERVICE/ID",
		Short: "Say why a node is live, or is not",
		Long: `Say why a node is live, or is not: each step from its registration to each gateway, and nginx's own words where it was nginx.

Exits with code 3 when the node is not live everywhere.`,
		Example: `  sluice why io/n3`,
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := fillFlags(cmd.Flags(), ""); err != nil {
				return usageError(err)
			}
			if err := output.check(); err != nil {
				return err
			}
			c, err := client.client()
			if err != nil {
				return err
			}
			name := strings.TrimPrefix(args[0], "node/")
			if _, _, err := splitNode(name); err != nil {
				return err
			}
			resp, err := c.TraceWithResponse(cmd.Context(), &api.TraceParams{Node: name})
			if err := api.Check(resp, err); err != nil {
				return fmt.Errorf("trace %s: %w", name, err)
			}
			if output.text() {
				_, err = io.WriteString(cmd.OutOrStdout(), traceText(*resp.JSON200))
			} else {
				err = output.write(cmd.OutOrStdout(), resp.JSON200)
			}
			if err == nil && !resp.JSON200.Live {
				err = &exitError{code: exitNotLive}
			}
			return err
		},
	}
	client.register(cmd.Flags())
	output.register(cmd)
	return cmd
}
