package main

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"time"

	"github.com/google/renameio/v2"
	"github.com/spf13/cobra"

	"sluice/api"
	"sluice/registry"
)

// exportTime is how long an export, or a restore, may take: both are many megabytes in a large fleet.
const exportTime = 5 * time.Minute

// exportFlags are the settings of sluice export and sluice restore.
type exportFlags struct {
	client  clientFlags
	file    string
	keyFile string

	replace bool
	tokens  bool
	dryRun  bool
	wait    time.Duration
	reason  string
}

func newExportCommand() *cobra.Command {
	var f exportFlags
	cmd := &cobra.Command{
		Use:   "export",
		Short: "Write the whole desired state into a file",
		Long: `Write the whole desired state into a file, as it is at one moment: for a backup, or to move to another registry with
sluice restore. Private keys are encrypted for --key-file, a key of 32 bytes as for --secrets-key-file; the instance gets no
more than its public half. Without one they are left out. docs/export.md says what is in the file.`,
		Example: `  openssl rand -hex 32 > export.key
  sluice export -o sluice.json --key-file export.key
  sluice export | jq .state.sites`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			client, err := f.prepare(cmd)
			if err != nil {
				return err
			}
			return f.export(cmd.Context(), cmd.OutOrStdout(), cmd.ErrOrStderr(), client)
		},
	}
	f.register(cmd, "file to write, for its owner alone; - is standard output", "out", "o", "-")
	return cmd
}

func newRestoreCommand() *cobra.Command {
	var f exportFlags
	cmd := &cobra.Command{
		Use:   "restore -f FILE",
		Short: "Make the desired state what an export says",
		Long: `Make the desired state what an export says. Without --replace it only adds: where there are other objects, or the same
ones otherwise, it changes nothing and ends with code 5. A restore that was interrupted goes on when it is run again.
docs/export.md says how to move to another registry.`,
		Example: `  sluice restore -f sluice.json --key-file export.key --wait 1m
  sluice restore -f sluice.json --replace --dry-run
  sluice restore -f sluice.json --key-file export.key --tokens --api http://new:7070`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			client, err := f.prepare(cmd)
			if err != nil {
				return err
			}
			return f.restore(cmd.Context(), cmd.OutOrStdout(), cmd.ErrOrStderr(), client)
		},
	}
	f.register(cmd, "file to read; - is standard input", "file", "f", "")
	flags := cmd.Flags()
	flags.BoolVar(&f.replace, "replace", false, "replace objects that are otherwise in the export, and delete those that it lacks")
	flags.BoolVar(&f.tokens, "tokens", false, "bring back tokens that are missing, also those that were revoked since")
	flags.BoolVar(&f.dryRun, "dry-run", false, "check everything and print what would change, but change nothing")
	flags.DurationVar(&f.wait, "wait", 0, "wait this long for it to be live, as 30s")
	flags.StringVar(&f.reason, "reason", "", "why, for the history")
	return cmd
}

func (f *exportFlags) register(cmd *cobra.Command, usage, name, short, file string) {
	f.client.register(cmd.Flags())
	cmd.Flags().StringVarP(&f.file, name, short, file, usage)
	cmd.Flags().StringVar(&f.keyFile, "key-file", "", "file with a key of 32 bytes, as hex or base64, that encrypts the private keys in the export")
}

func (f *exportFlags) prepare(cmd *cobra.Command) (apiClient, error) {
	if err := fillFlags(cmd.Flags(), ""); err != nil {
		return nil, usageError(err)
	}
	return f.client.client()
}

// key returns the key of --key-file; nil when there is none.
func (f *exportFlags) key() (*api.ExportKey, error) {
	if f.keyFile == "" {
		return nil, nil
	}
	key, err := readKey(f.keyFile)
	if err != nil {
		return nil, fmt.Errorf("read --key-file: %w", err)
	}
	return api.NewExportKey(key)
}

