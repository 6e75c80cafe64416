// SPDX-FileCopyrightText: 2026 The timguard authors
// SPDX-License-Identifier: Apache-2.0

// Package amqp publishes callbacks to RabbitMQ, or another broker with AMQP 0-9-1.
package amqp

import (
	"cmp"
	"context"
	"errors"

	"github.com/rabbitmq/amqp091-go"
	"go.uber.org/zap"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"

	"github.com/timguard/timguard/caddymodule/internal/option"
	"github.com/timguard/timguard/caddymodule/publish"
)

func init() {
	caddy.RegisterModule(Broker{})
}

// Broker publishes callbacks to an exchange of RabbitMQ. The messages are persistent. They are
// acknowledged when the broker has confirmed that all queues that they were routed to have
// stored them; a message that is routed to no queue is a failure. The `message_id` of a message
// is the `event_id` of the callback.
type Broker struct {
	// The URL, such as `amqps://user:password@10.0.0.8/vhost`. It may be a placeholder
	// such as `{env.AMQP_URL}`. Required.
	URL string `json:"url,omitempty"`

	// The exchange, which must exist. It may be a placeholder such as `{env.EXCHANGE}`.
	// Default: the default exchange, which routes a message to the queue that has the
	// routing key as its name.
	Exchange string `json:"exchange,omitempty"`

	// The routing key. It may contain placeholders. Default: with an exchange,
	// `{http.tim_callback.command}`, so that queues of a topic exchange can be bound by
	// patterns such as `Group.#`. It is required without one.
	RoutingKey string `json:"routing_key,omitempty"`

	// Options of TLS, which URLs with `amqps` use.
	TLS *publish.TLS `json:"tls,omitempty"`

	client  *client
	release func() error
}

const defaultRoutingKey = "{http.tim_callback.command}"

// CaddyModule returns the Caddy module information.
func (Broker) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{
		ID:  "tim_publish.brokers.amqp",
		New: func() caddy.Module { return new(Broker) },
	}
}

// Provision sets up the client, or takes that of another handler or configuration with
// equal settings. It does not connect.
func (b *Broker) Provision(ctx caddy.Context) error {
	if err := b.check(); err != nil {
		return err
	}
	b.RoutingKey = cmp.Or(b.RoutingKey, defaultRoutingKey)
	url, err := publish.Setting("url", b.URL)
	if err != nil {
		return err
	}
	exchange, err := publish.Setting("exchange", b.Exchange)
	if err != nil {
		return err
	}
	uri, err := amqp091.ParseURI(url)
	if err != nil { // which may contain the password
		return errors.New("malformed URL: want amqp://<user>:<password>@<host>[:<port>][/<vhost>]")
	}
	if b.TLS != nil && uri.Scheme != "amqps" {
		return errors.New("tls needs a URL that begins with amqps://")
	}
	ca, err := b.TLS.PEM()
	if err != nil {
		return err
	}
	s := settings{url, exchange, b.TLS != nil, ca}
	if b.client, b.release, err = clients.Acquire(s, func() (*client, error) { return newClient(s), nil }); err != nil {
		return err
	}
	ctx.Logger().Info("publishing callbacks", zap.String("host", uri.Host), zap.Int("port", uri.Port), zap.String("vhost", uri.Vhost),
		zap.String("exchange", exchange), zap.String("routing_key", b.RoutingKey), zap.Bool("tls", uri.Scheme == "amqps"))
	return nil
}

func (b *Broker) check() error {
	switch {
	case b.URL == "":
		return errors.New("want one URL, such as {env.AMQP_URL}")
	case b.Exchange == "" && b.RoutingKey == "":
		return errors.New("want an exchange, or a routing_key, which then is the name of a queue")
	}
	return publish.CheckText("routing_key", b.RoutingKey)
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
	return b.client.publish(ctx, m.Replacer.ReplaceAll(b.RoutingKey, ""), m)
}

// UnmarshalCaddyfile sets up the broker from Caddyfile tokens. Syntax:
//
//	tim_publish amqp <url> {
//	    exchange    <name>
//	    routing_key <key>
//	    tls         [<ca_file>]
//	}
func (b *Broker) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next() // consume broker name
	if !d.AllArgs(&b.URL) {
		return d.Errf("amqp: want one URL, such as {env.AMQP_URL}")
	}
	for d.NextBlock(0) {
		if err := b.unmarshalOption(d); err != nil {
			return err
		}
	}
	if err := b.check(); err != nil {
		return d.Err("amqp: " + err.Error())
	}
	return nil
}

func (b *Broker) unmarshalOption(d *caddyfile.Dispenser) error {
	switch d.Val() {
	case "exchange":
		return option.Text(d, &b.Exchange)
	case "routing_key":
		return option.Text(d, &b.RoutingKey)
	case "tls":
		b.TLS = new(publish.TLS)
		return b.TLS.UnmarshalOption(d)
	}
	return d.Errf("unknown option %q: want exchange, routing_key, header, timeout or tls", d.Val())
}

// Interface guards
var (
	_ caddy.Provisioner     = (*Broker)(nil)
	_ caddy.CleanerUpper    = (*Broker)(nil)
	_ caddyfile.Unmarshaler = (*Broker)(nil)
	_ publish.Broker        = (*Broker)(nil)
)
