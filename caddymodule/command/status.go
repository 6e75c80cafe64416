// SPDX-FileCopyrightText: 2026 The timguard authors
// SPDX-License-Identifier: Apache-2.0

package command

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/timguard/timguard/caddymodule/delivery"
	"github.com/timguard/timguard/caddymodule/outbox"
)

func statusCommand() *cobra.Command {
	c := new(adminClient)
	var check bool
	cmd := subcommand("status [--check]", "Shows the state of a running guard", `
Shows the store, the guards and the queues of a running Caddy, through its admin
API. With --check, it exits with 1 if an operator should look at something: the
store does not work, or deliveries wait in a paused queue or for a guard that is
not configured.`, cobra.NoArgs, func(*cobra.Command, []string) error {
		var s delivery.Status
		printed, err := c.call(http.MethodGet, "/tim_callback/status", &s)
		if err != nil {
			return err
		}
		if !printed {
			c.printStatus(s)
		}
		if faults := faultsOf(s); check && len(faults) > 0 {
			return errors.New(strings.Join(faults, "; "))
		}
		return nil
	})
	c.addFlags(cmd)
	cmd.Flags().BoolVar(&check, "check", false, "exit with 1 if an operator should look at something")
	return cmd
}

// statusCommand returns the subcommand of deliveries, which shows the same.
func (c *adminClient) statusCommand() *cobra.Command {
	return subcommand("status", "Shows the number of deliveries by state", "", cobra.NoArgs, func(*cobra.Command, []string) error {
		var s delivery.Status
		if printed, err := c.call(http.MethodGet, "/tim_callback/status", &s); printed || err != nil {
			return err
		}
		c.printStatus(s)
		return nil
	})
}

func (c *adminClient) printStatus(s delivery.Status) {
	var names []string
	for _, g := range s.Guards {
		names = append(names, g.Name)
	}
	fmt.Fprintf(c.out, "store %s at %s, guards %s\n", s.Store, s.StoreAt, strings.Join(names, ", "))
	if s.StoreError == "" {
		for _, state := range outbox.States() {
			fmt.Fprintf(c.out, "%8d %s\n", s.Deliveries[state], state)
		}
	}
	if s.OldestAgeSeconds > 0 {
		fmt.Fprintf(c.out, "the oldest one that awaits delivery is %s old\n", time.Duration(s.OldestAgeSeconds*float64(time.Second)).Round(time.Second))
	}
	for _, q := range s.Queues {
		if q.Paused {
			fmt.Fprintf(c.out, "guard %s%s is paused\n", q.Guard, ofConsumer(q.Consumer))
		}
	}
	for _, fault := range faultsOf(s) {
		fmt.Fprintln(c.out, fault)
	}
}

// faultsOf returns what an operator should look at.
func faultsOf(s delivery.Status) []string {
	var faults []string
	if s.StoreError != "" {
		faults = append(faults, "the store does not work: "+s.StoreError)
	}
	for _, q := range s.Queues {
		if n := q.Waiting(); q.Paused && n > 0 {
			faults = append(faults, fmt.Sprintf("%d wait for guard %s%s, which is paused", n, q.Guard, ofConsumer(q.Consumer)))
		}
	}
	for _, u := range s.Unclaimed {
		faults = append(faults, fmt.Sprintf("%d await guard %s%s, but no running guard of this name has it", u.Deliveries, u.Guard, ofConsumer(u.Consumer)))
	}
	return faults
}

func ofConsumer(name string) string {
	if name == "" {
		return ""
	}
	return " and consumer " + name
}
