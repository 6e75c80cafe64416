// SPDX-FileCopyrightText: 2026 The timguard authors
// SPDX-License-Identifier: Apache-2.0

package publish

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"os"

	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
)

// TLS are the options of an encrypted connection to a broker.
type TLS struct {
	// A file with the certificates of the authorities to trust, in PEM. It may be a
	// placeholder such as `{env.KAFKA_CA}`. Default: those of the system.
	CA string `json:"ca,omitempty"`
}

// UnmarshalOption parses the option tls, at which the dispenser is.
func (t *TLS) UnmarshalOption(d *caddyfile.Dispenser) error {
	if d.NextArg() {
		t.CA = d.Val()
	}
	if d.NextArg() {
		return d.Errf("tls: want at most one file with certificates, but got %q as well", d.Val())
	}
	return nil
}

// PEM returns the content of the file with the certificates, which identifies a client as the
// file's name does not. Without a file, it is empty.
func (t *TLS) PEM() (string, error) {
	if t == nil || t.CA == "" {
		return "", nil
	}
	path, err := Setting("tls", t.CA)
	if err != nil {
		return "", err
	}
	pem, err := os.ReadFile(path)
	if err != nil {
		return "", fmt.Errorf("tls: %w", err)
	}
	if !x509.NewCertPool().AppendCertsFromPEM(pem) {
		return "", fmt.Errorf("tls: %s contains no certificate in PEM", path)
	}
	return string(pem), nil
}

// TLSConfig returns the configuration of a client that trusts the authorities with the
// certificates, or those of the system if there are none.
func TLSConfig(pem string) *tls.Config {
	config := &tls.Config{MinVersion: tls.VersionTLS12}
	if pem != "" {
		config.RootCAs = x509.NewCertPool()
		config.RootCAs.AppendCertsFromPEM([]byte(pem))
	}
	return config
}
