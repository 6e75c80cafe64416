// SPDX-FileCopyrightText: 2026 The timguard authors
// SPDX-License-Identifier: Apache-2.0

package publish_test

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"encoding/hex"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/timguard/timguard/caddymodule/internal/guardtest"
)

// cluster starts brokers in this process, which can be made to fail.
func cluster(t *testing.T, options ...kfake.Opt) *kfake.Cluster {
	t.Helper()
	c, err := kfake.NewCluster(append([]kfake.Opt{kfake.NumBrokers(1), kfake.SeedTopics(partitions, topic)}, options...)...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

// toKafka returns a directive that publishes to the brokers.
func toKafka(c *kfake.Cluster, options ...string) string {
	return fmt.Sprintf("tim_publish kafka %s {\ntopic %s\n%s\n}", strings.Join(c.ListenAddrs(), " "), topic, strings.Join(options, "\n"))
}

// refusing returns brokers that answer each message with the error.
func refusing(err *kerr.Error) func(*testing.T) string {
	return func(t *testing.T) string {
		t.Helper()
		c := cluster(t)
		c.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Err: err, Count: -1})
		return toKafka(c)
	}
}

// user is a user of brokers that may write to the topic, or not.
func user(mechanism string, mayWrite bool) []kfake.Opt {
	write := kfake.ACL{Resource: kmsg.ACLResourceTypeTopic, Name: topic, Pattern: kmsg.ACLResourcePatternTypeLiteral, Operation: kmsg.ACLOperationWrite, Allow: mayWrite}
	describe := write
	describe.Operation, describe.Allow = kmsg.ACLOperationDescribe, true
	return []kfake.Opt{kfake.EnableSASL(), kfake.EnableACLs(), kfake.User(mechanism, "guard", "guard-secret", write, describe)}
}

// encrypted returns an option for brokers with TLS, and the file of their certificate.
func encrypted(t *testing.T) (option kfake.Opt, ca string) {
	t.Helper()
	ca = filepath.Join(t.TempDir(), "ca.pem")
	return kfake.TLS(&tls.Config{Certificates: []tls.Certificate{writeCertificate(t, ca)}}), ca
}

// slow makes brokers acknowledge messages late.
func slow(c *kfake.Cluster, by time.Duration) {
	c.ControlKey(int16(kmsg.Produce), func(kmsg.Request) (kmsg.Response, error, bool) {
		c.KeepControl()
		c.SleepControl(func() { time.Sleep(by) })
		return nil, nil, false
	})
}