func (f *exportFlags) export(ctx context.Context, stdout, stderr io.Writer, client apiClient) error {
	ctx, cancel := context.WithTimeout(ctx, exportTime)
	defer cancel()
	key, err := f.key()
	if err != nil {
		return err
	}
	var params api.ExportParams
	if key != nil {
		params.Recipient = key.Recipient()
	}
	resp, err := client.ExportWithResponse(ctx, &params)
	if err := api.Check(resp, err); err != nil {
		return fmt.Errorf("export: %w", err)
	}
	var text bytes.Buffer // as it came: a newer instance may say more than this version knows
	if err := json.Indent(&text, bytes.TrimSpace(resp.Body), "", "  "); err != nil {
		return fmt.Errorf("export: the answer is not complete: %w", err)
	}
	text.WriteByte('\n')
	if f.file == "-" {
		_, err = stdout.Write(text.Bytes())
	} else {
		err = renameio.WriteFile(f.file, text.Bytes(), 0o600, renameio.WithTempDir(filepath.Dir(f.file)))
	}
	if err != nil {
		return fmt.Errorf("write the export: %w", err)
	}
	e := resp.JSON200
	fmt.Fprintf(stderr, "exported seq %d: %s, %s, %s, %s, %s, %s\n", e.Seq, count(len(e.State.Certificates), "certificate"), count(len(e.State.Upstreams), "upstream"),
		count(len(e.State.Sites), "site"), count(len(e.State.Overrides), "override"), count(len(e.State.Approvals), "approval"), count(len(e.State.Tokens), "token"))
	if key == nil {
		fmt.Fprintln(stderr, "private keys were left out: --key-file encrypts them into the export")
	}
	return nil
}

func (f *exportFlags) restore(ctx context.Context, stdout, stderr io.Writer, client apiClient) error {
	ctx, cancel := context.WithTimeout(ctx, exportTime+f.wait)
	defer cancel()
	if f.file == "" {
		return usageError(errors.New("name the export with -f FILE; -f - is standard input"))
	}
	data, err := readInput(f.file)
	if err != nil {
		return err
	}
	e, err := parseExport(data)
	if err != nil {
		return fmt.Errorf("%s: %w", inputName(f.file), err)
	}
	key, err := f.key()
	if err != nil {
		return err
	}
	if key != nil {
		if err := key.Open(&e); err != nil {
			return fmt.Errorf("%s: %w", inputName(f.file), err)
		}
	}
	body, err := registry.MarshalJSON(e) // the generated client would escape characters of objects that were not escaped
	if err != nil {
		return err
	}
	params := api.RestoreParams{Replace: f.replace, Tokens: f.tokens, DryRun: f.dryRun, XChangeReason: f.reason}
	if f.wait > 0 {
		params.Wait = f.wait.String()
	}
	resp, err := client.RestoreWithBodyWithResponse(ctx, &params, "application/json", bytes.NewReader(body))
	if err := api.Check(resp, err); err != nil {
		return fmt.Errorf("restore: %w", err)
	}
	if n := len(e.State.Tokens); n > 0 && !f.tokens {
		fmt.Fprintf(stderr, "%s of the export left alone: --tokens brings back those that are missing\n", count(n, "token"))
	}
	return written(stdout, stderr, cmp.Or(resp.JSON200, resp.JSON202), f.dryRun, f.wait)
}

// parseExport reads an export. What else this version does not know is missed by the checksum.
func parseExport(data []byte) (api.Export, error) {
	var e api.Export
	err := json.Unmarshal(data, &e)
	switch {
	case e.Format > api.ExportFormat: // whatever else is wrong with it
		return e, fmt.Errorf("the export has the format %d, and this version of sluice knows %d: use the version that wrote it, or a later one", e.Format, api.ExportFormat)
	case err != nil:
		return e, fmt.Errorf("is no export, or is damaged: %w", err)
	case e.Format == 0:
		return e, errors.New("is no export: sluice export writes one")
	}
	return e, nil
}
