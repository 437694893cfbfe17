package main

import (
	"context"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"sluice/api"
	"sluice/controlplane/spec"
)

// tokenFlags are the settings of sluice token and the commands below it.
type tokenFlags struct {
	client clientFlags
	output outputFlag
	reason string

	role     string
	ttl      time.Duration
	note     string
	services []string
	networks []string
	ports    []string
}

func newTokenCommand() *cobra.Command {
	var f tokenFlags
	cmd := &cobra.Command{
		Use:   "token",
		Short: "Say who may use the API, and for what",
		Long: `Say who may use the API, and for what.

Roles: viewer reads; registrar registers nodes, of the services, networks and ports that its token names; operator changes
the desired state; admin also makes tokens. docs/access.md has more.`,
		Example: `  sluice token create alice --role operator --ttl 720h
  sluice token list
  sluice token revoke alice --reason "left the team"`,
	}
	create := f.command("create NAME", "Create a token, and print its text: it is shown this once", cobra.ExactArgs(1), f.create)
	create.Example = `  sluice token create alice --role operator --ttl 720h
  sluice token create chat-nodes --role registrar --service io --network 10.0.0.0/8 --port 6000-6999 >token`
	create.Flags().StringVar(&f.role, "role", "", "viewer, registrar, operator or admin")
	create.Flags().DurationVar(&f.ttl, "ttl", 0, "how long it is good for (default: for ever)")
	create.Flags().StringVar(&f.note, "note", "", "what it is for")
	create.Flags().StringSliceVar(&f.services, "service", nil, `service that a registrar may register; "*" is any (may be repeated)`)
	create.Flags().StringSliceVar(&f.networks, "network", nil, "network of the nodes' addresses, as 10.0.0.0/8 (may be repeated; default: any)")
	create.Flags().StringSliceVar(&f.ports, "port", nil, "port or ports of the nodes, as 6000-6999 (may be repeated; default: any)")
	create.Flags().StringVar(&f.reason, "reason", "", "why, for the history")
	if err := create.MarkFlagRequired("role"); err != nil {
		panic(err) // the flag is defined above
	}
	revoke := f.command("revoke NAME", "Revoke a token", cobra.ExactArgs(1), f.revoke)
	revoke.Flags().StringVar(&f.reason, "reason", "", "why, for the history")
	list := f.command("list", "List the tokens, without their texts", cobra.NoArgs, f.list)
	list.Flags().StringVar(&f.role, "role", "", "only those with this role: viewer, registrar, operator or admin")
	f.output.register(list)
	cmd.AddCommand(create, list, revoke)
	return cmd
}

func (f *tokenFlags) command(use, short string, args cobra.PositionalArgs, run func(context.Context, *cobra.Command, *api.ClientWithResponses, string) error) *cobra.Command {
	cmd := &cobra.Command{
		Use: use, Short: short, Args: args,
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := fillFlags(cmd.Flags(), ""); err != nil {
				return usageError(err)
			}
			client, err := f.client.client()
			if err != nil {
				return err
			}
			return run(cmd.Context(), cmd, client, strings.Join(args, ""))
		},
	}
	f.client.register(cmd.Flags())
	return cmd
}

func (f *tokenFlags) create(ctx context.Context, cmd *cobra.Command, client *api.ClientWithResponses, name string) error {
	request := api.TokenRequest{Name: name, Role: spec.Role(f.role), TTL: spec.Duration(f.ttl), Note: f.note}
	if len(f.services)+len(f.networks)+len(f.ports) > 0 {
		request.Limits = &spec.Limits{Services: append([]string{}, f.services...), Networks: f.networks, Ports: f.ports}
	}
	resp, err := client.CreateTokenWithResponse(ctx, &api.CreateTokenParams{XChangeReason: f.reason}, request)
	if err := api.Check(resp, err); err != nil {
		return fmt.Errorf("create token %s: %w", name, err)
	}
	fmt.Fprintln(cmd.OutOrStdout(), resp.JSON201.Token)
	return nil
}

func (f *tokenFlags) revoke(ctx context.Context, cmd *cobra.Command, client *api.ClientWithResponses, name string) error {
	resp, err := client.DeleteTokenWithResponse(ctx, name, &api.DeleteTokenParams{XChangeReason: f.reason})
	if err := api.Check(resp, err); err != nil {
		return fmt.Errorf("revoke token %s: %w", name, err)
	}
	fmt.Fprintf(cmd.ErrOrStderr(), "token %s is revoked; all instances refuse it within 2 s\n", plain(name))
	return nil
}

func (f *tokenFlags) list(ctx context.Context, cmd *cobra.Command, client *api.ClientWithResponses, _ string) error {
	if err := f.output.check(); err != nil {
		return err
	}
	tokens, err := pages(func(from string) ([]api.NamedToken, string, error) {
		resp, err := client.ListTokensWithResponse(ctx, &api.ListTokensParams{From: from, Role: spec.Role(f.role)})
		if err := api.Check(resp, err); err != nil {
			return nil, "", err
		}
		return resp.JSON200.Items, resp.JSON200.Next, nil
	})
	if err != nil {
		return fmt.Errorf("list the tokens: %w", err)
	}
	if !f.output.text() {
		return f.output.write(cmd.OutOrStdout(), tokens)
	}
	return writeTokens(cmd.OutOrStdout(), tokens)
}

func writeTokens(w io.Writer, tokens []api.NamedToken) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "NAME\tROLE\tEXPIRES\tREGISTERS\tNOTE")
	for _, n := range tokens {
		expires, registers := "-", "-"
		if e := n.Spec.Expires; e != nil {
			expires = e.UTC().Format(time.DateTime)
		}
		if n.Expired {
			expires = "expired"
		}
		if l := n.Spec.Limits; l != nil {
			registers = strings.Join(append(append(append([]string{}, l.Services...), l.Networks...), l.Ports...), " ")
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\n", plain(n.Name), plain(string(n.Spec.Role)), expires, plain(registers), plain(orDash(n.Spec.Note)))
	}
	return t.Flush()
}
