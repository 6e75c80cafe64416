// SPDX-FileCopyrightText: 2026 The timguard authors
// SPDX-License-Identifier: Apache-2.0

package command

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/spf13/cobra"

	"github.com/timguard/timguard/caddymodule/callback"
)

func checkCommand() *cobra.Command {
	var c checker
	cmd := subcommand("check FILE...|- [--command <command>] [--lines] [--json]", "Checks payloads and explains every fault", `
Checks payloads of callbacks against the schemas of their commands, as the guard
does, and explains every fault with its path and position. A file contains one
payload, or one per line; - is standard input. Exits with 1 if the guard would
refuse any payload.`,
		cobra.MinimumNArgs(1), func(cmd *cobra.Command, args []string) error {
			c.out = cmd.OutOrStdout()
			c.named = len(args) > 1
			for _, name := range args {
				if err := c.checkFile(cmd, name); err != nil {
					return err
				}
			}
			return c.err()
		})
	cmd.Flags().StringVar(&c.command, "command", "", "the CallbackCommand of the query (default: that of the payload)")
	cmd.Flags().BoolVar(&c.lines, "lines", false, "check each line as a payload (default: if the first line is valid JSON, or the file name ends with .jsonl or .ndjson)")
	cmd.Flags().BoolVar(&c.asJSON, "json", false, "print each result as a line of JSON")
	return cmd
}

func readFileOrStdin(cmd *cobra.Command, name string) ([]byte, error) {
	if name == "-" {
		return io.ReadAll(cmd.InOrStdin())
	}
	return os.ReadFile(name)
}

// checker checks payloads and prints the results.
type checker struct {
	command       string
	lines, asJSON bool
	named         bool // print the file name with each result
	out           io.Writer

	checked, refused int
}

// checkResult is the result for a payload, as printed with --json.
type checkResult struct {
	File    string         `json:"file"`
	Line    int            `json:"line,omitempty"` // only for files with one payload per line
	OK      bool           `json:"ok"`
	Command string         `json:"command,omitempty"`
	Class   callback.Class `json:"class,omitempty"`
	Known   bool           `json:"known"`
	Faults  []checkFault   `json:"faults,omitempty"`
}

// checkFault is a fault in a payload, which the guard would refuse.
type checkFault struct {
	Reason callback.Reason `json:"reason"`
	Path   string          `json:"path,omitempty"`
	Detail string          `json:"detail"`
	Line   int             `json:"line"`
	Column int             `json:"column"`
}

func (c *checker) checkFile(cmd *cobra.Command, name string) error {
	if c.lines && name == "-" {
		return c.checkLines(name, cmd.InOrStdin()) // as they come: a pipe may have no end
	}
	text, err := readFileOrStdin(cmd, name)
	switch {
	case err != nil:
		return err
	case c.lines || hasLines(name, text):
		return c.checkLines(name, bytes.NewReader(text))
	}
	return c.check(checkResult{File: name}, text, 1)
}

func (c *checker) checkLines(name string, r io.Reader) error {
	c.named = true
	lines := bufio.NewReader(r)
	for i := 1; ; i++ {
		line, err := lines.ReadBytes('\n')
		last := errors.Is(err, io.EOF)
		if err != nil && !last {
			return err
		}
		if line = bytes.TrimSuffix(line, []byte("\n")); len(bytes.TrimSpace(line)) > 0 {
			if err := c.check(checkResult{File: name, Line: i}, line, i); err != nil {
				return err
			}
		}
		if last {
			return nil
		}
	}
}

// hasLines reports whether the text seems to contain one payload per line.
func hasLines(name string, text []byte) bool {
	if slices.Contains([]string{".jsonl", ".ndjson"}, filepath.Ext(name)) {
		return true
	}
	first, rest, _ := bytes.Cut(bytes.TrimSpace(text), []byte("\n"))
	return len(rest) > 0 && jsontext.Value(first).IsValid(jsontext.AllowDuplicateNames(true), jsontext.AllowInvalidUTF8(true))
}

