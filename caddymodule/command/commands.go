// SPDX-FileCopyrightText: 2026 The timguard authors
// SPDX-License-Identifier: Apache-2.0

package command

import (
	"encoding/json"
	"fmt"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/timguard/timguard/caddymodule/callback"
)

func commandsCommand() *cobra.Command {
	var asJSON bool
	cmd := subcommand("commands [--json]", "Lists the known callback commands", `
Lists all known callback commands, with their class, their family, the number of
their fields, what happens at Tencent without a good answer, and the codes that
forbid them. A command whose answer Tencent passes on to a client is marked as
such. With --json, also shows the fields of the payloads, and the pages of
Tencent that they are from. Payloads of commands without fields are only checked
as strict JSON.`,
		cobra.NoArgs, func(cmd *cobra.Command, _ []string) error {
			if asJSON {
				enc := json.NewEncoder(cmd.OutOrStdout())
				enc.SetIndent("", "  ")
				return enc.Encode(callback.Commands())
			}
			w := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 8, 2, ' ', 0)
			fmt.Fprintln(w, "COMMAND\tCLASS\tFAMILY\tFIELDS\tSILENCE\tANSWER")
			for _, c := range callback.Commands() {
				fmt.Fprintf(w, "%s\t%s\t%s\t%d\t%s\t%s\n", c.Name, c.Class, c.Family, len(c.Fields), c.Silence, answers(c))
			}
			return w.Flush()
		})
	cmd.Flags().BoolVar(&asJSON, "json", false, "print everything that is known of them as JSON")
	return cmd
}

// answers says what can be answered besides OK.
func answers(c callback.Command) string {
	if c.Answered {
		return "goes to a client"
	}
	var codes []string
	for _, r := range c.Codes {
		codes = append(codes, r.String())
	}
	if len(codes) == 0 {
		return ""
	}
	return "forbidden with " + strings.Join(codes, ", ")
}
