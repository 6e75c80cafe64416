// SPDX-FileCopyrightText: 2026 The timguard authors
// SPDX-License-Identifier: Apache-2.0

package publish_test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/timguard/timguard/caddymodule/internal/guardtest"
)

const (
	topic      = "callbacks"
	partitions = 4
)

// kafka is a Kafka broker in a process of its own, which can be killed. What it has
// acknowledged survives that.
type kafka struct {
	dir     string
	address string
	process *exec.Cmd
	done    chan struct{}
	log     *guardtest.SyncBuffer
}

// kafkaArguments is the environment variable that makes the test binary run as a Kafka
// broker. It contains the port and the folder of its data.
const kafkaArguments = "TIMGUARD_TEST_KAFKA"

// TestKafkaProcess is not a test: it runs a broker in a process that a test started.
func TestKafkaProcess(*testing.T) {
	port, dir, ok := strings.Cut(os.Getenv(kafkaArguments), " ")
	if !ok {
		return
	}
	number, err := strconv.Atoi(port)
	if err == nil {
		_, err = kfake.NewCluster(kfake.NumBrokers(1), kfake.Ports(number), kfake.DataDir(dir), kfake.SeedTopics(partitions, topic))
	}
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	fmt.Println("Kafka runs")
	_, _ = os.Stdin.Read(make([]byte, 1)) // until the test has ended
	os.Exit(0)
}

func newKafka(tb testing.TB) *kafka {
	tb.Helper()
	k := &kafka{dir: tb.TempDir(), address: guardtest.FreePort(tb)}
	k.start(tb)
	tb.Cleanup(func() { k.kill(tb) })
	return k
}

func (k *kafka) start(tb testing.TB) {
	tb.Helper()
	k.log, k.done = new(guardtest.SyncBuffer), make(chan struct{})
	k.process = exec.Command(guardtest.Itself(), "-test.run=^TestKafkaProcess$")
	k.process.Env = append(os.Environ(), kafkaArguments+"="+portOf(k.address)+" "+k.dir)
	k.process.Stdout, k.process.Stderr = k.log, k.log
	if _, err := k.process.StdinPipe(); err != nil {
		tb.Fatal(err)
	}
	if err := k.process.Start(); err != nil {
		tb.Fatal(err)
	}
	go func(process *exec.Cmd, done chan struct{}) {
		_ = process.Wait()
		close(done)
	}(k.process, k.done)
	guardtest.Eventually(tb, 30*time.Second, "Kafka runs", func() bool {
		select {
		case <-k.done:
			tb.Fatalf("Kafka ended:\n%s", k.log)
		default:
		}
		return strings.Contains(k.log.String(), "Kafka runs")
	})
}

// kill ends the broker with SIGKILL.
func (k *kafka) kill(testing.TB) {
	_ = k.process.Process.Kill()
	<-k.done
}

// records returns all records of the topic, those of each partition in order.
func records(tb testing.TB, address string) (all []*kgo.Record) {
	tb.Helper()
	client, err := kgo.NewClient(kgo.SeedBrokers(address), kgo.ConsumeTopics(topic), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
	if err != nil {
		tb.Fatal(err)
	}
	defer client.Close()
	for { // until there is nothing more
		wait := 500 * time.Millisecond
		if len(all) == 0 {
			wait = 2 * time.Second
		}
		ctx, cancel := context.WithTimeout(tb.Context(), wait)
		fetches := client.PollFetches(ctx)
		cancel()
		if fetches.NumRecords() == 0 {
			return all
		}
		all = append(all, fetches.Records()...)
	}
}
