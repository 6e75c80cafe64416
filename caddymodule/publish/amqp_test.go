// SPDX-FileCopyrightText: 2026 The timguard authors
// SPDX-License-Identifier: Apache-2.0

package publish_test

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/rabbitmq/amqp091-go"

	"github.com/timguard/timguard/caddymodule/internal/guardtest"
)

// toExchange returns a directive that publishes to the exchange.
func (r *rabbit) toExchange(exchange string, options ...string) string {
	return fmt.Sprintf("tim_publish amqp %s {\nexchange %s\n%s\n}", r.url(), exchange, strings.Join(options, "\n"))
}

// What RabbitMQ makes of a message is answered in time, and the error says what is wrong and
// what to do about it.
func TestRabbitMQSaysWhyItDoesNotTakeAMessage(t *testing.T) {
	t.Parallel()
	r := aRabbit(t)
	exchange, _ := r.exchange(t, "bound.#")
	another, _ := r.exchange(t, "bound.#") // whose client no other case disturbs
	for name, tt := range map[string]struct {
		directive string
		body      string
		cause     string
		texts     []string
	}{
		"nobody listens": {
			directive: "tim_publish amqp amqp://guard:guard-secret@" + guardtest.FreePort(t) + " {\nexchange x\n}",
			cause:     "unreachable", texts: []string{"amqp: ", "connection refused; is the broker running, and is the address right?"},
		},
		"nobody answers": {
			directive: "tim_publish amqp amqp://guard:guard-secret@" + silent(t) + " {\nexchange x\n}",
			cause:     "unreachable", texts: []string{"is the broker running"},
		},
		"no queue is bound": {
			directive: r.toExchange(exchange, "routing_key other"),
			cause:     "unknown", texts: []string{`no queue is bound to the exchange "` + exchange + `" for the routing key "other"; bind one, or correct the option routing_key`},
		},
		"no queue": {
			directive: "tim_publish amqp " + r.url() + " {\nrouting_key no-such-queue\n}",
			cause:     "unknown", texts: []string{`there is no queue "no-such-queue"; declare it, or correct the option routing_key`},
		},
		"unknown exchange": {
			directive: r.toExchange("exhcange"),
			cause:     "unknown", texts: []string{`the exchange "exhcange" does not exist; declare it, or correct the option exchange`},
		},
		"wrong password": {
			directive: strings.Replace(r.toExchange(exchange), "guest-secret", "other-secret", 1),
			cause:     "unauthorized", texts: []string{"the broker refuses the user", "correct the user name and the password of the URL"},
		},
		"unknown vhost": {
			directive: strings.Replace(r.toExchange(exchange), " {", "/nowhere {", 1),
			cause:     "unauthorized", texts: []string{"the broker refuses the vhost", "correct it in the URL, or allow the user to use it"},
		},
		"may not write": {
			directive: strings.ReplaceAll(r.toExchange(exchange), "guest", "reader"),
			cause:     "unauthorized", texts: []string{"ACCESS_REFUSED", `allow the user to write to the exchange "` + exchange + `"`},
		},
		"too large": {
			directive: r.toExchange(another, "routing_key bound.x"),
			body:      strings.Repeat("x", maxRabbitMessage+1),
			cause:     "too_large", texts: []string{"larger than configured max size", "raise max_message_size of the broker, or lower max_body of the guard"},
		},
		"a full queue": {
			directive: fmt.Sprintf("tim_publish amqp %s {\nrouting_key %s\n}", r.url(), r.queue(t, amqp091.Table{"x-max-length": 0, "x-overflow": "reject-publish"})),
			cause:     "refused", texts: []string{"the broker could not store the message; is a queue full (x-overflow reject-publish), or down?"},
		},
		"an unknown authority": {
			directive: "tim_publish amqp amqps://guest:guest-secret@" + r.secure + " {\nexchange x\n}",
			cause:     "unreachable", texts: []string{"certificate signed by unknown authority; name the file with the certificate of its authority: tls <ca_file>"},
		},
		"unencrypted where TLS is needed": {
			directive: "tim_publish amqp amqp://guest:guest-secret@" + r.secure + " {\nexchange x\n}",
			cause:     "unreachable",
		},
		"TLS where it is not known": {
			directive: "tim_publish amqp amqps://guest:guest-secret@" + r.address + " {\nexchange x\n}",
			cause:     "unreachable", texts: []string{"does the broker want amqps://, or amqp://?"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := provisioned(t, tt.directive)
			h.settle(t, tt.cause)
			for range 3 { // also while the client does not try to connect, and on a new channel
				h.publish(t.Context(), "{}"+tt.body).wantFailed(t, tt.cause, tt.texts...)
			}
		})
	}
}