// What Kafka makes of a message is answered in time, and the error says what is wrong and
// what to do about it.
func TestKafkaSaysWhyItDoesNotTakeAMessage(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		directive func(*testing.T) string
		body      string
		cause     string
		texts     []string
	}{
		"nobody listens": {
			directive: func(t *testing.T) string {
				t.Helper()
				return "tim_publish kafka " + guardtest.FreePort(t) + " {\ntopic x\n}"
			},
			cause: "unreachable", texts: []string{"kafka: ", "connection refused; is the broker running, is the address right, and is tls set as the broker wants it?"},
		},
		"nobody answers": {
			directive: func(t *testing.T) string {
				t.Helper()
				return "tim_publish kafka " + silent(t) + " {\ntopic x\n}"
			},
			cause: "unreachable", texts: []string{"there is no connection to any broker yet; is the broker running"},
		},
		"unknown topic": {
			directive: func(t *testing.T) string {
				t.Helper()
				return strings.Replace(toKafka(cluster(t)), "topic "+topic, "topic calbacks", 1)
			},
			cause: "unknown", texts: []string{`the topic "calbacks" does not exist; create it, or correct the option topic`},
		},
		"a topic without a value": {
			directive: func(t *testing.T) string {
				t.Helper()
				return strings.Replace(toKafka(cluster(t)), "topic "+topic, "topic {http.tim_callback.group_type}", 1)
			},
			cause: "unknown", texts: []string{"the placeholders of the option topic have no value for this callback"},
		},
		"slow": {
			directive: func(t *testing.T) string {
				t.Helper()
				c := cluster(t)
				slow(c, 3*time.Second)
				return toKafka(c)
			},
			cause: "timeout", texts: []string{"not acknowledged the message in time; is it overloaded, or is timeout too short?"},
		},
		"larger than the client takes": {
			directive: func(t *testing.T) string { t.Helper(); return toKafka(cluster(t)) },
			body:      strings.Repeat("x", 1<<20+1000),
			cause:     "too_large", texts: []string{"MESSAGE_TOO_LARGE", "uncompressed_bytes=104", `raise max.message.bytes of the topic "callbacks" up to 1048588, or lower max_body of the guard`},
		},
		"larger than the topic takes": {
			directive: func(t *testing.T) string {
				t.Helper()
				return toKafka(cluster(t, kfake.BrokerConfigs(map[string]string{"message.max.bytes": "2000"})))
			},
			body:  random(10_000),
			cause: "too_large", texts: []string{"MESSAGE_TOO_LARGE", "compressed_bytes=", `raise max.message.bytes of the topic "callbacks"`},
		},
		"too few replicas": {
			directive: refusing(kerr.NotEnoughReplicas),
			cause:     "replicas", texts: []string{`fewer replicas of the topic "callbacks" are in sync than its min.insync.replicas; are all brokers running?`},
		},
		"too few replicas afterwards": {
			directive: refusing(kerr.NotEnoughReplicasAfterAppend),
			cause:     "replicas", texts: []string{"min.insync.replicas"},
		},
		"may not write": {
			directive: func(t *testing.T) string {
				t.Helper()
				return toKafka(cluster(t, user("PLAIN", false)...), "sasl plain guard guard-secret")
			},
			cause: "unauthorized", texts: []string{`the user may not write to the topic "callbacks"; allow it in the broker`},
		},
		"wrong password, plain": {
			directive: func(t *testing.T) string {
				t.Helper()
				return toKafka(cluster(t, user("PLAIN", true)...), "sasl plain guard other-secret")
			},
			cause: "unauthorized", texts: []string{"refuses the user name, the password or the mechanism of sasl; correct the option sasl"},
		},
		"wrong password, said in an answer": {
			directive: func(t *testing.T) string {
				t.Helper()
				c := cluster(t, user("PLAIN", true)...)
				c.ControlKey(int16(kmsg.SASLAuthenticate), func(r kmsg.Request) (kmsg.Response, error, bool) {
					c.KeepControl()
					resp := r.ResponseKind().(*kmsg.SASLAuthenticateResponse)
					resp.ErrorCode = kerr.SaslAuthenticationFailed.Code
					return resp, nil, true
				})
				return toKafka(c, "sasl plain guard other-secret")
			},
			cause: "unauthorized", texts: []string{"refuses the user name, the password or the mechanism of sasl; correct the option sasl"},
		},
		"wrong password, SCRAM": {
			directive: func(t *testing.T) string {
				t.Helper()
				return toKafka(cluster(t, user("SCRAM-SHA-512", true)...), "sasl scram-sha-512 guard other-secret")
			},
			cause: "unauthorized", texts: []string{"refuses the user name, the password or the mechanism of sasl"},
		},
		"another mechanism": {
			directive: func(t *testing.T) string {
				t.Helper()
				return toKafka(cluster(t, user("SCRAM-SHA-512", true)...), "sasl scram-sha-256 guard guard-secret")
			},
			cause: "unauthorized", texts: []string{"refuses the user name, the password or the mechanism of sasl"},
		},
		"no user where one is needed": {
			directive: func(t *testing.T) string { t.Helper(); return toKafka(cluster(t, user("PLAIN", true)...)) },
			cause:     "unreachable", texts: []string{"the broker closes the connection; does it want tls or sasl, or none?"},
		},
		"unencrypted where TLS is needed": {
			directive: func(t *testing.T) string {
				t.Helper()
				option, _ := encrypted(t)
				return toKafka(cluster(t, option))
			},
			cause: "unreachable", texts: []string{"does it want tls"},
		},
		"TLS where it is not known": {
			directive: func(t *testing.T) string { t.Helper(); return toKafka(cluster(t), "tls") },
			cause:     "unreachable", texts: []string{"is tls set as the broker wants it?"},
		},
		"an unknown authority": {
			directive: func(t *testing.T) string {
				t.Helper()
				option, _ := encrypted(t)
				return toKafka(cluster(t, option), "tls")
			},
			cause: "unreachable", texts: []string{"certificate signed by unknown authority; name the file with the certificate of its authority: tls <ca_file>"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := provisioned(t, tt.directive(t))
			h.settle(t, tt.cause)
			for range 2 { // the second one also after an error
				h.publish(t.Context(), "{}"+tt.body).wantFailed(t, tt.cause, tt.texts...)
			}
		})
	}
}

func TestKafkaTakesMessagesWithUserAndTLS(t *testing.T) {
	t.Parallel()
	for name, mechanism := range map[string]string{"plain": "PLAIN", "scram-sha-256": "SCRAM-SHA-256", "scram-sha-512": "SCRAM-SHA-512"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			option, ca := encrypted(t)
			c := cluster(t, append(user(mechanism, true), option)...)
			h := provisioned(t, toKafka(c, "timeout 20s", "sasl "+name+" guard guard-secret", "tls "+ca))
			h.publish(t.Context(), "{}").wantOK(t)
		})
	}
}

