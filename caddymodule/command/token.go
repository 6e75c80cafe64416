// SPDX-FileCopyrightText: 2026 The timguard authors
// SPDX-License-Identifier: Apache-2.0

package command

import (
	"fmt"
	"os"

	"github.com/spf13/pflag"

	"github.com/timguard/timguard/caddymodule/internal/option"
)

// tokenFlag is the flag --token, which may be a placeholder.
type tokenFlag string

func (t *tokenFlag) add(flags *pflag.FlagSet, usage string) {
	flags.StringVar((*string)(t), "token", os.Getenv("TIM_CALLBACK_TOKEN"), usage+" (default: $TIM_CALLBACK_TOKEN)")
	flags.Lookup("token").DefValue = "" // the help must not show the variable's value
}

// resolve returns the token. It fails if a placeholder has no value.
func (t *tokenFlag) resolve() (string, error) {
	token, err := option.Replace(string(*t))
	if err != nil {
		return "", fmt.Errorf("--token: %w", err)
	}
	return token, nil
}
