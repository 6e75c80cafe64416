// SPDX-FileCopyrightText: 2026 The timguard authors
// SPDX-License-Identifier: Apache-2.0

package command

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/timguard/timguard/caddymodule/callback"
)

func sampleCommand() *cobra.Command {
	return subcommand("sample <command>", "Prints a payload of a command", `
Prints a sample payload of a known command on one line, with all fields that the
guard knows. It can be edited, and then sent with send or checked with check.`,
		cobra.ExactArgs(1), func(cmd *cobra.Command, args []string) error {
			if err := checkKnown(args[0]); err != nil {
				return err
			}
			_, err := fmt.Fprintf(cmd.OutOrStdout(), "%s\n", callback.Sample(args[0]))
			return err
		})
}

// checkKnown rejects a command that timguard does not know.
func checkKnown(command string) error {
	if _, known := callback.Lookup(command); known {
		return nil
	}
	if suggestion := callback.Suggest(command); suggestion != "" {
		return fmt.Errorf("%s is not a known command: did you mean %s?", command, suggestion)
	}
	return fmt.Errorf("%s is not a known command: list them with tim-callback commands", command)
}