// A message is on its way again as soon as another broker leads its partition.
func TestKafkaFollowsTheLeader(t *testing.T) {
	t.Parallel()
	c := cluster(t, kfake.NumBrokers(3), kfake.SeedTopics(1, topic))
	h := provisioned(t, patient(toKafka(c)))
	h.publish(t.Context(), "before").wantOK(t)
	for range 3 {
		leader := c.LeaderFor(topic, 0)
		if err := c.MoveTopicPartition(topic, 0, (leader+1)%3); err != nil {
			t.Fatal(err)
		}
		h.publish(t.Context(), "moved").wantOK(t)
	}
	leader := c.LeaderFor(topic, 0)
	if err := c.RemoveNode(leader); err != nil {
		t.Fatal(err)
	}
	h.publish(t.Context(), "the leader is gone").wantOK(t)
	if n := len(records(t, c.ListenAddrs()[0])); n != 5 {
		t.Errorf("%d records, want 5: none lost, none twice", n)
	}
}

// While brokers are gone, callers get the cause, and soon after they are back, OK.
func TestKafkaComesBack(t *testing.T) {
	t.Parallel()
	k := newKafka(t)
	h := provisioned(t, k.directive(""))
	h.warmUp(t)
	for range 2 {
		k.kill(t)
		for range 3 {
			h.publish(t.Context(), "gone").wantFailed(t, "unreachable", "is the broker running, is the address right, and is tls set as the broker wants it?")
		}
		k.start(t)
		back := time.Now()
		guardtest.Eventually(t, 10*time.Second, "it comes back", func() bool { return h.publish(t.Context(), "back").status == 200 })
		if took := time.Since(back); took > 3*time.Second {
			t.Errorf("OK %s after the broker was back", took)
		}
	}
	for _, m := range k.all(t) {
		if m.body == "gone" {
			t.Error("a message is there whose publishing has failed while no broker was running")
		}
	}
}

// A broker that cannot be reached, but is not needed, is not taken for the cause of later
// failures.
func TestKafkaForgetsErrorsOfBrokersThatAreNotNeeded(t *testing.T) {
	t.Parallel()
	c := cluster(t)
	gone := guardtest.FreePort(t)
	h := provisioned(t, strings.Replace(toKafka(c), "kafka ", "kafka "+gone+" ", 1))
	h.warmUp(t)
	time.Sleep(1200 * time.Millisecond)
	slow(c, 3*time.Second)
	h.publish(t.Context(), "{}").wantFailed(t, "timeout")
}

// Messages that wait for a slow broker have a limit, and leave at their deadline.
func TestKafkaBufferIsLimited(t *testing.T) {
	t.Parallel()
	c := cluster(t)
	h := provisioned(t, toKafka(c, "timeout 5s"))
	h.warmUp(t)
	slow(c, 20*time.Second)
	const full = "too many messages are waiting for the broker; is it slower than the callbacks come?"
	body := strings.Repeat("x", 1_000_000)
	causes := make(map[string]int)
	var mu sync.Mutex
	var callers sync.WaitGroup
	for range 100 {
		callers.Go(func() {
			o := h.publish(t.Context(), body)
			mu.Lock()
			defer mu.Unlock()
			causes[strings.TrimPrefix(o.err, "kafka: ")]++
			if strings.Contains(o.err, full) && o.took > 4*time.Second { // at once, as far as copying so much allows
				t.Errorf("answered after %s", o.took)
			}
		})
	}
	callers.Wait()
	if causes[full] < 100-(64<<20)/len(body)-1 || causes[full] == 100 {
		t.Errorf("%v", causes)
	}
	guardtest.Eventually(t, 20*time.Second, "the buffer is empty again", func() bool {
		o := h.publish(t.Context(), body)
		return !strings.Contains(o.err, full)
	})
}

// A caller that goes away does not take the messages of others with it, which may be in the
// same batch.
func TestKafkaMessagesDoNotShareTheirCallersFate(t *testing.T) {
	t.Parallel()
	c := cluster(t, kfake.SeedTopics(1, topic))
	h := provisioned(t, patient(toKafka(c)))
	h.publish(t.Context(), "first").wantOK(t)
	slow(c, 100*time.Millisecond)
	var callers sync.WaitGroup
	for i := range 40 {
		callers.Go(func() {
			if i%2 == 0 {
				ctx, cancel := context.WithCancel(t.Context())
				time.AfterFunc(50*time.Millisecond, cancel)
				h.publish(ctx, "goes")
				return
			}
			h.publish(t.Context(), fmt.Sprint("stays ", i)).wantOK(t)
		})
	}
	callers.Wait()
}

// silent returns the address of a listener that accepts connections and says nothing.
func silent(t *testing.T) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = listener.Close() })
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go func() { _, _ = io.Copy(io.Discard, conn) }()
		}
	}()
	return listener.Addr().String()
}

// random returns a text that cannot be compressed much.
func random(size int) string {
	text := make([]byte, size/2)
	_, _ = rand.Read(text)
	return hex.EncodeToString(text)
}
