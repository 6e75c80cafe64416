// SPDX-FileCopyrightText: 2026 The timguard authors
// SPDX-License-Identifier: Apache-2.0

package kafka

import (
	"crypto/tls"
	"crypto/x509"
	"path/filepath"
	"testing"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/caddyserver/caddy/v2"

	"github.com/timguard/timguard/caddymodule/internal/guardtest"
	"github.com/timguard/timguard/caddymodule/publish"
)

// A reload trusts the authorities that are in the file then.
func TestAClientBelongsToTheContentOfItsFileOfAuthorities(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "ca.pem")
	load := func() *client {
		ctx, cancel := caddy.NewContext(caddy.Context{Context: t.Context()})
		t.Cleanup(cancel)
		b := &Broker{Brokers: []string{"10.0.0.7:9092"}, Topic: "im", TLS: &publish.TLS{CA: file}}
		if err := b.Provision(ctx); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = b.Cleanup() })
		return b.client
	}
	guardtest.WriteAuthority(t, file)
	first := load()
	if load() != first {
		t.Error("the same file has another client")
	}
	guardtest.WriteAuthority(t, file)
	if other := load(); other == first || roots(other).Equal(roots(first)) {
		t.Error("the new file is not used")
	}
}

func roots(c *client) *x509.CertPool {
	return c.kafka.OptValue(kgo.DialTLSConfig).(*tls.Config).RootCAs
}
