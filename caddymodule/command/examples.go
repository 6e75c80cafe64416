// SPDX-FileCopyrightText: 2026 The timguard authors
// SPDX-License-Identifier: Apache-2.0

package command

import (
	"strings"

	"github.com/spf13/cobra"
)

// examples are the arguments of examples, by the path of the command below tim-callback.
var examples = map[string][]string{
	"send": {
		"http://localhost:8080/callback --token xxxxyyyy",
		"https://im.example.com/callback --app 1400000000 --token '{file./etc/timguard/token}' --count 1000 --rate 50",
	},
	"probe":              {"https://im.example.com/callback --app 1400000000 --token '{file./etc/timguard/token}'"},
	"check":              {"recall.json", "--lines callbacks.jsonl"},
	"sample":             {"Group.CallbackBeforeSendMsg"},
	"commands":           {"", "--json"},
	"status":             {"", "--check"},
	"tail":               {"--reason '*'", "--forward-to http://localhost:9000/callback --token xxxxyyyy"},
	"keygen":             {">/etc/timguard/key"},
	"deliveries list":    {"--state dead --since 2h"},
	"deliveries show":    {"4711"},
	"deliveries retry":   {"4711", "--state dead --since 2h"},
	"deliveries discard": {"4711", "--guard old-name"},
	"deliveries pause":   {"default", "default/archive"},
	"deliveries resume":  {"default"},
	"deliveries status":  {""},
}

// addExamples gives the subcommands their examples.
func addExamples(cmd *cobra.Command, path string) {
	for _, c := range cmd.Commands() {
		path := strings.TrimSpace(path + " " + c.Name())
		var lines []string
		for _, arguments := range examples[path] {
			lines = append(lines, strings.TrimRight("  "+binaryName()+" tim-callback "+path+" "+arguments, " "))
		}
		c.Example = strings.Join(lines, "\n")
		addExamples(c, path)
	}
}
