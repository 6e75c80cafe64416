// SPDX-FileCopyrightText: 2026 The timguard authors
// SPDX-License-Identifier: Apache-2.0

package console

import (
	"cmp"
	"slices"
	"time"

	"github.com/timguard/timguard/caddymodule"
)

// The size of the chart of an hour, in the units of its SVG.
const (
	chartHeight = 72
	chartStep   = 10 // of a minute
	chartBar    = 7
)

// chart is a bar chart of the minutes of an hour.
type chart struct {
	Bars                      []bar
	Width, Height, Bar        int
	Calls, Refused, PerMinute int // PerMinute is the most in a minute
}

// bar is one minute: refused calls on top of the others.
type bar struct {
	X                       int
	Y, Height               float64
	RefusedY, RefusedHeight float64
	Calls, Refused          int
	Time                    time.Time
}

// chartOf returns the chart of the minutes.
func chartOf(minutes []caddymodule.Minute) chart {
	c := chart{Width: chartStep * len(minutes), Height: chartHeight, Bar: chartBar}
	for _, m := range minutes {
		c.Calls, c.Refused, c.PerMinute = c.Calls+m.Calls, c.Refused+m.Refused, max(c.PerMinute, m.Calls)
	}
	for i, m := range minutes {
		scale := float64(chartHeight) / float64(max(c.PerMinute, 1))
		total, refused := float64(m.Calls)*scale, float64(m.Refused)*scale
		if m.Refused > 0 {
			refused = max(refused, 2) // so that one among thousands is seen
			total = max(total, refused)
		}
		if m.Calls > 0 {
			total = max(total, 1)
		}
		c.Bars = append(c.Bars, bar{
			X: i * chartStep, Y: chartHeight - total + refused, Height: total - refused, RefusedY: chartHeight - total, RefusedHeight: refused,
			Calls: m.Calls, Refused: m.Refused, Time: m.Time.UTC(),
		})
	}
	return c
}

// share is one of several counts.
type share struct {
	Name    string
	N       int
	Percent float64 // of the largest one
}

// sharesOf returns counts, the largest first.
func sharesOf(counts map[string]int) []share {
	most := 0
	var all []share
	for name, n := range counts {
		if n > 0 {
			all = append(all, share{Name: name, N: n})
			most = max(most, n)
		}
	}
	for i := range all {
		all[i].Percent = max(100*float64(all[i].N)/float64(most), 1)
	}
	slices.SortFunc(all, func(a, b share) int { return cmp.Or(cmp.Compare(b.N, a.N), cmp.Compare(a.Name, b.Name)) })
	return all
}
