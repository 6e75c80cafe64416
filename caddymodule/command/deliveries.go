// SPDX-FileCopyrightText: 2026 The timguard authors
// SPDX-License-Identifier: Apache-2.0

package command

import (
	"cmp"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/timguard/timguard/caddymodule/callback"
	"github.com/timguard/timguard/caddymodule/outbox"
)

func deliveriesCommand() *cobra.Command {
	c := new(adminClient)
	cmd := subcommand("deliveries", "Works with stored callbacks", `
Lists, shows, retries and discards the stored callbacks of a running Caddy, and
pauses and resumes their queues, through its admin API. The address of the API is
that of --address, of the configuration given with --config, or of the Caddyfile
in the current directory, as with reload.`, cobra.NoArgs, nil)
	c.addFlags(cmd)
	cmd.AddCommand(c.listCommand(), c.showCommand(), c.retryCommand(), c.discardCommand(), c.pauseCommand("pause"), c.pauseCommand("resume"), c.statusCommand())
	return cmd
}

// filterFlags are the flags that select deliveries.
type filterFlags struct{ values url.Values }

const filterUsage = "[--state <state>] [--guard <name>] [--consumer <name>] [--command <command>] [--conversation <id>] [--since <duration>|<time>] [--before <id>] [--limit <n>]"

func addFilters(flags *pflag.FlagSet) *filterFlags {
	f := &filterFlags{make(url.Values)}
	for name, usage := range map[string]string{
		"state":        "only those in this state: " + strings.Join(stateNames(), ", "),
		"guard":        "only those of the tim_callback of this name",
		"consumer":     "only the copies for this consumer; " + outbox.Own + " is the guard's own backend",
		"command":      "only those of this CallbackCommand",
		"conversation": "only those of this group, topic, room or pair of accounts",
		"since":        "only those stored within this duration, such as 2h, or since this time",
		"before":       "only those with a smaller id, to get the next page",
		"limit":        "how many at most, up to 1000",
	} {
		flags.Func(name, usage, func(value string) error {
			f.values.Set(name, value)
			return nil
		})
	}
	return f
}

func stateNames() []string {
	var names []string
	for _, s := range outbox.States() {
		names = append(names, string(s))
	}
	return names
}

func (c *adminClient) listCommand() *cobra.Command {
	var filters *filterFlags
	cmd := subcommand("list "+filterUsage, "Lists the newest deliveries", `
Lists stored callbacks, the newest first. LAST ERROR is of those that are not
delivered; show prints every failed attempt.`,
		cobra.NoArgs, func(*cobra.Command, []string) error {
			if !filters.values.Has("limit") {
				filters.values.Set("limit", "50")
			}
			var deliveries []outbox.Delivery
			if printed, err := c.call(http.MethodGet, deliveriesPath+"?"+filters.values.Encode(), &deliveries); printed || err != nil {
				return err
			}
			if err := c.printList(deliveries); err != nil || len(deliveries) > 0 {
				return err
			}
			_, err := fmt.Fprintln(c.log, "nothing is listed")
			return err
		})
	filters = addFilters(cmd.Flags())
	return cmd
}

func (c *adminClient) showCommand() *cobra.Command {
	return subcommand("show <id>", "Shows a delivery, with its body and failed attempts", "", cobra.ExactArgs(1), func(_ *cobra.Command, args []string) error {
		return c.eachID(args, http.MethodGet, "", c.printWhole)
	})
}

func (c *adminClient) retryCommand() *cobra.Command {
	return c.changeCommand("retry", "Retries deliveries now, with all their attempts", `
Makes deliveries due immediately, by their ids or all that match the filters.
They get all their attempts again, even if they were delivered, dead or
discarded.`, http.MethodPost, "/retry", "retried")
}

func (c *adminClient) discardCommand() *cobra.Command {
	return c.changeCommand("discard", "Discards deliveries; deletes dead ones", `
Discards deliveries, by their ids or all that match the filters: they are not
attempted again, but stay listed as discarded. Those that were dead are deleted.`, http.MethodDelete, "", "discarded")
}

