// SPDX-FileCopyrightText: 2026 The timguard authors
// SPDX-License-Identifier: Apache-2.0

package delivery

import (
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/timguard/timguard/caddymodule/callback"
	"github.com/timguard/timguard/caddymodule/internal/guardtest"
	"github.com/timguard/timguard/caddymodule/outbox"
)

// lifeOfAMessage are commands that must not overtake each other.
var lifeOfAMessage = []string{"Group.CallbackAfterSendMsg", "Group.CallbackAfterModifyMsg", callback.RecallCommand}

// line returns the command and the payload of the nth callback of a conversation. The first
// has the number 1.
func line(conversation string, n int) (command string, body []byte) {
	command = lifeOfAMessage[(n-1)%len(lifeOfAMessage)]
	body = sampleTopic.ReplaceAll(callback.Sample(command), []byte(`"TopicId":"`+conversation+`"`))
	return command, bytes.Replace(body, []byte(`"MsgSeq":130`), fmt.Appendf(nil, `"MsgSeq":%d`, n), 1)
}

var (
	sampleTopic = regexp.MustCompile(`"TopicId":"[^"]*"`)
	place       = regexp.MustCompile(`"TopicId":"([^"]*)"|"MsgSeq":(\d+)`)
)

// placeOf returns which callback of which conversation the payload is.
func placeOf(body []byte) (conversation string, n int) {
	for _, match := range place.FindAllSubmatch(body, -1) {
		if len(match[1]) > 0 {
			conversation = string(match[1])
			continue
		}
		n, _ = strconv.Atoi(string(match[2]))
	}
	return conversation, n
}

// unwell is the percentage of attempts that a listener fails.
const unwell = 30

// listener is a consumer that fails now and then, and notes what it gets out of order.
type listener struct {
	mostFailures int // of one callback, each of which doubles the time to the next attempt

	mu         sync.Mutex
	accepted   map[string]int  // the last of each conversation
	had        map[string]bool // by conversation and number
	repeats    int
	failures   int
	inversions []string
}

// ServeHTTP implements [http.Handler]. A callback is out of order if it arrives before all
// earlier ones of its conversation are accepted, even if it is accepted later itself.
func (l *listener) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return
	}
	conversation, n := placeOf(body)
	l.mu.Lock()
	last := l.accepted[conversation]
	if repeated := l.had[fmt.Sprint(conversation, " ", n)]; n > last+1 || n < last && !repeated {
		l.inversions = append(l.inversions, fmt.Sprintf("%d of %s arrived after %d", n, conversation, last))
	}
	l.mu.Unlock()
	time.Sleep(time.Millisecond) // for others that are begun too early
	attempt, _ := strconv.Atoi(r.Header.Get("Tim-Delivery-Attempt"))
	if dice := rand.IntN(100); dice < unwell && attempt <= l.mostFailures { //nolint:gosec // a fault need not be unguessable
		l.mu.Lock()
		l.failures++
		l.mu.Unlock()
		switch dice % 3 {
		case 0:
			w.WriteHeader(http.StatusBadGateway)
		case 1:
			_, _ = io.WriteString(w, guardtest.FailJSON)
		default:
			panic(http.ErrAbortHandler)
		}
		return
	}
	l.mu.Lock()
	if which := fmt.Sprint(conversation, " ", n); l.had[which] {
		l.repeats++
	} else {
		l.had[which] = true
		l.accepted[conversation] = max(l.accepted[conversation], n)
	}
	l.mu.Unlock()
	_, _ = io.WriteString(w, guardtest.OKJSON)
}

func (l *listener) count() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.had)
}

// converse posts the callbacks of conversations, each in its order, until each is answered
// OK by one of the nodes. It takes some time for each conversation.
func converse(t *testing.T, conversations, each int, takes time.Duration, nodes ...*guardtest.Site) *sync.WaitGroup {
	t.Helper()
	posters := make([]*guardtest.Poster, len(nodes))
	for i, s := range nodes {
		posters[i] = guardtest.NewPoster(t, s.Listen)
	}
	var senders sync.WaitGroup
	for c := range conversations {
		senders.Go(func() {
			node := c
			for n := 1; n <= each; n++ {
				time.Sleep(rand.N(2 * takes / time.Duration(each))) //nolint:gosec // a moment need not be unguessable
				command, body := line(fmt.Sprint("@TGS#", c), n)
				for {
					_, answer, err := posters[node%len(nodes)].Post("/callback", command, body)
					if err == nil && answer == guardtest.OKJSON {
						break
					}
					node++
					time.Sleep(20 * time.Millisecond)
				}
			}
		})
	}
	return &senders
}

