// SPDX-FileCopyrightText: 2026 The timguard authors
// SPDX-License-Identifier: Apache-2.0

package command

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/timguard/timguard/caddymodule"
	"github.com/timguard/timguard/caddymodule/callback"
)

// tailer shows calls as they come.
type tailer struct {
	admin  *adminClient
	query  url.Values // of the stream
	bodies bool       // print query and body, too
	last   int        // how many earlier calls to show
	lastID string     // of the last call that was received; "" before the first stream
	color  bool
	to     *forwarder // nil if calls are not forwarded

	mu sync.Mutex // of the output
}

func tailCommand() *cobra.Command {
	t := &tailer{admin: new(adminClient), query: make(url.Values)}
	var token tokenFlag
	var forwardTo string
	var insecure bool
	cmd := subcommand("tail [--guard <name>] [--command <command>] [--reason <reason>] [--conversation <id>] [--last <n>] [--forward-to <url> [--token <token>] [--insecure]] [--address <address>] [--config <file> [--adapter <name>]] [--json [--bodies]]",
		"Shows calls as they come", `
Shows the calls of a running Caddy's guards as they come, one on a line, through
its admin API. It begins again after a reload, or a restart, of the server, with
what it missed, as far as that is remembered.

With --forward-to, it also posts each accepted callback, with its body, to a URL,
such as one on your own machine. The parameters are those of Tencent, signed
afresh if there is a token. Calls go there one after the other. It does not hold
up the calls that are shown: if it is slow, some are not forwarded, and it says
how many.`, cobra.NoArgs, func(cmd *cobra.Command, _ []string) (err error) {
			file, isFile := cmd.OutOrStdout().(*os.File)
			t.color = isFile && term.IsTerminal(int(file.Fd())) && os.Getenv("NO_COLOR") == ""
			if t.bodies && !t.admin.asJSON {
				return errors.New("--bodies: only with --json")
			}
			if t.bodies || forwardTo != "" {
				t.query.Set("bodies", "1")
			}
			if forwardTo != "" {
				if t.to, err = newForwarder(forwardTo, &token, insecure); err != nil {
					return err
				}
				go t.to.run(cmd.Context(), t.printForwarded)
			}
			return t.run(cmd.Context())
		})
	t.admin.addFlags(cmd)
	cmd.Flag("json").Usage = "print each call as a line of JSON"
	flags := cmd.Flags()
	for name, usage := range map[string]string{
		"guard":        "only those of the tim_callback of this name",
		"command":      "only those of this CallbackCommand; as in rules, * at the end matches a prefix, and before and after a class",
		"reason":       "only those that were refused, or would be, for this reason; * is any",
		"conversation": "only those of this group, topic, room or pair of accounts",
	} {
		flags.Func(name, usage, func(value string) error {
			t.query.Set(name, value)
			return nil
		})
	}
	flags.BoolVar(&t.bodies, "bodies", false, "with --json, add the query, without Sign and RequestTime, and the payload to each call that is accepted or has a valid Sign")
	flags.IntVar(&t.last, "last", 0, "how many earlier calls to begin with, up to 1000")
	flags.StringVar(&forwardTo, "forward-to", "", "URL to post accepted callbacks to")
	token.add(flags, "the token to sign forwarded callbacks with; without one, they are unsigned")
	flags.BoolVar(&insecure, "insecure", false, "accept any server certificate of --forward-to")
	return cmd
}

// run shows calls until the context is done, and connects again if the stream ends.
func (t *tailer) run(ctx context.Context) error {
	if t.last < 0 || t.last > caddymodule.MaxCalls {
		return fmt.Errorf("--last: want a number from 0 to %d", caddymodule.MaxCalls)
	}
	if reason := t.query.Get("reason"); reason != "" && reason != "*" && !slices.Contains(callback.Reasons(), callback.Reason(reason)) {
		return fmt.Errorf("--reason: want * or one of %v", callback.Reasons())
	}
	wait := minWait
	for ctx.Err() == nil {
		started, err := t.follow(ctx)
		if t.lastID == "" || errors.Is(err, errResponse) || errors.Is(err, errNotAPI) {
			return err
		}
		wait = min(2*wait, maxWait)
		if started && ctx.Err() == nil {
			t.note("%s: connecting again", err)
			wait = minWait
		}
		select {
		case <-time.After(wait):
		case <-ctx.Done():
		}
	}
	return nil
}

const (
	minWait = 100 * time.Millisecond
	maxWait = 2 * time.Second
)

var (
	errEnded = errors.New("the stream has ended, as at a reload")
	errSlow  = errors.New("the server has dropped this stream, because it was not read fast enough")
)

