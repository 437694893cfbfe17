package main

import (
	"context"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"sluice/api"
	"sluice/registry"
)

// nodesFlags are the settings of sluice nodes.
type nodesFlags struct {
	client clientFlags
	output outputFlag
}

func newNodesCommand() *cobra.Command {
	var f nodesFlags
	cmd := &cobra.Command{
		Use:   "nodes [SERVICE]",
		Short: "List the nodes that are alive",
		Example: `  sluice nodes
  sluice nodes io -o json`,
		Args:              cobra.MaximumNArgs(1),
		ValidArgsFunction: f.completeService,
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := fillFlags(cmd.Flags(), ""); err != nil {
				return usageError(err)
			}
			return f.run(cmd.Context(), cmd.OutOrStdout(), cmd.ErrOrStderr(), strings.Join(args, ""))
		},
	}
	f.client.register(cmd.Flags())
	f.output.register(cmd)
	return cmd
}

// completeService offers the services that have nodes to the shell's completion.
func (f *nodesFlags) completeService(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	client, err := f.client.client()
	if err != nil || len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	resp, err := client.ListServicesWithResponse(cmd.Context())
	if api.Check(resp, err) != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	var names []string
	for _, s := range resp.JSON200.Items {
		names = append(names, s.Name)
	}
	return names, cobra.ShellCompDirectiveNoFileComp
}

func (f *nodesFlags) run(ctx context.Context, stdout, stderr io.Writer, service string) error {
	if err := f.output.check(); err != nil {
		return err
	}
	client, err := f.client.client()
	if err != nil {
		return err
	}
	resp, err := client.ListNodesWithResponse(ctx, &api.ListNodesParams{Service: service})
	if err := api.Check(resp, err); err != nil {
		return fmt.Errorf("list the nodes: %w", err)
	}
	nodes := resp.JSON200.Items
	if f.output.json() {
		return writeJSON(stdout, nodes)
	}
	if len(nodes) == 0 {
		fmt.Fprintln(stderr, "no node is registered")
		return nil
	}
	return writeNodes(stdout, nodes)
}

func writeNodes(w io.Writer, nodes []registry.Node) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "SERVICE\tID\tADDRESS\tWEIGHT\tMAX CONNS\tZONE")
	for _, n := range nodes {
		limit := "-"
		if n.MaxConns > 0 {
			limit = fmt.Sprint(n.MaxConns)
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%d\t%s\t%s\n", plain(n.Service), plain(n.ID), plain(n.HostPort()), max(1, n.Weight), limit, plain(orDash(n.Zone)))
	}
	return t.Flush()
}

func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}