func TestRabbitMQTakesMessagesByTLS(t *testing.T) {
	t.Parallel()
	r := aRabbit(t)
	queue := r.queue(t, nil)
	for name, option := range map[string]string{"option": "tls " + r.ca, "URL": ""} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			url := "amqps://guest:guest-secret@" + r.secure
			if option == "" {
				url += "?cacertfile=" + r.ca
			}
			h := provisioned(t, patient(fmt.Sprintf("tim_publish amqp %s {\nrouting_key %s\n%s\n}", url, queue, option)))
			h.publish(t.Context(), "{}").wantOK(t)
		})
	}
}

// A message that is too large closes the channel for others, too, which are not blamed for it.
func TestRabbitMQDoesNotBlameOthersForAMessageThatIsTooLarge(t *testing.T) {
	t.Parallel()
	r := aRabbit(t)
	exchange, _ := r.exchange(t, "#")
	h := provisioned(t, patient(r.toExchange(exchange)))
	h.publish(t.Context(), "{}").wantOK(t)
	var callers sync.WaitGroup
	for i := range 100 {
		callers.Go(func() {
			if i == 50 {
				h.publish(t.Context(), strings.Repeat("x", maxRabbitMessage+1)).wantFailed(t, "too_large")
				return
			}
			if o := h.publish(t.Context(), "{}"); o.status != http.StatusOK {
				o.wantFailed(t, "refused", "the broker has closed the channel because of another message: ")
			}
		})
	}
	callers.Wait()
	h.publish(t.Context(), "{}").wantOK(t)
}

// The command is the routing key by default, so that queues can be bound by a family.
func TestRabbitMQRoutesByCommand(t *testing.T) {
	t.Parallel()
	r := aRabbit(t)
	exchange, queue := r.exchange(t, "Group.#")
	h := provisioned(t, patient(r.toExchange(exchange)))
	h.publish(t.Context(), "1", "http.tim_callback.command", "Group.CallbackAfterSendMsg").wantOK(t)
	h.publish(t.Context(), "2", "http.tim_callback.command", "C2C.CallbackAfterSendMsg").wantFailed(t, "unknown", `for the routing key "C2C.CallbackAfterSendMsg"`)
	if messages := r.take(t, queue); len(messages) != 1 || string(messages[0].Body) != "1" {
		t.Errorf("%d messages", len(messages))
	}
}

// Of messages that are published at the same time, those fail that no queue takes, and no
// others, also if they have no ID to tell them apart, or all the same one.
func TestRabbitMQReturnsOnlyWhatNoQueueTakes(t *testing.T) {
	t.Parallel()
	r := aRabbit(t)
	for name, id := range map[string]string{"no ID": "", "one ID": "x"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			exchange, queue := r.exchange(t, "bound")
			h := provisioned(t, patient(r.toExchange(exchange)))
			var callers sync.WaitGroup
			var taken atomic.Int64
			for i := range 400 {
				callers.Go(func() {
					if i%2 == 0 {
						h.publish(t.Context(), fmt.Sprint(i), "http.tim_callback.command", "bound", "http.tim_callback.event_id", id).wantOK(t)
						taken.Add(1)
						return
					}
					h.publish(t.Context(), fmt.Sprint(i), "http.tim_callback.command", "other", "http.tim_callback.event_id", id).wantFailed(t, "unknown", "no queue is bound")
				})
			}
			callers.Wait()
			if n := len(r.take(t, queue)); n != int(taken.Load()) {
				t.Errorf("the queue has %d messages, %d were acknowledged", n, taken.Load())
			}
		})
	}
}