// check checks a body that begins on the given line of its file, and prints the result.
func (c *checker) check(result checkResult, body []byte, firstLine int) error {
	of := said{command: c.command}
	if of.command == "" {
		of = commandIn(body)
	}
	result.Command = of.command
	if result.Command != "" {
		_, result.Known = callback.Lookup(result.Command)
		result.Class = callback.ClassOf(result.Command)
	}
	faults := callback.Faults(body, result.Command)
	if len(faults) == 0 {
		faults = of.faults()
	}
	for _, r := range faults {
		before := body[:min(r.Offset, int64(len(body)))]
		result.Faults = append(result.Faults, checkFault{
			Reason: r.Reason, Path: r.Path, Detail: r.Detail,
			Line:   bytes.Count(before, []byte("\n")) + firstLine,
			Column: len(before) - bytes.LastIndexByte(before, '\n'),
		})
	}
	result.OK = len(result.Faults) == 0
	c.checked++
	if !result.OK {
		c.refused++
	}
	return c.print(result)
}

// said is the CallbackCommand of a payload, and where it is.
type said struct {
	command string
	path    string
	offset  int64
}

// faults returns the fault of a command that cannot be the query's.
func (s said) faults() []*callback.Rejection {
	fault := &callback.Rejection{Reason: callback.ReasonCommand, Path: s.path, Offset: s.offset}
	suggestion := callback.Suggest(s.command)
	switch {
	case s.command == "":
		fault.Detail = "the payload has no CallbackCommand: give that of the query with --command"
	case suggestion != "":
		fault.Detail = fmt.Sprintf("%s is not a known command: did you mean %s?", callback.Printable(s.command), suggestion)
	default:
		return nil
	}
	return []*callback.Rejection{fault}
}

// commandIn returns the CallbackCommand of a payload, which is "" if there is none before the
// first syntax error.
func commandIn(body []byte) said {
	for dec := jsontext.NewDecoder(bytes.NewReader(body)); ; {
		token, err := dec.ReadToken()
		if err != nil {
			return said{}
		}
		isCommand := token.Kind() == '"' && token.String() == "CallbackCommand"
		if at := dec.StackPointer(); isCommand && (at == "/CallbackCommand" || at == "/Events/0/CallbackCommand") {
			value, err := dec.ReadValue()
			if err == nil && value.Kind() == '"' {
				name, _ := jsontext.AppendUnquote(nil, value)
				return said{string(name), string(at), dec.InputOffset() - int64(len(value))}
			}
		}
	}
}

func (c *checker) print(r checkResult) error {
	if c.asJSON {
		return json.NewEncoder(c.out).Encode(r)
	}
	where := ""
	switch {
	case r.Line > 0:
		where = fmt.Sprintf("%s:%d: ", r.File, r.Line)
	case c.named:
		where = r.File + ": "
	}
	for _, f := range r.Faults {
		fmt.Fprintf(c.out, "%srefused as %s: %s\n  at %s, line %d, column %d\n",
			where, f.Reason, f.Detail, orRoot(callback.Printable(f.Path)), f.Line, f.Column)
	}
	switch {
	case r.OK && r.Known:
		fmt.Fprintf(c.out, "%sok: %s (%s)\n", where, r.Command, r.Class)
	case r.OK:
		fmt.Fprintf(c.out, "%sok: strict JSON; %s is not a known command, so nothing else was checked\n", where, callback.Printable(r.Command))
	}
	return nil
}

func orRoot(path string) string {
	if path == "" {
		return "the top level"
	}
	return path
}

// err returns an error if any payload would be refused.
func (c *checker) err() error {
	switch {
	case c.refused == 0:
		return nil
	case c.checked == 1:
		return errors.New("the guard would refuse this payload")
	}
	return fmt.Errorf("the guard would refuse %d of %d payloads", c.refused, c.checked)
}