// changeCommand returns a command that changes deliveries, by their ids or by filters.
func (c *adminClient) changeCommand(name, short, long, method, suffix, done string) *cobra.Command {
	var filters *filterFlags
	cmd := subcommand(name+" <id>... | "+filterUsage, short, long, cobra.ArbitraryArgs, func(_ *cobra.Command, args []string) error {
		switch {
		case len(args) > 0 && len(filters.values) > 0:
			return errors.New("give ids or filters, not both")
		case len(args) > 0:
			return c.eachID(args, method, suffix, func(d outbox.Delivery) error { return c.printList([]outbox.Delivery{d}) })
		case len(filters.values) == 0:
			return errors.New("no filter: give ids, or filters such as --state dead")
		}
		var answer struct{ Deliveries int }
		if printed, err := c.call(method, deliveriesPath+suffix+"?"+filters.values.Encode(), &answer); printed || err != nil {
			return err
		}
		_, err := fmt.Fprintf(c.out, "%d %s\n", answer.Deliveries, done)
		return err
	})
	filters = addFilters(cmd.Flags())
	return cmd
}

// pauseCommand returns the command that pauses or resumes a queue.
func (c *adminClient) pauseCommand(verb string) *cobra.Command {
	short, long := "Pauses a queue", `
Begins no more attempts to deliver the callbacks of a guard to its backend or, with
a consumer, of their copies to it, on all nodes and until resume. They notice
within some seconds. Callbacks are still stored.`
	if verb == "resume" {
		short, long = "Resumes a paused queue", `
Ends a pause.`
	}
	return subcommand(verb+" <guard>[/<consumer>]", short, long, cobra.ExactArgs(1), func(_ *cobra.Command, args []string) error {
		guard, consumer, _ := strings.Cut(args[0], "/")
		path := "/tim_callback/queues/" + url.PathEscape(guard)
		if consumer != "" {
			path += "/" + url.PathEscape(consumer)
		}
		var answer struct{}
		if printed, err := c.call(http.MethodPost, path+"/"+verb, &answer); printed || err != nil {
			return err
		}
		_, err := fmt.Fprintf(c.out, "%s: %sd\n", args[0], verb)
		return err
	})
}

func (c *adminClient) eachID(ids []string, method, suffix string, show func(outbox.Delivery) error) error {
	for _, id := range ids {
		if _, err := strconv.ParseInt(id, 10, 64); err != nil {
			return fmt.Errorf("%q is not the id of a delivery: deliveries list shows them", id)
		}
		var d outbox.Delivery
		printed, err := c.call(method, deliveriesPath+"/"+id+suffix, &d)
		if err == nil && !printed {
			err = show(d)
		}
		if err != nil {
			return fmt.Errorf("delivery %s: %w", id, err)
		}
	}
	return nil
}

func (c *adminClient) printList(deliveries []outbox.Delivery) error {
	table := tabwriter.NewWriter(c.out, 0, 8, 2, ' ', 0)
	fmt.Fprintln(table, "ID\tSTATE\tATTEMPT\tSTORED\tGUARD\tCONSUMER\tCOMMAND\tAPP\tGROUP\tLAST ERROR")
	for _, d := range deliveries {
		fmt.Fprintf(table, "%d\t%s\t%d/%d\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n", d.ID, d.State, d.Attempt, d.MaxAttempts,
			d.Stored.Local().Format(time.DateTime), d.Callback.Guard, d.Callback.Consumer, callback.Printable(d.Callback.Command),
			d.Callback.SdkAppID, strconv.Quote(d.Callback.GroupID), d.LastError())
	}
	return table.Flush()
}

func (c *adminClient) printWhole(d outbox.Delivery) error {
	if err := c.printList([]outbox.Delivery{d}); err != nil {
		return err
	}
	for _, f := range d.Failures {
		fmt.Fprintf(c.out, "attempt %d at %s: %s\n", f.Attempt, f.At.Local().Format(time.DateTime), f.Error)
	}
	switch at := d.Due.Local().Format(time.DateTime); {
	case d.Due.IsZero():
	case time.Now().Before(d.Due):
		fmt.Fprintf(c.out, "next attempt at %s\n", at)
	default: // the queue is paused or busy, or it is not its turn
		fmt.Fprintf(c.out, "next attempt due since %s\n", at)
	}
	_, err := fmt.Fprintf(c.out, "%s %s (Host: %s)\n%s\n", d.Callback.Method, d.Callback.URI, d.Callback.Host, cmp.Or(d.Unreadable, d.Callback.Body))
	return err
}
