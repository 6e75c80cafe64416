// SPDX-FileCopyrightText: 2026 The timguard authors
// SPDX-License-Identifier: Apache-2.0

package kafka

import (
	"context"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/timguard/timguard/caddymodule/publish"
)

func TestATopicThatIsMadeAnewIsFound(t *testing.T) {
	t.Parallel()
	cluster, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(1, "im"))
	if err != nil {
		t.Fatal(err)
	}
	defer cluster.Close()
	c, err := newClient(settings{Brokers: cluster.ListenAddrs()})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Destruct() }()
	put := func() error {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		return c.publish(ctx, "im", "key", publish.Message{Body: []byte("{}")})
	}
	if err := put(); err != nil {
		t.Fatal(err)
	}
	makeAnew(t, cluster, "im")
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(100 * time.Millisecond) {
		if err = put(); err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("not within 10 s: %v", err)
		}
	}
}

func makeAnew(t *testing.T, cluster *kfake.Cluster, topic string) {
	t.Helper()
	admin, err := kgo.NewClient(kgo.SeedBrokers(cluster.ListenAddrs()...))
	if err != nil {
		t.Fatal(err)
	}
	defer admin.Close()
	remove := kmsg.NewPtrDeleteTopicsRequest()
	remove.TopicNames = []string{topic}
	remove.Topics = []kmsg.DeleteTopicsRequestTopic{{Topic: &topic}}
	if _, err := remove.RequestWith(context.Background(), admin); err != nil {
		t.Fatal(err)
	}
	create := kmsg.NewPtrCreateTopicsRequest()
	create.Topics = []kmsg.CreateTopicsRequestTopic{{Topic: topic, NumPartitions: 1, ReplicationFactor: 1}}
	if _, err := create.RequestWith(context.Background(), admin); err != nil {
		t.Fatal(err)
	}
}
