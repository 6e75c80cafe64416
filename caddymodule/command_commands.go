// SPDX-FileCopyrightText: 2026 The timguard authors
// SPDX-License-Identifier: Apache-2.0

package caddymodule

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
	cmd := Subcommand("commands [--json]", "Lists the known callback commands", `
Lists all known callback commands, with their class, their family and the codes
that forbid them; with --json, also the fields of their payloads. Payloads of
commands without fields are only checked as strict JSON.`,
		cobra.NoArgs, func(cmd *cobra.Command, _ []string) error {
			if asJSON {
				enc := json.NewEncoder(cmd.OutOrStdout())
				enc.SetIndent("", "  ")
				return enc.Encode(callback.Commands())
			}
			w := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 8, 2, ' ', 0)
			fmt.Fprintln(w, "COMMAND\tCLASS\tFAMILY\tFIELDS\tFORBIDDEN WITH")
			for _, c := range callback.Commands() {
				fmt.Fprintf(w, "%s\t%s\t%s\t%d\t%s\n", c.Name, c.Class, c.Family, len(c.Fields), codes(c))
			}
			return w.Flush()
		})
	cmd.Flags().BoolVar(&asJSON, "json", false, "print name, class, family, fields and codes as JSON")
	return cmd
}

func codes(c callback.Command) string {
	var all []string
	for _, r := range c.Codes {
		all = append(all, r.String())
	}
	return strings.Join(all, ", ")
}