// Conversations stay in order, whatever their commands, while the consumer fails 30 % of the
// attempts, configurations are reloaded, and a node is killed: one of two with PostgreSQL,
// and the only one with SQLite, which is started again.
func TestEndToEndOrderedSurvivesKillsAndReloads(t *testing.T) {
	t.Parallel()
	eachStore(t, func(t *testing.T, store string) {
		t.Helper()
		conversations, each, reloads := 200, guardtest.InLongForm(3, 50), guardtest.InLongForm(3, 10)
		l := &listener{accepted: make(map[string]int), had: make(map[string]bool), mostFailures: guardtest.InLongForm(2, 20)}
		consumer := guardtest.NewBackend(t, func(*guardtest.Backend) http.HandlerFunc { return l.ServeHTTP })
		directives := guardtest.Guard("on after ack {\ncopy archive\n}", "consumer archive {\nordered\nreverse_proxy "+consumer.Address()+"\n}")
		node := func() *guardtest.Site {
			s := guardtest.NewSite(t, directives)
			s.Options = "timeout 2s\n" + store
			return s
		}
		nodes := []*guardtest.Site{node()}
		victim := nodes[0].Start(t)
		if store != "" {
			nodes = append(nodes, node())
			nodes[1].Start(t)
		}
		survivor := nodes[len(nodes)-1]

		begun, within := time.Now(), time.Duration(guardtest.InLongForm(1, 10))*time.Minute
		takes := time.Duration(guardtest.InLongForm(4, 30)) * time.Second
		senders := converse(t, conversations, each, takes, nodes...)
		for n := range reloads {
			due := (n + 1) * conversations * each / (reloads + 2)
			guardtest.Eventually(t, within, fmt.Sprint(due, " are accepted"), func() bool { return l.count() >= due })
			if n == reloads/2 {
				kill(t, victim, survivor)
			}
			survivor.Directives = fmt.Sprintf("header X-Generation %d\n%s", n, directives)
			survivor.Reload(t)
		}
		senders.Wait()
		guardtest.Eventually(t, within, "all are accepted", func() bool { return l.count() == conversations*each })
		took := time.Since(begun).Round(100 * time.Millisecond)
		survivor.WantState(t, outbox.Delivered, conversations*each)
		t.Logf("%d callbacks of %d conversations in %s: %d failed attempts, %d reloads, 1 kill, %d repeated, %d out of order",
			len(l.had), conversations, took, l.failures, reloads, l.repeats, len(l.inversions))
		if len(l.inversions) > 0 {
			t.Errorf("the first of them: %s", l.inversions[0])
		}
	})
}

// kill ends the process with SIGKILL. If it is the only node, it starts it again; otherwise,
// its attempts are found lost soon.
func kill(t *testing.T, victim *guardtest.Process, survivor *guardtest.Site) {
	t.Helper()
	victim.Kill()
	if victim.Site == survivor {
		survivor.Start(t)
		return
	}
	if !*guardtest.Long {
		hurry(t, survivor, time.Minute, fmt.Sprintf("attempted_by[array_upper(attempted_by, 1)] LIKE '%%/%d/%%'", victim.Cmd.Process.Pid))
	}
}

// While callbacks of a conversation wait, `fallback deliver` stores later ones behind them,
// though the backend is well again. Those of other conversations are forwarded.
func TestEndToEndOrderedFallbackStoresBehindWaitingCallbacks(t *testing.T) {
	t.Parallel()
	eachStore(t, func(t *testing.T, store string) {
		t.Helper()
		var well atomic.Bool
		b := guardtest.NewBackend(t, func(b *guardtest.Backend) http.HandlerFunc {
			return func(w http.ResponseWriter, r *http.Request) {
				if !well.Load() {
					w.Header().Set("Retry-After", "3600")
					w.WriteHeader(http.StatusServiceUnavailable)
					return
				}
				guardtest.Accepts(b)(w, r)
			}
		})
		s := guardtest.NewSite(t, guardtest.Guard("on after forward {\nfallback deliver\n}", "backend {\nordered\nreverse_proxy "+b.Address()+"\n}"))
		s.Options = store
		s.Start(t).WantLog(t, "the store is open", nil)
		p := guardtest.NewPoster(t, s.Listen)
		post := func(conversation string, n int) {
			t.Helper()
			command, body := line(conversation, n)
			if _, answer, err := p.Post("/callback", command, body); err != nil || answer != guardtest.OKJSON {
				t.Fatal(answer, err)
			}
		}
		post("one", 1)
		first := s.WantError(t, "the status 503")
		well.Store(true)
		post("one", 2)
		post("one", 3)
		post("other", 1)
		if _, body := line("other", 1); b.Total() != 1 || !b.Forwarded(body) {
			t.Errorf("%d arrived, want only that of the other conversation, forwarded", b.Total())
		}
		if code, body := guardtest.Get(t, http.MethodPost, fmt.Sprintf("http://%s/tim_callback/deliveries/%d/retry", s.Admin, first.ID)); code != http.StatusOK {
			t.Fatal(code, body)
		}
		s.WantState(t, outbox.Delivered, 3)
		post("one", 4)
		var got []string
		for _, a := range b.All()[1:] {
			_, n := placeOf(a.Body)
			got = append(got, fmt.Sprint(n, map[bool]string{true: " forwarded", false: " delivered"}[a.AtOnce()]))
		}
		if want := "1 delivered, 2 delivered, 3 delivered, 4 forwarded"; strings.Join(got, ", ") != want {
			t.Errorf("the backend got %s, want %s", strings.Join(got, ", "), want)
		}
	})
}
