// SPDX-FileCopyrightText: 2026 The timguard authors
// SPDX-License-Identifier: Apache-2.0

package caddymodule

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
		Short: "Works with callbacks of Tencent Cloud Chat (IM)",
		Long: `
Tools for the tim_callback handler: they send signed callbacks to a URL, and
print and check payloads without one.`,
		CobraFunc: func(cmd *cobra.Command) {
			cmd.AddCommand(sendCommand(), checkCommand(), sampleCommand(), commandsCommand())
			for _, newCommand := range subcommands {
				cmd.AddCommand(newCommand())
			}
			showCalledName(cmd)
		},
	})
}

var subcommands []func() *cobra.Command

// RegisterSubcommand adds a command below tim-callback. It is for the init functions
// of packages that build on this one.
func RegisterSubcommand(newCommand func() *cobra.Command) {
	subcommands = append(subcommands, newCommand)
}

// showCalledName makes help and usage of the command, and of those below it, show
// the name that the binary was called by, which need not be caddy.
func showCalledName(cmd *cobra.Command) {
	help, usage := cmd.HelpFunc(), cmd.UsageFunc()
	name := func(root *cobra.Command) {
		called := strings.TrimSuffix(filepath.Base(os.Args[0]), ".exe")
		root.Annotations = map[string]string{cobra.CommandDisplayNameAnnotation: called}
	}
	cmd.SetHelpFunc(func(c *cobra.Command, args []string) {
		name(c.Root())
		help(c, args)
	})
	cmd.SetUsageFunc(func(c *cobra.Command) error {
		name(c.Root())
		return usage(c)
	})
}

// Subcommand returns a command whose errors are one line: usage is for those who
// ask for it.
func Subcommand(use, short, long string, args cobra.PositionalArgs, run func(cmd *cobra.Command, args []string) error) *cobra.Command {
	return &cobra.Command{
		Use: use, Short: short, Long: long, Args: args, RunE: run,
		SilenceUsage: true, DisableFlagsInUseLine: true,
	}
}
