// SPDX-FileCopyrightText: 2026 The timguard authors
// SPDX-License-Identifier: Apache-2.0

package command

import (
	"crypto/rand"
	"encoding/base64"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/timguard/timguard/caddymodule/delivery"
)

func keygenCommand() *cobra.Command {
	return subcommand("keygen", "Prints a new key for encrypt", `
Prints a new random key for the option encrypt of tim_delivery. Write it to a file
that only Caddy's user can read, and keep a copy: what is encrypted with it cannot
be delivered without it.`, cobra.NoArgs, func(cmd *cobra.Command, _ []string) error {
		key := make([]byte, delivery.KeySize)
		_, _ = rand.Read(key) // never fails
		_, err := fmt.Fprintln(cmd.OutOrStdout(), base64.StdEncoding.EncodeToString(key))
		return err
	})
}
