// SPDX-FileCopyrightText: 2026 The timguard authors
// SPDX-License-Identifier: Apache-2.0

package caddymodule

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/spf13/cobra"

	"github.com/timguard/timguard/caddymodule/callback"
)

func checkCommand() *cobra.Command {
	var command string
	var asJSON bool
	cmd := subcommand("check FILE|- [--command <command>] [--json]", "Checks a payload and explains its first fault", `
Checks a callback's payload against the schema of its command, as the guard
does, and explains the first fault with its path and position. Reads standard
input for -. Exits with 1 if the guard would refuse the payload.`,
		cobra.ExactArgs(1), func(cmd *cobra.Command, args []string) error {
			body, err := readFileOrStdin(cmd, args[0])
			if err != nil {
				return err
			}
			if command == "" {
				command = commandIn(body)
			}
			return printCheck(cmd.OutOrStdout(), checkBody(body, command), asJSON)
		})
	cmd.Flags().StringVar(&command, "command", "", "the CallbackCommand of the query (default: what the payload says)")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print the result as JSON")
	return cmd
}

func readFileOrStdin(cmd *cobra.Command, name string) ([]byte, error) {
	if name == "-" {
		return io.ReadAll(cmd.InOrStdin())
	}
	return os.ReadFile(name)
}

// commandIn returns the command that a payload claims, empty if there is none
// before the first fault.
func commandIn(body []byte) string {
	for dec := jsontext.NewDecoder(bytes.NewReader(body)); ; {
		token, err := dec.ReadToken()
		if err != nil {
			return ""
		}
		isCommand := token.Kind() == '"' && token.String() == "CallbackCommand"
		if at := dec.StackPointer(); isCommand && (at == "/CallbackCommand" || at == "/Events/0/CallbackCommand") {
			if token, err = dec.ReadToken(); err == nil && token.Kind() == '"' {
				return token.String()
			}
		}
	}
}

// checkResult is the outcome of a check, as --json prints it.
type checkResult struct {
	OK      bool            `json:"ok"`
	Command string          `json:"command,omitempty"`
	Class   callback.Class  `json:"class,omitempty"`
	Known   bool            `json:"known"`
	Reason  callback.Reason `json:"reason,omitempty"`
	Path    string          `json:"path,omitempty"`
	Detail  string          `json:"detail,omitempty"`
	Line    int             `json:"line,omitempty"`
	Column  int             `json:"column,omitempty"`
}

func checkBody(body []byte, command string) checkResult {
	result := checkResult{OK: true, Command: command}
	_, result.Known = callback.Lookup(command)
	if command != "" {
		result.Class = callback.ClassOf(command)
	}
	_, err := callback.Inspect(body, command)
	if fault, ok := errors.AsType[*callback.Rejection](err); ok {
		result.OK = false
		result.Reason, result.Path, result.Detail = fault.Reason, fault.Path, fault.Detail
		before := body[:min(fault.Offset, int64(len(body)))]
		result.Line = bytes.Count(before, []byte("\n")) + 1
		result.Column = len(before) - bytes.LastIndexByte(before, '\n')
	}
	return result
}

var errRefused = errors.New("the guard would refuse this payload")

func printCheck(w io.Writer, result checkResult, asJSON bool) error {
	switch {
	case asJSON:
		if err := json.NewEncoder(w).Encode(result); err != nil {
			return err
		}
	case !result.OK:
		fmt.Fprintf(w, "refused as %s: %s\n  at %s, line %d, column %d\n", result.Reason, result.Detail, orRoot(result.Path), result.Line, result.Column)
	case result.Command == "":
		return errors.New("the payload names no CallbackCommand: give the query's with --command")
	case !result.Known && knownAs(result.Command) != "":
		return fmt.Errorf("%s is not a known command: did you mean %s?", result.Command, knownAs(result.Command))
	case !result.Known:
		fmt.Fprintf(w, "ok: strict JSON; %s is not a known command, so nothing more was checked\n", result.Command)
	default:
		fmt.Fprintf(w, "ok: %s (%s)\n", result.Command, result.Class)
	}
	if !result.OK {
		return errRefused
	}
	return nil
}

// knownAs returns the known command that the name is in another case, if any.
func knownAs(name string) string {
	for _, known := range callback.Commands() {
		if strings.EqualFold(known.Name, name) {
			return known.Name
		}
	}
	return ""
}

func orRoot(path string) string {
	if path == "" {
		return "the top"
	}
	return path
}
