// SPDX-FileCopyrightText: 2026 The timguard authors
// SPDX-License-Identifier: Apache-2.0

package publish_test

import (
	"context"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"

	"github.com/timguard/timguard/caddymodule/internal/guardtest"
)

// counted is a listener that counts its connections.
type counted struct {
	net.Listener
	opened, open atomic.Int64
}

type countedConn struct {
	net.Conn
	close func()
}

func (c countedConn) Close() error {
	c.close()
	return c.Conn.Close()
}

func (l *counted) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	l.opened.Add(1)
	l.open.Add(1)
	return countedConn{conn, sync.OnceFunc(func() { l.open.Add(-1) })}, nil
}

// proxy returns a listener in front of the address.
func proxy(t *testing.T, to string) *counted {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = listener.Close() })
	l := &counted{Listener: listener}
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				server, err := net.Dial("tcp", to)
				if err != nil {
					return
				}
				defer server.Close()
				go func() { _, _ = io.Copy(conn, server); _ = conn.Close() }()
				_, _ = io.Copy(server, conn)
			}()
		}
	}()
	return l
}

// countedBroker is a broker whose connections are counted.
type countedBroker struct {
	broker
	connections *counted
	address     string
}

// eachCounted runs the test once for each kind of broker.
func eachCounted(t *testing.T, test func(t *testing.T, b countedBroker)) {
	t.Helper()
	t.Run("kafka", func(t *testing.T) {
		t.Parallel()
		l := new(counted)
		c := cluster(t, kfake.ListenFn(func(network, address string) (net.Listener, error) {
			listener, err := net.Listen(network, address)
			l.Listener = listener
			return l, err
		}))
		address := c.ListenAddrs()[0]
		test(t, countedBroker{&kafka{address: address}, l, address})
	})
	t.Run("amqp", func(t *testing.T) {
		t.Parallel()
		r := aRabbit(t)
		l := proxy(t, r.address)
		test(t, countedBroker{&rabbitQueue{rabbit: r, queue: r.queue(t, nil)}, l, l.Addr().String()})
	})
}

// site returns a site that publishes by the counted address, which may be written another way.
func (b countedBroker) site(address, more string) string {
	directive := b.directive("")
	switch b := b.broker.(type) {
	case *kafka:
		directive = strings.Replace(directive, b.address, address, 1)
	case *rabbitQueue:
		directive = strings.Replace(directive, b.address, address, 1)
	}
	return more + "\n" + fallingLate(directive)
}

// A reload drops no message, and opens no connection if the settings of the broker have not
// changed. If they have, the old connections are closed.
func TestEndToEndPublishKeepsItsConnectionsOverReloads(t *testing.T) {
	t.Parallel()
	eachCounted(t, func(t *testing.T, b countedBroker) {
		t.Helper()
		s := guardtest.NewSite(t, b.site(b.address, ""))
		p := s.Start(t)
		waitForStore(t, s)
		l := startSenders(guardtest.NewPoster(t, s.Listen), 8, 200, "reload")
		guardtest.Eventually(t, 10*time.Second, "some are answered", func() bool { return l.count() > 50 })
		opened := b.connections.opened.Load()
		for i := range guardtest.InLongForm(5, 50) {
			s.Directives = b.site(b.address, fmt.Sprint("header X-Generation ", i))
			s.Reload(t)
			before := l.count()
			guardtest.Eventually(t, 10*time.Second, "more are answered", func() bool { return l.count() > before+20 })
		}
		if n := b.connections.opened.Load(); n != opened {
			t.Errorf("%d connections were opened, %d of them by reloads", n, n-opened)
		}
		s.Directives = b.site("localhost:"+portOf(b.address), "")
		s.Reload(t)
		before := l.count()
		guardtest.Eventually(t, 10*time.Second, "more are answered", func() bool { return l.count() > before+20 })
		if n := b.connections.opened.Load(); n == opened {
			t.Error("other settings have opened no connection, so that this shows nothing")
		}
		guardtest.Eventually(t, 10*time.Second, "the old connections are closed", func() bool { return b.connections.open.Load() <= opened })
		l.finish()
		if len(l.other) > 0 {
			t.Errorf("%d were not answered OK, the first of them %s", len(l.other), l.other[0])
		}
		if items := s.Items(t); len(items) > 0 {
			t.Errorf("%d were not published at once", len(items))
		}
		if twice := wantNoneLost(t, b.all(t), l.acked); twice > l.unanswered {
			t.Errorf("%d are there twice, and only %d were sent twice", twice, l.unanswered)
		}
		t.Logf("figures: %d acknowledged over %d reloads, %d connections", len(l.acked), guardtest.InLongForm(5, 50)+1, opened)
		p.Terminate(t)
		guardtest.Eventually(t, 10*time.Second, "all connections are closed", func() bool { return b.connections.open.Load() == 0 })
	})
}

// Cleaning up waits for the acknowledgement of a message whose caller has gone.
func TestKafkaFlushesWhenCleaningUp(t *testing.T) {
	t.Parallel()
	c := cluster(t)
	h := provisioned(t, patient(toKafka(c)))
	h.publish(t.Context(), "first").wantOK(t)
	slow(c, 500*time.Millisecond)
	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(50*time.Millisecond, cancel)
	h.publish(ctx, "its caller has gone").wantFailed(t, "other", "the caller has gone before the broker acknowledged the message")
	start := time.Now()
	h.cleanUp()
	if took := time.Since(start); took < 200*time.Millisecond || took > 5*time.Second {
		t.Errorf("it took %s", took)
	}
	if all := records(t, c.ListenAddrs()[0]); len(all) != 2 {
		t.Errorf("%d records, want 2", len(all))
	}
}

// Cleaning up waits for confirmations: what is answered OK is there, and nothing else.
func TestRabbitMQFlushesWhenCleaningUp(t *testing.T) {
	t.Parallel()
	r := aRabbit(t)
	queue := r.queue(t, nil)
	h := provisioned(t, patient(fmt.Sprintf("tim_publish amqp %s {\nrouting_key %s\n}", r.url(), queue)))
	h.publish(t.Context(), "first").wantOK(t)
	body := strings.Repeat("x", 100<<10)
	var callers sync.WaitGroup
	var ok, begun atomic.Int64
	for range 200 {
		callers.Go(func() {
			begun.Add(1)
			if h.publish(t.Context(), body).err == "" {
				ok.Add(1)
			}
		})
	}
	guardtest.Eventually(t, 10*time.Second, "they are on their way", func() bool { return begun.Load() > 100 })
	h.cleanUp()
	callers.Wait()
	if n := int64(len(r.take(t, queue))); n != ok.Load()+1 || n == 1 {
		t.Errorf("%d are there, %d were acknowledged", n, ok.Load()+1)
	}
}