// follow shows the calls of one stream until it ends. It reports whether it has begun.
func (t *tailer) follow(ctx context.Context) (started bool, err error) {
	headers := make(http.Header)
	if t.lastID != "" {
		headers.Set("Last-Event-ID", t.lastID)
	} else {
		t.query.Set("last", strconv.Itoa(max(1, t.last))) // the ID of the last one tells later what was missed
	}
	resp, err := t.admin.request(http.MethodGet, callsPath+"?"+t.query.Encode(), "text/event-stream", headers)
	if err != nil {
		return false, err
	}
	defer func() { _ = resp.Body.Close() }()
	defer context.AfterFunc(ctx, func() { _ = resp.Body.Close() })()
	first := t.lastID == ""
	if first {
		t.lastID = "0"
		t.printHead()
	}
	hidden := first && t.last == 0 // until the calls that come
	return true, readEvents(resp.Body, func(e event) error {
		switch {
		case e.comment:
			hidden = false
			t.noteBodiless()
			return nil
		case e.name == "slow":
			return errSlow
		}
		t.lastID = e.id
		if hidden {
			return nil
		}
		return t.show(e.data)
	})
}

// event is a server-sent event, or a comment.
type event struct {
	comment        bool
	id, name, data string
}

// readEvents calls do with each event, until one fails or the stream ends.
func readEvents(r io.Reader, do func(e event) error) error {
	lines := bufio.NewReader(r)
	var e event
	for {
		line, err := lines.ReadString('\n')
		if err != nil {
			return errEnded
		}
		switch name, value, _ := strings.Cut(strings.TrimSuffix(line, "\n"), ": "); {
		case line == "\n" && e != (event{}):
			err, e = do(e), event{}
		case strings.HasPrefix(line, ":"):
			err = do(event{comment: true})
		case name == "id":
			e.id = value
		case name == "event":
			e.name = value
		case name == "data":
			e.data = value
		}
		if err != nil {
			return err
		}
	}
}

// show prints a call, and passes it on to be forwarded.
func (t *tailer) show(text string) error {
	var c caddymodule.Call
	if err := json.Unmarshal([]byte(text), &c); err != nil {
		return fmt.Errorf("the server has sent what is not a call: %w", err)
	}
	if t.to != nil {
		t.to.offer(c)
	}
	if !t.admin.asJSON {
		t.println(t.line(c))
		return nil
	}
	if !t.bodies {
		c.Query, c.Body = "", ""
	}
	line, err := json.Marshal(c)
	if err != nil {
		return err
	}
	t.println(string(line))
	return nil
}

const rowFormat = "%-12s  %-18s  %-36s  %-32s  %-16s  %9s"

func (t *tailer) printHead() {
	if !t.admin.asJSON {
		t.println(fmt.Sprintf(rowFormat, "TIME", "ACTION OR REASON", "COMMAND", "CONVERSATION", "FROM", "DURATION"))
	}
}

// columns returns a row for a call with the values, without the ends of long ones.
func columns(at time.Time, what string, values map[string]string, millis float64) string {
	return fmt.Sprintf(rowFormat, at.Local().Format("15:04:05.000"), what, values["command"],
		shortened(values["conversation"], 32), shortened(values["from"], 16), fmt.Sprintf("%.1f ms", millis))
}

func shortened(text string, width int) string {
	if runes := []rune(text); len(runes) > width {
		return string(runes[:width-1]) + "…"
	}
	return text
}

const (
	red    = "\x1b[31m"
	green  = "\x1b[32m"
	yellow = "\x1b[33m"
	plain  = "\x1b[0m"
)

// line returns a call as a line of text. What is refused, or in report mode would be, is shown
// with its reason.
func (t *tailer) line(c caddymodule.Call) string {
	v := c.Values
	what, color := v["action"], green
	switch {
	case v["reason"] != "" && v["action"] == "reject":
		what, color = v["reason"], red
	case v["reason"] != "":
		what, color = v["reason"]+", "+v["action"], yellow
	case v["verdict"] != "":
		what, color = v["action"]+", "+v["verdict"], yellow
	}
	line := columns(c.Time, what, v, 1000*c.Duration)
	if c.Detail != "" {
		line += "  " + callback.Printable(c.Detail)
	}
	if t.color {
		line = strings.Replace(line, what, color+what+plain, 1)
	}
	return line
}

func (t *tailer) println(line string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	fmt.Fprintln(t.admin.out, line)
}

// note prints what is no call.
func (t *tailer) note(format string, args ...any) {
	t.mu.Lock()
	defer t.mu.Unlock()
	fmt.Fprintf(t.admin.log, format+"\n", args...)
}
