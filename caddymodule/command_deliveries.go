// SPDX-FileCopyrightText: 2026 The timguard authors
// SPDX-License-Identifier: Apache-2.0

package caddymodule

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	caddycmd "github.com/caddyserver/caddy/v2/cmd"

	"github.com/timguard/timguard/caddymodule/outbox"
)

// adminClient calls the admin API of a running Caddy.
type adminClient struct {
	address string
	config  string
	adapter string
	asJSON  bool
}

func deliveriesCommand() *cobra.Command {
	c := new(adminClient)
	cmd := subcommand("deliveries", "Works with stored callbacks", `
Lists, shows, retries and discards the stored callbacks of a running Caddy,
through its admin API.`, cobra.NoArgs, nil)
	flags := cmd.PersistentFlags()
	flags.StringVar(&c.address, "address", "", "address of the admin API (default: what the configuration says, or localhost:2019)")
	flags.StringVar(&c.config, "config", "", "configuration file to read the address from")
	flags.StringVar(&c.adapter, "adapter", "", "name of the configuration's adapter")
	flags.BoolVar(&c.asJSON, "json", false, "print what the admin API answers")
	cmd.AddCommand(c.listCommand(),
		c.itemCommand("show <id>", "Shows one, with its body and failed attempts", http.MethodGet, ""),
		c.itemCommand("retry <id>", "Makes one due at once", http.MethodPost, "/retry"),
		c.itemCommand("discard <id>", "Gives one up; a dead one is deleted", http.MethodDelete, ""))
	return cmd
}

func (c *adminClient) listCommand() *cobra.Command {
	var state string
	var limit int
	var before int64
	cmd := subcommand("list [--state <state>] [--limit <n>] [--before <id>]", "Lists the newest", `
Lists stored callbacks, the newest first. States are pending, running, retrying,
delivered, dead and discarded.`,
		cobra.NoArgs, func(cmd *cobra.Command, _ []string) error {
			query := url.Values{"limit": {strconv.Itoa(limit)}}
			if state != "" {
				query.Set("state", state)
			}
			if before > 0 {
				query.Set("before", strconv.FormatInt(before, 10))
			}
			var items []outbox.Item
			w := cmd.OutOrStdout()
			if done, err := c.call(w, http.MethodGet, "/tim_callback/deliveries?"+query.Encode(), &items); done || err != nil {
				return err
			}
			return printItems(w, items)
		})
	cmd.Flags().StringVar(&state, "state", "", "only those in this state")
	cmd.Flags().IntVar(&limit, "limit", 50, "how many at most")
	cmd.Flags().Int64Var(&before, "before", 0, "only those with a smaller id, for the next page")
	return cmd
}

func (c *adminClient) itemCommand(use, short, method, suffix string) *cobra.Command {
	return subcommand(use, short, "", cobra.ExactArgs(1), func(cmd *cobra.Command, args []string) error {
		id, err := strconv.ParseInt(args[0], 10, 64)
		if err != nil {
			return fmt.Errorf("%q is not the id of a delivery: deliveries list shows them", args[0])
		}
		var item outbox.Item
		w := cmd.OutOrStdout()
		if done, err := c.call(w, method, fmt.Sprintf("/tim_callback/deliveries/%d%s", id, suffix), &item); done || err != nil {
			return err
		}
		return printItem(w, item, method == http.MethodGet)
	})
}

// call makes the call and reads the answer into value, or prints it as it is
// with --json, and then is done.
func (c *adminClient) call(w io.Writer, method, uri string, value any) (done bool, err error) {
	address, err := caddycmd.DetermineAdminAPIAddress(c.address, nil, c.config, c.adapter)
	if err != nil {
		return false, err
	}
	resp, err := caddycmd.AdminAPIRequest(address, method, uri, nil, nil)
	if err != nil {
		return false, err
	}
	defer func() { _ = resp.Body.Close() }()
	if c.asJSON {
		_, err := io.Copy(w, resp.Body)
		return true, err
	}
	return false, json.NewDecoder(resp.Body).Decode(value)
}

func printItems(w io.Writer, items []outbox.Item) error {
	table := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	fmt.Fprintln(table, "ID\tSTATE\tATTEMPT\tSTORED\tCOMMAND\tAPP\tGROUP\tLAST ERROR")
	for _, i := range items {
		fmt.Fprintf(table, "%d\t%s\t%d/%d\t%s\t%s\t%s\t%s\t%s\n", i.ID, i.State, i.Attempt, i.MaxAttempts,
			i.Stored.Local().Format(time.DateTime), i.Callback.Command, i.Callback.SDKAppID, strconv.Quote(i.Callback.GroupID), lastError(i))
	}
	return table.Flush()
}

func lastError(i outbox.Item) string {
	if len(i.Failures) == 0 {
		return ""
	}
	return i.Failures[len(i.Failures)-1].Error
}

func printItem(w io.Writer, i outbox.Item, whole bool) error {
	if err := printItems(w, []outbox.Item{i}); err != nil || !whole {
		return err
	}
	for _, f := range i.Failures {
		fmt.Fprintf(w, "attempt %d at %s: %s\n", f.Attempt, f.At.Local().Format(time.DateTime), f.Error)
	}
	_, err := fmt.Fprintf(w, "%s %s (Host: %s)\n%s\n", i.Callback.Method, i.Callback.URI, i.Callback.Host, i.Callback.Body)
	return err
}
