// SPDX-FileCopyrightText: 2026 The timguard authors
// SPDX-License-Identifier: Apache-2.0

package caddymodule

import (
	"github.com/spf13/cobra"

	caddycmd "github.com/caddyserver/caddy/v2/cmd"
)

func init() {
	caddycmd.RegisterCommand(caddycmd.Command{
		Name:  "tim-callback",
		Short: "Works with callbacks of Tencent Cloud Chat (IM)",
		Long: `
Tools for the tim_callback handler: they send signed callbacks to a URL, and
check payloads without one.`,
		CobraFunc: func(cmd *cobra.Command) {
			cmd.AddCommand(sendCommand(), checkCommand(), commandsCommand(), deliveriesCommand())
		},
	})
}

// subcommand returns a command whose errors are one line: usage is for those who
// ask for it.
func subcommand(use, short, long string, args cobra.PositionalArgs, run func(cmd *cobra.Command, args []string) error) *cobra.Command {
	return &cobra.Command{
		Use: use, Short: short, Long: long, Args: args, RunE: run,
		SilenceUsage: true, DisableFlagsInUseLine: true,
	}
}
