// SPDX-FileCopyrightText: 2026 The timguard authors
// SPDX-License-Identifier: Apache-2.0

package publish_test

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"maps"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/timguard/timguard/caddymodule/callback"
	"github.com/timguard/timguard/caddymodule/internal/guardtest"
	"github.com/timguard/timguard/caddymodule/outbox"
)

// block returns a block of a guard's directives.
func block(name, content string) string { return name + " {\n" + content + "\n}" }

// fallingLate returns the directives of a site that publishes, and stores what could not be
// published. Its times are long enough for a busy machine.
func fallingLate(directive string) string {
	return guardtest.Guard(block("on after forward", "deadline 25s\nfallback deliver"), block("backend", patient(directive)))
}

// waitForStore waits until callbacks can be stored, which takes long on a busy machine. Until
// then, they are forwarded at once.
func waitForStore(t *testing.T, s *guardtest.Site) {
	t.Helper()
	guardtest.Eventually(t, 30*time.Second, "the store is open", func() bool {
		status, _ := guardtest.Get(t, http.MethodGet, "http://"+s.Admin+"/tim_callback/deliveries")
		return status == http.StatusOK
	})
}

// conversation is that of guardtest.Event.
const conversation = `a"<%> b`

// eventID is what the documentation says it is.
func eventID(body []byte) string {
	sum := sha256.Sum256([]byte(guardtest.App + "\x00" + callback.RecallCommand + "\x00" + string(body)))
	return hex.EncodeToString(sum[:])
}

// Wherever the handler is, the broker gets each callback byte for byte, with the headers that
// are documented, and without the Sign.
func TestEndToEndPublishWhereverABackendCanBe(t *testing.T) {
	t.Parallel()
	const more = "header region {env.TIMGUARD_TEST_UNSET}eu\nheader path {path}"
	for name, site := range map[string]func(broker) string{
		"next handler":     func(b broker) string { return guardtest.Guard("on after forward") + "\n" + patient(b.directive(more)) },
		"fallback deliver": func(b broker) string { return fallingLate(b.directive(more)) },
		"deliver": func(b broker) string {
			return guardtest.Guard("on after deliver", block("backend", "ordered\n"+patient(b.directive(more))))
		},
		"copy": func(b broker) string {
			return guardtest.Guard(block("on after ack", "copy archive"), block("consumer archive", patient(b.directive(more))))
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			eachBroker(t, func(t *testing.T, b broker) {
				t.Helper()
				s := guardtest.NewSite(t, site(b))
				p := s.Start(t)
				if name != "next handler" {
					waitForStore(t, s)
				}
				poster := guardtest.NewPoster(t, s.Listen)
				want := make(map[string]string)
				for i := range 20 {
					id := fmt.Sprint(name, " ", i)
					poster.WantOK(t, id)
					want[string(guardtest.Event(id))] = eventID(guardtest.Event(id))
				}
				switch name {
				case "deliver", "copy":
					s.WantState(t, outbox.Delivered, 20)
				case "fallback deliver":
					if items := s.Items(t); len(items) > 0 {
						t.Errorf("%d are stored, while the broker is well", len(items))
					}
				}
				wantPublished(t, b.all(t), want)
				wantNoSecrets(t, p, b)
			})
		})
	}
}

// wantPublished fails unless the messages are those with the bodies and IDs, once each.
func wantPublished(t *testing.T, messages []published, want map[string]string) {
	t.Helper()
	if len(messages) != len(want) {
		t.Errorf("%d messages, want %d", len(messages), len(want))
	}
	for _, m := range messages {
		id, found := want[m.body]
		if !found {
			t.Errorf("unknown body %s", m.body)
		}
		headers := map[string]string{
			"sdk_app_id": guardtest.App, "command": callback.RecallCommand, "class": "after", "conversation": conversation,
			"event_id": id, "event_time": "1670574414123", "region": "eu", "path": "/callback",
		}
		if !maps.Equal(m.headers, headers) {
			t.Errorf("headers %v\nwant    %v", m.headers, headers)
		}
		if m.key != "" && m.key != conversation {
			t.Errorf("key %q, want %q", m.key, conversation)
		}
	}
}

