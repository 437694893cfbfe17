package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"

	"github.com/spf13/cobra"

	"sluice/api"
)

// Exit codes. A command that register runs ends with its own.
const (
	exitFailed   = 1
	exitUsage    = 2
	exitNotLive  = 3 // committed, but not live in time
	exitNotFound = 4
	exitConflict = 5 // somebody else changed it, or it is in use
)

// exitError ends the process with a code of its own. Without an error, nothing is printed.
type exitError struct {
	code int
	err  error
}

func (e *exitError) Error() string {
	if e.err == nil {
		return fmt.Sprintf("exit code %d", e.code)
	}
	return e.err.Error()
}

func (e *exitError) Unwrap() error { return e.err }

func usageError(err error) error { return &exitError{exitUsage, err} }

func newRootCommand() *cobra.Command {
	root := &cobra.Command{
		Use:   "sluice",
		Short: "Keeps nginx in step with a living fleet of Socket.IO and WebSocket nodes",
		Long: `Keeps nginx in step with a living fleet of Socket.IO and WebSocket nodes, without dropping a socket.

One sluice runs beside each nginx. Nodes register with any of them, ops apply what they want to any of them.
Flags can be given by the environment, as SLUICE_API for --api.

Exit codes: 0 done; 1 failed or refused; 2 wrong usage; 3 not live (in time); 4 there is no such thing; 5 a conflict: somebody
else changed it, or it is in use. diff: 1 when there is a difference.`,
		Example: `  sluice run                                      # keep the nginx of this machine
  sluice apply -f chat.yaml --wait 30s            # say what is wanted
  sluice register --service io --id n1 --address 127.0.0.1:6001 -- node server.js
  sluice status                                   # what is live, what waits, and why`,
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return usageError(err) })
	root.AddCommand(newRunCommand(), newRegisterCommand(), newApplyCommand(), newDiffCommand(), newHistoryCommand(), newRevertCommand(), newExportCommand(), newRestoreCommand(), newRolloutCommand(), newGetCommand(), newDescribeCommand(),
		newDeleteCommand(), newDrainCommand(), newUndrainCommand(), newWeightCommand(), newApproveCommand(), newWhyCommand(), newEventsCommand(), newDoctorCommand(), newStatusCommand(),
		newRenderCommand(), newTokenCommand(), newVersionCommand())
	for _, cmd := range root.Commands() {
		if check := cmd.Args; check != nil {
			cmd.Args = func(cmd *cobra.Command, args []string) error {
				if err := check(cmd, args); err != nil {
					return usageError(err)
				}
				return nil
			}
		}
	}
	return root
}

// codeOf returns the code of an error that has none of its own: scripts can tell what is not there, and a conflict.
func codeOf(err error) int {
	p, ok := errors.AsType[*api.Problem](err)
	switch {
	case ok && p.Status == http.StatusNotFound:
		return exitNotFound
	case ok && (p.Status == http.StatusConflict || p.Status == http.StatusPreconditionFailed):
		return exitConflict
	default:
		return exitFailed
	}
}

// execute runs the command line and returns the exit code.
func execute(ctx context.Context, args []string, stderr io.Writer) int {
	root := newRootCommand()
	root.SetArgs(args)
	cmd, err := root.ExecuteContextC(ctx)
	if err == nil {
		return 0
	}
	exit, ok := errors.AsType[*exitError](err)
	if !ok {
		exit = &exitError{codeOf(err), err}
		if strings.HasPrefix(err.Error(), "unknown command") || strings.HasPrefix(err.Error(), "required flag") {
			exit.code = exitUsage // cobra has no type for them
		}
	}
	if exit.err != nil {
		fmt.Fprintf(stderr, "sluice: %s\n", plain(exit.Error()))
	}
	if exit.code == exitUsage {
		fmt.Fprintf(stderr, "Run '%s --help' for usage.\n", cmd.CommandPath())
	}
	return exit.code
}
