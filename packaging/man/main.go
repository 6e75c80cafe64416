// SPDX-FileCopyrightText: 2026 The timguard authors
// SPDX-License-Identifier: Apache-2.0

// Command man is timguard with a command that writes the man pages of the packages,
// "man-pages DIR". In those of Caddy's command manpage, the main page has no description, so
// that whatis does not find it, and everything in angle brackets is lost, because it is HTML
// in the Markdown that they are made from.
package main

import (
	"strings"

	"github.com/caddyserver/caddy/v2"
	caddycmd "github.com/caddyserver/caddy/v2/cmd"
	_ "github.com/caddyserver/caddy/v2/modules/standard"
	"github.com/spf13/cobra"
	"github.com/spf13/cobra/doc"
	"github.com/spf13/pflag"

	_ "github.com/timguard/timguard"
)

func main() {
	caddy.CustomBinaryName = "timguard"
	caddycmd.RegisterCommand(caddycmd.Command{
		Name:  "man-pages",
		Short: "Writes the man pages",
		CobraFunc: func(cmd *cobra.Command) {
			cmd.Hidden = true
			cmd.Args = cobra.ExactArgs(1)
			cmd.RunE = func(cmd *cobra.Command, args []string) error {
				return write(cmd.Root(), args[0])
			}
		},
	})
	caddycmd.Main()
}

func write(root *cobra.Command, dir string) error {
	root.Short = "Caddy with a guard for callbacks of Tencent Cloud Chat (IM)"
	root.DisableAutoGenTag = true
	escape(root)
	return doc.GenManTree(root, &doc.GenManHeader{
		Title:   "TIMGUARD",
		Section: "8",
		Source:  "timguard",
		Manual:  "System Manager's Manual",
	}, dir)
}

// escape escapes the texts of the command and its subcommands that are Markdown.
func escape(cmd *cobra.Command) {
	cmd.Use, cmd.Short, cmd.Long = markdown(cmd.Use), markdown(cmd.Short), markdown(cmd.Long)
	cmd.Flags().VisitAll(func(f *pflag.Flag) { f.Usage = markdown(f.Usage) })
	for _, c := range cmd.Commands() {
		escape(c)
	}
}

// markdown escapes the text, except for blocks of code, which are indented.
func markdown(text string) string {
	lines := strings.Split(text, "\n")
	for i, line := range lines {
		if !strings.HasPrefix(line, "\t") && !strings.HasPrefix(line, "    ") {
			lines[i] = strings.NewReplacer("<", `\<`, "*", `\*`).Replace(line)
		}
	}
	return strings.Join(lines, "\n")
}
