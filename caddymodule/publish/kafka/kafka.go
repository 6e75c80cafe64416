// SPDX-FileCopyrightText: 2026 The timguard authors
// SPDX-License-Identifier: Apache-2.0

// Package kafka publishes callbacks to Apache Kafka, or a compatible broker such as
// Tencent's CKafka.
package kafka

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"

	"go.uber.org/zap"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"

	"github.com/timguard/timguard/caddymodule/internal/option"
	"github.com/timguard/timguard/caddymodule/publish"
)

func init() {
	caddy.RegisterModule(Broker{})
}

// Broker publishes callbacks to a topic of Kafka. A message is acknowledged when all in-sync
// replicas have it; how many these must be at least is the topic's `min.insync.replicas`.
// The producer is idempotent: what it repeats by itself is not there twice.
type Broker struct {
	// The addresses of some brokers of the cluster, with ports. They may be placeholders
	// such as `{env.KAFKA}`, whose value may have several, separated by commas. Required.
	Brokers []string `json:"brokers,omitempty"`

	// The topic, which must exist. It may contain placeholders. Required.
	Topic string `json:"topic,omitempty"`

	// The key of the message. Messages with the same key are in one partition, in the
	// order in which they were published. It may contain placeholders. Default:
	// `{http.tim_callback.conversation}`.
	Key string `json:"key,omitempty"`

	// Encrypts the connections if set.
	TLS *publish.TLS `json:"tls,omitempty"`

	// Authenticates with a user name and a password if set.
	SASL *SASL `json:"sasl,omitempty"`

	client  *client
	release func() error
}

// SASL are the options of authentication.
type SASL struct {
	// `plain`, `scram-sha-256` or `scram-sha-512`. Required.
	Mechanism string `json:"mechanism,omitempty"`

	// The user name. It may be a placeholder such as `{env.KAFKA_USER}`.
	User string `json:"user,omitempty"`

	// The password, which should be a placeholder such as `{env.KAFKA_PASSWORD}` or
	// `{file./run/secrets/kafka}`.
	Password string `json:"password,omitempty"`
}

const defaultKey = "{http.tim_callback.conversation}"

// CaddyModule returns the Caddy module information.
func (Broker) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{
		ID:  "tim_publish.brokers.kafka",
		New: func() caddy.Module { return new(Broker) },
	}
}

// Provision sets up the client, or takes that of another handler or configuration with
// equal settings. It does not connect.
func (b *Broker) Provision(ctx caddy.Context) error {
	if b.Key == "" {
		b.Key = defaultKey
	}
	if err := b.check(); err != nil {
		return err
	}
	s, err := b.settings()
	if err != nil {
		return err
	}
	if b.client, b.release, err = clients.Acquire(s, func() (*client, error) { return newClient(s) }); err != nil {
		return err
	}
	ctx.Logger().Info("publishing callbacks", zap.Strings("brokers", s.Brokers), zap.String("topic", b.Topic), zap.String("key", b.Key),
		zap.Bool("tls", s.TLS), zap.String("sasl", s.SASL.Mechanism))
	return nil
}

func (b *Broker) check() error {
	switch {
	case len(b.Brokers) == 0:
		return errors.New("want the address of a broker, such as 10.0.0.7:9092")
	case b.Topic == "":
		return errors.New("topic is missing: want topic <topic>")
	case b.SASL != nil && (b.SASL.Mechanism == "" || b.SASL.User == "" || b.SASL.Password == ""):
		return errors.New("sasl: want a mechanism, a user and a password")
	case b.SASL != nil && mechanisms[b.SASL.Mechanism] == nil:
		return fmt.Errorf("sasl %q: want plain, scram-sha-256 or scram-sha-512", b.SASL.Mechanism)
	}
	return errors.Join(publish.CheckText("topic", b.Topic), publish.CheckText("key", b.Key))
}

// settings returns the settings of the client, with placeholders replaced.
func (b *Broker) settings() (settings, error) {
	ca, err := b.TLS.PEM()
	s := settings{TLS: b.TLS != nil, CA: ca}
	failed := []error{err}
	replace := func(option, text string) string {
		got, err := publish.Setting(option, text)
		failed = append(failed, err)
		return got
	}
	for _, text := range b.Brokers {
		for address := range strings.SplitSeq(replace("broker", text), ",") {
			address = strings.TrimSpace(address)
			s.Brokers = append(s.Brokers, address)
			failed = append(failed, checkAddress(address))
		}
	}
	if b.SASL != nil {
		s.SASL = SASL{b.SASL.Mechanism, replace("sasl", b.SASL.User), replace("sasl", b.SASL.Password)}
	}
	return s, errors.Join(failed...)
}

func checkAddress(address string) error {
	_, port, err := net.SplitHostPort(address)
	if _, noNumber := strconv.ParseUint(port, 10, 16); err != nil || noNumber != nil {
		return fmt.Errorf("broker %q: want an address with a port, such as 10.0.0.7:9092", address)
	}
	return nil
}

// Cleanup releases the client, which waits for acknowledgements if it is not used any
// longer.
func (b *Broker) Cleanup() error {
	if b.release == nil {
		return nil
	}
	return b.release()
}

// Publish implements [publish.Broker].
func (b *Broker) Publish(ctx context.Context, m publish.Message) error {
	return b.client.publish(ctx, m.Replacer.ReplaceAll(b.Topic, ""), m.Replacer.ReplaceAll(b.Key, ""), m)
}

// UnmarshalCaddyfile sets up the broker from Caddyfile tokens. Syntax:
//
//	tim_publish kafka <broker>... {
//	    topic <topic>
//	    key   <key>
//	    tls   [<ca_file>]
//	    sasl  plain|scram-sha-256|scram-sha-512 <user> <password>
//	}
func (b *Broker) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next() // consume broker name
	b.Brokers = d.RemainingArgs()
	for d.NextBlock(0) {
		if err := b.unmarshalOption(d); err != nil {
			return err
		}
	}
	if err := b.check(); err != nil {
		return d.Err("kafka: " + err.Error())
	}
	return nil
}

func (b *Broker) unmarshalOption(d *caddyfile.Dispenser) error {
	switch d.Val() {
	case "topic":
		return option.Text(d, &b.Topic)
	case "key":
		return option.Text(d, &b.Key)
	case "tls":
		b.TLS = new(publish.TLS)
		return b.TLS.UnmarshalOption(d)
	case "sasl":
		b.SASL = new(SASL)
		if !d.AllArgs(&b.SASL.Mechanism, &b.SASL.User, &b.SASL.Password) {
			return d.Errf("sasl: want plain, scram-sha-256 or scram-sha-512, a user and a password")
		}
		return nil
	}
	return d.Errf("unknown option %q: want topic, key, header, timeout, tls or sasl", d.Val())
}

// Interface guards
var (
	_ caddy.Provisioner     = (*Broker)(nil)
	_ caddy.CleanerUpper    = (*Broker)(nil)
	_ caddyfile.Unmarshaler = (*Broker)(nil)
	_ publish.Broker        = (*Broker)(nil)
)
