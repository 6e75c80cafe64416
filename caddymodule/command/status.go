// SPDX-FileCopyrightText: 2026 The timguard authors
// SPDX-License-Identifier: Apache-2.0

package command

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"maps"
	"math"
	"net/http"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/timguard/timguard/caddymodule"
	"github.com/timguard/timguard/caddymodule/callback"
	"github.com/timguard/timguard/caddymodule/delivery"
	"github.com/timguard/timguard/caddymodule/outbox"
)

const modeReport = "report"

// maxFailing is for how long a delivery may wait in a failing queue: a restart of the backend
// takes less.
const maxFailing = 5 * time.Minute

func statusCommand() *cobra.Command {
	c := new(adminClient)
	var check bool
	cmd := subcommand("status [--check] [--address <address>] [--config <file> [--adapter <name>]] [--json]", "Shows the state of a running guard", `
Shows the guards of a running Caddy, through its admin API: what they accepted and
refused, which tokens are in use, the clock, and the store with its queues. For a
guard in report mode, it shows what enforce would have refused, and says whether
it is safe to switch.

With --check, exits with 1 if an operator should look at something: no guard runs,
the clock is off by more than 30 seconds, a guard that enforces has refused what has
a valid Sign in the last hour, the store does not work, deliveries are
dead (retry or discard them), or deliveries wait in a paused queue, for more than
5 minutes in one whose last 3 attempts or more have failed, or for a guard that is
not configured.`, cobra.NoArgs, func(*cobra.Command, []string) error {
		s, printed, err := c.status()
		if err != nil {
			return err
		}
		faults := append(guardFaults(s), storeFaults(s)...)
		if !printed {
			if err := printStatus(c.out, s); err != nil {
				return err
			}
			for _, fault := range faults {
				fmt.Fprintln(c.out, "look at this: "+fault)
			}
		}
		if check && len(faults) > 0 {
			return errors.New(strings.Join(faults, "; "))
		}
		return nil
	})
	c.addFlags(cmd)
	cmd.Flags().BoolVar(&check, "check", false, "exit with 1 if an operator should look at something")
	return cmd
}

// status returns the status of the running Caddy, which is printed with --json.
func (c *adminClient) status() (s delivery.Status, printed bool, err error) {
	printed, err = c.call(http.MethodGet, statusPath, &s)
	if err == nil && s.Guards == nil { // never, if timguard has answered
		return s, false, c.notAPI()
	}
	return s, printed, err
}

func printStatus(w io.Writer, s delivery.Status) error {
	table := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	for _, g := range s.Guards {
		printGuard(table, g)
	}
	if s.Store == "" {
		fmt.Fprintln(table, "nothing is stored")
		return table.Flush()
	}
	fmt.Fprintf(table, "store %s at %s\n", s.Store, s.StoreAt)
	if s.StoreError != "" {
		return table.Flush()
	}
	fmt.Fprintf(table, "  deliveries\t%s\n", listed(byName(s.Deliveries)))
	if err := table.Flush(); err != nil || len(s.Queues) == 0 {
		return err
	}
	fmt.Fprintln(table, "QUEUE\tWAITING\tOLDEST\tDEAD\tNOTE")
	for _, q := range s.Queues {
		oldest := "-"
		if q.OldestAgeSeconds > 0 {
			oldest = seconds(q.OldestAgeSeconds).String()
		}
		fmt.Fprintf(table, "%s%s\t%d\t%s\t%d\t%s\n", q.Guard, strings.TrimSuffix("/"+q.Consumer, "/"), q.Waiting(), oldest, q.Deliveries[outbox.Dead], traits(q))
	}
	return table.Flush()
}

func printGuard(w io.Writer, g caddymodule.Status) {
	fmt.Fprintf(w, "guard %s\n", g.Name)
	fmt.Fprintf(w, "  mode\t%s, counting since %s\n", g.Mode, g.Since.Local().Format(time.DateTime))
	for _, app := range g.Apps {
		fmt.Fprintf(w, "  app %s\t%s\n", callback.Printable(app.SdkAppID), tokens(app))
	}
	done := "accepted"
	if g.Mode == modeReport {
		done = "let through"
	}
	fmt.Fprintf(w, "  %s\t%s\n", done, counted(withoutReject(g.Total.Actions), withoutReject(g.Hour.Actions)))
	fmt.Fprintf(w, "  refused\t%s\n", counted(g.Total.Refused, g.Hour.Refused))
	if g.Mode == modeReport {
		fmt.Fprintf(w, "  would refuse\t%s\n", counted(g.Total.WouldRefuse, g.Hour.WouldRefuse))
		fmt.Fprintf(w, "  enforce\t%s\n", advice(g))
	}
	fmt.Fprintf(w, "  fallbacks\t%s\n", counted(g.Total.Fallbacks, g.Hour.Fallbacks))
	fmt.Fprintf(w, "  clock\t%s\n", clock(g.SkewSeconds))
}