// wantNoSecrets fails if the log has the token, the password or the payload.
func wantNoSecrets(t *testing.T, p *guardtest.Process, b broker) {
	t.Helper()
	log := p.Log.String()
	for _, secret := range []string{b.secret(), guardtest.Token, "Operator_Account"} {
		if strings.Contains(log, secret) {
			t.Errorf("the log has %s", secret)
		}
	}
}

// Of one conversation, messages are in the order of their callbacks, while the broker is
// well.
func TestEndToEndPublishKeepsTheOrderOfAConversation(t *testing.T) {
	t.Parallel()
	eachBroker(t, func(t *testing.T, b broker) {
		t.Helper()
		s := guardtest.NewSite(t, fallingLate(b.directive("")))
		s.Start(t)
		poster := guardtest.NewPoster(t, s.Listen)
		each := guardtest.InLongForm(60, 1000)
		const conversations = 16
		var senders sync.WaitGroup
		for group := range conversations {
			senders.Go(func() {
				for i := range each {
					body := inGroup(group, i)
					if status, answer, err := poster.Post("/callback", callback.RecallCommand, body); err != nil || answer != guardtest.OKJSON {
						t.Errorf("%d %s, %v", status, answer, err)
					}
				}
			})
		}
		senders.Wait()
		last, lanes := make(map[string]int), make(map[string]map[string]bool)
		inversions := 0
		messages := b.all(t)
		for _, m := range messages {
			var i int
			group := m.headers["conversation"]
			_, number, _ := strings.Cut(m.body, `"MsgSeq":`)
			if _, err := fmt.Sscanf(number, "%d}", &i); err != nil {
				t.Fatal(err)
			}
			if lanes[group] == nil {
				lanes[group] = make(map[string]bool)
			}
			lanes[group][m.lane] = true
			if i != last[group]+1 {
				inversions++
			}
			last[group] = i
		}
		used := make(map[string]bool)
		for group, in := range lanes {
			if len(in) != 1 {
				t.Errorf("the conversation %s is in %d partitions", group, len(in))
			}
			maps.Copy(used, in)
		}
		t.Logf("figures: %d messages of %d conversations in %d partitions or queues, %d inversions", len(messages), len(lanes), len(used), inversions)
		if inversions > 0 || len(messages) != conversations*each || len(lanes) != conversations {
			t.Errorf("%d inversions; want none, and %d messages", inversions, conversations*each)
		}
		if b, isKafka := b.(*kafka); isKafka && len(used) < 2 {
			t.Errorf("%s has used one partition alone", b.address)
		}
	})
}

// inGroup returns a recall of the i-th message of a group.
func inGroup(group, i int) []byte {
	return fmt.Appendf(nil, `{"CallbackCommand":"Group.CallbackAfterRecallMsg","Operator_Account":"a","Type":"Public","GroupId":"group-%d","MsgSeqList":[{"MsgSeq":%d}],"EventTime":%d}`,
		group, i+1, 1670574414123+i)
}