// A node that is frozen or takes nothing is answered in time, and one that comes back is used
// again soon.
func TestRabbitMQComesBack(t *testing.T) {
	t.Parallel()
	r := ownRabbit(t)
	queue := r.queue(t, nil)
	r.keep(t)
	h := provisioned(t, fmt.Sprintf("tim_publish amqp %s {\nrouting_key %s\n}", r.url(), queue))
	h.warmUp(t)
	soon := func(what string) {
		t.Helper()
		back := time.Now()
		guardtest.Eventually(t, 30*time.Second, what, func() bool { return h.publish(t.Context(), "back").status == http.StatusOK })
		if took := time.Since(back); took > 10*time.Second { // the backoff and more
			t.Errorf("OK only %s after it: %s", took, what)
		}
	}

	r.signal(syscall.SIGSTOP)
	h.publish(t.Context(), "frozen").wantFailed(t, "timeout", "the broker has not confirmed the message in time; is it overloaded, or is timeout too short?")
	floodUntilFailed(t, h)
	r.signal(syscall.SIGCONT)
	soon("it runs again")

	r.ctl(t, "set_vm_memory_high_watermark", "0.00001")
	guardtest.Eventually(t, 20*time.Second, "the alarm", func() bool {
		o := h.publish(t.Context(), "alarm")
		if o.took > deadline {
			t.Errorf("answered after %s", o.took)
		}
		return strings.Contains(o.err, "the broker takes no messages at the moment, because it is short of memory or disk space; see its alarms")
	})
	h.publish(t.Context(), "alarm").wantFailed(t, "buffer_full")
	r.ctl(t, "set_vm_memory_high_watermark", "0.8")
	soon("the alarm is over")

	r.kill(t)
	h.publish(t.Context(), "gone").wantFailed(t, "unreachable")
	r.start(t)
	soon("it is restarted")
}

// floodUntilFailed publishes more than the connection's buffers take to a node that reads
// nothing. No caller waits longer than its deadline.
func floodUntilFailed(t *testing.T, h handler) {
	t.Helper()
	body := strings.Repeat("x", 200<<10)
	var callers sync.WaitGroup
	for range 100 {
		callers.Go(func() {
			if o := h.publish(t.Context(), body); o.took > deadline || o.status == http.StatusOK {
				t.Errorf("answered %d after %s: %s", o.status, o.took, o.err)
			}
		})
	}
	callers.Wait()
}

// A broker that is down is tried more and more seldom, however many callbacks come.
func TestRabbitMQIsTriedWithBackoff(t *testing.T) {
	t.Parallel()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	var tries atomic.Int64
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			tries.Add(1)
			_ = conn.Close()
		}
	}()
	h := provisioned(t, "tim_publish amqp amqp://guard:guard-secret@"+listener.Addr().String()+" {\nexchange x\n}")
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
	defer cancel()
	var failed int
	for ; ctx.Err() == nil; failed++ {
		h.publish(t.Context(), "{}").wantFailed(t, "unreachable", "does it want amqps://, or amqp://?")
		time.Sleep(time.Millisecond)
	}
	if n := tries.Load(); n < 3 || n > 6 || failed < 100 { // after 0, 0.1, 0.3, 0.7, 1.5 seconds
		t.Errorf("%d tries to connect in 3 s, while %d messages failed; want about 5", n, failed)
	}
}