func tokens(app caddymodule.AppStatus) string {
	if app.Unsigned {
		return "unsigned"
	}
	var all []string
	for i, use := range app.Tokens {
		text := fmt.Sprintf("token %d never used", i+1)
		if use.Uses > 0 {
			text = fmt.Sprintf("token %d used %s, last at %s", i+1, times(use.Uses), use.Last.Local().Format(time.DateTime))
		}
		all = append(all, text)
	}
	return strings.Join(all, "; ")
}

func times(n int) string {
	if n == 1 {
		return "once"
	}
	return fmt.Sprintf("%d times", n)
}

func withoutReject(actions map[string]int) map[string]int {
	accepted := maps.Clone(actions)
	delete(accepted, "reject")
	return accepted
}

// plural returns the form of a word for the number.
func plural(n int, one, many string) string {
	if n == 1 {
		return one
	}
	return many
}

// counted returns counts with their sum, and how many of them are of the last hour.
func counted(total, hour map[string]int) string {
	switch all, recent := caddymodule.Sum(total), caddymodule.Sum(hour); all {
	case 0:
		return "none"
	case recent:
		return fmt.Sprintf("%d, %s the last hour: %s", all, plural(all, "in", "all in"), listed(total))
	case 1:
		return "1, not in the last hour: " + listed(total)
	default:
		return fmt.Sprintf("%d, %d of them in the last hour: %s", all, recent, listed(total))
	}
}

// listed returns counts, the largest first.
func listed(counts map[string]int) string {
	names := slices.Sorted(maps.Keys(counts))
	slices.SortStableFunc(names, func(a, b string) int { return counts[b] - counts[a] })
	var all []string
	for _, name := range names {
		if counts[name] > 0 {
			all = append(all, fmt.Sprintf("%s %d", callback.Printable(name), counts[name]))
		}
	}
	return cmp.Or(strings.Join(all, ", "), "none")
}

func byName(states map[outbox.State]int) map[string]int {
	counts := make(map[string]int)
	for state, n := range states {
		counts[string(state)] = n
	}
	return counts
}

func seconds(s float64) time.Duration {
	return time.Duration(s * float64(time.Second)).Round(time.Second)
}

func clock(skew *float64) string {
	switch {
	case skew == nil:
		return "not known until a callback with a valid Sign comes"
	case *skew < 0:
		return fmt.Sprintf("%.1f s behind Tencent's", -*skew)
	}
	return fmt.Sprintf("%.1f s ahead of Tencent's, which includes the way from there", *skew)
}

func traits(q delivery.QueueStatus) string {
	var all []string
	if q.Ordered {
		all = append(all, "ordered")
	}
	if q.Paused {
		all = append(all, "paused")
	}
	if q.Failing() {
		all = append(all, strings.TrimSuffix("failing: "+lastFailure(q, maxNote), ": "))
	}
	return cmp.Or(strings.Join(all, ", "), "-")
}

// maxNote is how much of an error the table of queues shows; deliveries list shows all of it.
const maxNote = 60

func lastFailure(q delivery.QueueStatus, most int) string {
	if q.LastFailure == nil {
		return ""
	}
	return shortened(callback.Printable(q.LastFailure.Error), most)
}

// strangers are the reasons for refusing what has no valid Sign. A callback that is refused
// for another one is genuine, if its app has a token.
var strangers = []callback.Reason{
	callback.ReasonMethod, callback.ReasonQuery, callback.ReasonApp, callback.ReasonUnsigned, callback.ReasonStale, callback.ReasonSign,
}

// genuine returns the counts of callbacks that are not strangers'.
func genuine(refused map[string]int) map[string]int {
	counts := maps.Clone(refused)
	for _, reason := range strangers {
		delete(counts, string(reason))
	}
	return counts
}

// advice says whether a guard in report mode can be switched to enforce.
func advice(g caddymodule.Status) string {
	now, ever := genuine(g.Hour.WouldRefuse), genuine(g.Total.WouldRefuse)
	switch {
	case caddymodule.Sum(g.Hour.Actions) == 0:
		return "not yet: no callback has come in the last hour"
	case caddymodule.Sum(now) > 0:
		return fmt.Sprintf("not yet: it would have refused genuine callbacks in the last hour: %s", listed(now))
	case !signs(g):
		return "not yet: no callback with a valid Sign has come in the last hour; is authentication on in the console, with this token?"
	case g.SkewSeconds != nil && math.Abs(*g.SkewSeconds) > caddymodule.MaxSkewSeconds:
		return "not yet: the clock is off, so callbacks may be refused as stale"
	}
	text := "safe to switch, as far as the last hour shows"
	if n := caddymodule.Sum(g.Hour.WouldRefuse); n > 0 {
		text = fmt.Sprintf("safe to switch, if Tencent did not send what it would have refused in the last hour: %s", listed(g.Hour.WouldRefuse))
	}
	if caddymodule.Sum(ever) > 0 {
		text += fmt.Sprintf("; before, it would have refused genuine callbacks: %s", listed(ever))
	}
	n := len(g.Commands)
	return fmt.Sprintf("%s; counting for %s, %d %s seen", text, time.Since(g.Since).Round(time.Second), n, plural(n, "command", "commands"))
}