// A broker that fails is answered FAIL, counted by its cause and said in the log; the delivery
// shows the error. The labels have no other values than these.
func TestEndToEndPublishShowsFailures(t *testing.T) {
	t.Parallel()
	for name, directive := range map[string]string{
		"kafka": "tim_publish kafka %s {\ntopic x\ntimeout 500ms\nsasl plain guard guest-secret\n}",
		"amqp":  "tim_publish amqp amqp://guard:guest-secret@%s {\nexchange x\ntimeout 500ms\n}",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			directive := fmt.Sprintf(directive, guardtest.FreePort(t))
			s := guardtest.NewSite(t, "handle /now {\n"+guardtest.Guard("on after forward")+"\n"+directive+"\n}\nhandle {\n"+
				guardtest.Guard("name stores", "on after deliver", block("backend", directive))+"\n}")
			s.Logs = "DEBUG"
			s.Global += "\nmetrics\nservers {\ntrace\n}"
			p := s.Start(t)
			waitForStore(t, s)
			poster := guardtest.NewPoster(t, s.Listen)
			status, answer, err := poster.Post("/now", callback.RecallCommand, guardtest.Event("now"))
			if err != nil || status != http.StatusBadGateway || answer != `{"ActionStatus":"FAIL","ErrorInfo":"the callback could not be published: unreachable","ErrorCode":1}` {
				t.Errorf("answer %d %s, %v", status, answer, err)
			}
			p.WantLog(t, "publishing failed", map[string]any{"level": "error", "logger": "http.handlers.tim_publish", "broker": name, "cause": "unreachable"})
			poster.WantOK(t, "stored")
			item := s.WantError(t, "connection refused; is the broker running")
			for _, f := range item.Failures {
				if !strings.HasPrefix(f.Error, name+": ") {
					t.Errorf("error %q", f.Error)
				}
			}
			series := fmt.Sprintf(`caddy_tim_callback_publish_failures_total{broker=%q,cause="unreachable"}`, name)
			if n := s.Metric(t, series); n < 2 {
				t.Errorf("%s is %v", series, n)
			}
			if strings.Contains(p.Log.String(), "guest-secret") || strings.Contains(p.Log.String(), "Operator_Account") {
				t.Error("the log has the password or the payload")
			}
		})
	}
}

// bounded are the values that labels of the metrics have.
var bounded = map[string][]string{
	"broker": {"kafka", "amqp"},
	"cause":  {"unreachable", "unauthorized", "unknown", "too_large", "refused", "buffer_full", "replicas", "timeout", "other"},
}

// What is published is counted by the time it took, and the start says where to, but no
// password.
func TestEndToEndPublishIsSeen(t *testing.T) {
	t.Parallel()
	eachBroker(t, func(t *testing.T, b broker) {
		t.Helper()
		s := guardtest.NewSite(t, fallingLate(b.directive("")))
		s.Global += "\nmetrics"
		p := s.Start(t)
		poster := guardtest.NewPoster(t, s.Listen)
		for i := range 10 {
			poster.WantOK(t, fmt.Sprint("seen ", i))
		}
		var name string
		switch b := b.(type) {
		case *kafka:
			name = "kafka"
			p.WantLog(t, "publishing callbacks", map[string]any{"level": "info", "logger": "tim_publish.brokers.kafka", "topic": topic, "key": "{http.tim_callback.conversation}", "tls": false, "sasl": ""})
		case *rabbitQueue:
			name = "amqp"
			p.WantLog(t, "publishing callbacks", map[string]any{"level": "info", "logger": "tim_publish.brokers.amqp", "host": "127.0.0.1", "vhost": "/", "exchange": "", "routing_key": b.queue, "tls": false})
		}
		if n := s.Metric(t, `caddy_tim_callback_publish_seconds_count{broker="`+name+`"}`); n != 10 {
			t.Errorf("%v are counted, want 10", n)
		}
		_, text := guardtest.Get(t, http.MethodGet, "http://"+s.Admin+"/metrics")
		for _, label := range regexp.MustCompile(`(?m)^caddy_tim_callback_publish_[a-z_]+\{(.*)\}`).FindAllStringSubmatch(text, -1) {
			for _, pair := range regexp.MustCompile(`(\w+)="([^"]*)"`).FindAllStringSubmatch(label[1], -1) {
				if pair[1] != "le" && !slices.Contains(bounded[pair[1]], pair[2]) {
					t.Errorf("label %s", pair[0])
				}
			}
		}
		wantNoSecrets(t, p, b)
	})
}

// A callback whose caller waits is published, even if Caddy is told to stop in the meantime.
func TestEndToEndPublishEndsBeforeCaddyDoes(t *testing.T) {
	t.Parallel()
	eachBroker(t, func(t *testing.T, b broker) {
		t.Helper()
		s := guardtest.NewSite(t, fallingLate(b.directive("")))
		p := s.Start(t)
		senders := startSenders(guardtest.NewPoster(t, s.Listen), 8, 200, "stop")
		guardtest.Eventually(t, 10*time.Second, "some are answered", func() bool { return senders.count() > 20 })
		p.Terminate(t)
		senders.finish()
		wantNoneLost(t, b.all(t), senders.acked)
	})
}
