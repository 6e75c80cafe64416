// SPDX-FileCopyrightText: 2026 The timguard authors
// SPDX-License-Identifier: Apache-2.0

package console

import (
	"fmt"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/timguard/timguard/caddymodule/internal/guardtest"
	"github.com/timguard/timguard/caddymodule/outbox"
)

// manyRows are SQL statements that make of a dead row and a delivered one as many of 1 KB as
// their argument says, each hundred of a conversation of its own.
var manyRows = map[string]string{
	"sqlite": `WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < %d)
		INSERT INTO river_job (args, attempt, attempted_at, attempted_by, created_at, errors, finalized_at, kind, max_attempts, metadata, priority, queue, scheduled_at, state, tags)
		SELECT json_set(args, '$.conversation', '@TGS#' || (i / 100), '$.body', hex(zeroblob(512))), attempt, attempted_at, attempted_by, created_at, errors, finalized_at, kind, max_attempts, metadata, priority, queue, scheduled_at, state, tags
		FROM n, river_job j WHERE j.id <= 2 AND j.state = CASE WHEN i %% 10 = 0 THEN 'discarded' ELSE 'completed' END`,
	"postgres": `INSERT INTO river_job (args, attempt, attempted_at, attempted_by, created_at, errors, finalized_at, kind, max_attempts, metadata, priority, queue, scheduled_at, state, tags)
		SELECT args || jsonb_build_object('conversation', '@TGS#' || (i / 100), 'body', repeat('0', 1024)), attempt, attempted_at, attempted_by, created_at, errors, finalized_at, kind, max_attempts, metadata, priority, queue, scheduled_at, state, tags
		FROM generate_series(1, %d) i, river_job j WHERE j.id <= 2 AND j.state = (CASE WHEN i %% 10 = 0 THEN 'discarded' ELSE 'completed' END)::%s.river_job_state`,
}

// With very many rows, each page is there in time. The long form has 100,000, for which the
// bound is meant.
func TestEndToEndDeliveryConsoleWithManyRows(t *testing.T) {
	t.Parallel()
	const bound = 300 * time.Millisecond
	rows := guardtest.InLongForm(3000, 100000)
	for store, statement := range manyRows {
		t.Run(store, func(t *testing.T) { // not beside the other, because it measures
			b := guardtest.NewBackend(t, guardtest.Accepts)
			s := guardtest.NewSite(t, withConsole(guardtest.Delivering(b)))
			s.Options = "max_attempts 1"
			schema := ""
			if store == "postgres" {
				var dsn string
				dsn, schema = guardtest.PostgresSchema(t, "")
				s.Options += "\nstore postgres " + dsn
			}
			process := s.Start(t)
			guardtest.NewPoster(t, s.Listen).WantOK(t, "delivered")
			s.WantState(t, outbox.Delivered, 1)
			b.Will(guardtest.Answers(http.StatusInternalServerError, ""))
			guardtest.NewPoster(t, s.Listen).WantOK(t, "dead")
			s.WantState(t, outbox.Dead, 1)
			if store == "postgres" {
				const batch = 10000
				for range max(rows/batch, 1) {
					guardtest.ExecPostgres(t, "SET search_path TO "+schema+"; "+fmt.Sprintf(statement, min(rows, batch), schema))
				}
				guardtest.ExecPostgres(t, "ANALYZE "+schema+".river_job") // as the server does by itself after a while
			} else if _, err := s.OpenStore(t).Exec(fmt.Sprintf(statement, rows)); err != nil {
				t.Fatal(err)
			}
			v := newVisitor(t, s)
			for _, path := range []string{
				"/", "/deliveries", "/deliveries?state=dead", "/deliveries?state=retrying", "/deliveries?consumer=-&state=delivered",
				"/deliveries?conversation=" + url.QueryEscape("@TGS#7"), "/deliveries?conversation=none", "/deliveries?command=none", "/deliveries?since=1h",
				"/deliveries?before=100", "/deliveries/all/retry?state=dead", "/deliveries/all/retry?conversation=" + url.QueryEscape("@TGS#7"),
			} {
				v.want(http.StatusOK, "/console"+path)
				var took []time.Duration
				for range 5 {
					start := time.Now()
					v.do(http.MethodGet, "/console"+path, nil)
					took = append(took, time.Since(start))
				}
				slices.Sort(took)
				t.Logf("%-9s %-45s median %6s, slowest %6s", store, path, took[2].Round(time.Millisecond), took[4].Round(time.Millisecond))
				if *guardtest.Long && took[2] > bound {
					t.Errorf("%s: %s, want at most %s", path, took[2], bound)
				}
			}
			t.Logf("%s: %s", store, memoryOf(t, process))
		})
	}
}

// memoryOf returns what the process says of its memory, on systems where it does.
func memoryOf(t *testing.T, p *guardtest.Process) string {
	t.Helper()
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.Cmd.Process.Pid))
	if err != nil {
		return "memory unknown"
	}
	var lines []string
	for line := range strings.Lines(string(data)) {
		if strings.HasPrefix(line, "VmHWM") || strings.HasPrefix(line, "VmRSS") {
			lines = append(lines, strings.Join(strings.Fields(line), " "))
		}
	}
	return strings.Join(lines, ", ")
}