// signs reports whether a token has signed a callback in the last hour, or no app has one.
func signs(g caddymodule.Status) bool {
	none := true
	for _, app := range g.Apps {
		for _, use := range app.Tokens {
			none = false
			if time.Since(use.Last) < time.Hour {
				return true
			}
		}
	}
	return none
}

// guardFaults returns what an operator should look at of the guards.
func guardFaults(s delivery.Status) (faults []string) {
	if len(s.Guards) == 0 {
		faults = append(faults, "no guard runs")
	}
	for _, g := range s.Guards {
		if g.SkewSeconds != nil && math.Abs(*g.SkewSeconds) > caddymodule.MaxSkewSeconds {
			faults = append(faults, fmt.Sprintf("the clock is %s, as guard %s measures", clock(g.SkewSeconds), g.Name))
		}
		signed := genuine(g.Hour.RefusedSigned)
		delete(signed, string(callback.ReasonBody)) // the connection's fault
		if n := caddymodule.Sum(signed); n > 0 && g.Mode != modeReport {
			faults = append(faults, fmt.Sprintf("guard %s refused %d genuine %s in the last hour: %s", g.Name, n, plural(n, "callback", "callbacks"), listed(signed)))
		}
	}
	if n := s.Deliveries[outbox.Dead]; n > 0 {
		faults = append(faults, fmt.Sprintf("%d %s", n, plural(n, "delivery is dead: retry or discard it", "deliveries are dead: retry or discard them")))
	}
	return faults
}

// storeFaults returns what an operator should look at of the store.
func storeFaults(s delivery.Status) (faults []string) {
	if s.StoreError != "" {
		faults = append(faults, "the store does not work: "+s.StoreError)
	}
	for _, q := range s.Queues {
		if n := q.Waiting(); q.Paused && n > 0 {
			faults = append(faults, fmt.Sprintf("%d %s for guard %s%s, which is paused", n, plural(n, "waits", "wait"), q.Guard, ofConsumer(q.Consumer)))
		}
	}
	for _, q := range s.Queues {
		if q.Failing() && q.OldestAgeSeconds > maxFailing.Seconds() {
			faults = append(faults, strings.TrimSuffix(fmt.Sprintf("the last %d attempts for guard %s%s failed, and a delivery has waited for %s: %s",
				q.ConsecutiveFailures, q.Guard, ofConsumer(q.Consumer), seconds(q.OldestAgeSeconds), lastFailure(q, 4*maxNote)), ": "))
		}
	}
	for _, u := range s.Unclaimed {
		faults = append(faults, fmt.Sprintf("%d %s guard %s%s, but no running guard of this name has it", u.Deliveries, plural(u.Deliveries, "awaits", "await"), u.Guard, ofConsumer(u.Consumer)))
	}
	return faults
}

func ofConsumer(name string) string {
	if name == "" {
		return ""
	}
	return " and consumer " + name
}

// statusCommand returns the subcommand of deliveries, which shows the store.
func (c *adminClient) statusCommand() *cobra.Command {
	return subcommand("status", "Shows the number of deliveries by state", "", cobra.NoArgs, func(*cobra.Command, []string) error {
		s, printed, err := c.status()
		if printed || err != nil {
			return err
		}
		c.printStore(s)
		return nil
	})
}

func (c *adminClient) printStore(s delivery.Status) {
	if s.Store == "" {
		fmt.Fprintln(c.out, "the running configuration does not store callbacks")
		return
	}
	var names []string
	for _, g := range s.Guards {
		names = append(names, g.Name)
	}
	fmt.Fprintf(c.out, "store %s at %s, %s %s\n", s.Store, s.StoreAt, plural(len(names), "guard", "guards"), strings.Join(names, ", "))
	if s.StoreError == "" {
		for _, state := range outbox.States() {
			fmt.Fprintf(c.out, "%8d %s\n", s.Deliveries[state], state)
		}
	}
	if s.OldestAgeSeconds > 0 {
		fmt.Fprintf(c.out, "the oldest one that awaits delivery is %s old\n", seconds(s.OldestAgeSeconds))
	}
	for _, q := range s.Queues {
		if q.Paused {
			fmt.Fprintf(c.out, "guard %s%s is paused\n", q.Guard, ofConsumer(q.Consumer))
		}
	}
	for _, fault := range storeFaults(s) {
		fmt.Fprintln(c.out, fault)
	}
}
