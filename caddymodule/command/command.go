// SPDX-FileCopyrightText: 2026 The timguard authors
// SPDX-License-Identifier: Apache-2.0

// Package command provides the command tim-callback, whose subcommands send, check and
// show callbacks, and work with the stored ones of a running server.
package command

import (
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	caddycmd "github.com/caddyserver/caddy/v2/cmd"
)

func init() {
	caddycmd.RegisterCommand(caddycmd.Command{
		Name:  "tim-callback",
		Short: "Tools for callbacks of Tencent Cloud Chat (IM)",
		Long: `
Tools for the tim_callback handler, which send signed callbacks to a URL, try it as
a stranger would, print and check payloads, show the guards of a running server
and the calls as they come, and list, retry and discard its stored callbacks.`,
		CobraFunc: func(cmd *cobra.Command) {
			cmd.AddCommand(subcommands()...)
			addExamples(cmd, "")
			showBinaryName(cmd)
		},
	})
}

func subcommands() []*cobra.Command {
	return []*cobra.Command{
		sendCommand(), checkCommand(), sampleCommand(), commandsCommand(), probeCommand(), tailCommand(), statusCommand(), deliveriesCommand(), keygenCommand(),
	}
}

// showBinaryName makes help and usage of the command and its subcommands show the name
// of the binary, which is not necessarily caddy.
func showBinaryName(cmd *cobra.Command) {
	help, usage := cmd.HelpFunc(), cmd.UsageFunc()
	setName := func(root *cobra.Command) {
		root.Annotations = map[string]string{cobra.CommandDisplayNameAnnotation: binaryName()}
	}
	cmd.SetHelpFunc(func(c *cobra.Command, args []string) {
		setName(c.Root())
		help(c, args)
	})
	cmd.SetUsageFunc(func(c *cobra.Command) error {
		setName(c.Root())
		return usage(c)
	})
}

func binaryName() string { return strings.TrimSuffix(filepath.Base(os.Args[0]), ".exe") }

// subcommand returns a command that does not print its usage with every error.
func subcommand(use, short, long string, args cobra.PositionalArgs, run func(cmd *cobra.Command, args []string) error) *cobra.Command {
	return &cobra.Command{
		Use: use, Short: short, Long: long, Args: args, RunE: run,
		SilenceUsage: true, DisableFlagsInUseLine: true,
	}
}
