// SPDX-FileCopyrightText: 2026 The timguard authors
// SPDX-License-Identifier: Apache-2.0

// Package metric registers collectors and bounds their labels.
package metric

import (
	"errors"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/timguard/timguard/caddymodule/callback"
)

// Register registers the collectors, unless another module of the same configuration has
// done so. Collectors live as long as the process, so that counts survive a reload; each
// configuration has a new registry.
func Register(registry prometheus.Registerer, collectors ...prometheus.Collector) error {
	for _, c := range collectors {
		err := registry.Register(c)
		if _, already := errors.AsType[prometheus.AlreadyRegisteredError](err); err != nil && !already {
			return err
		}
	}
	return nil
}

// Other is the label of everything that is not configured or not known, so that callers
// cannot create series.
const Other = "other"

// Command returns the label of a command.
func Command(command string) string {
	if _, known := callback.Lookup(command); known {
		return command
	}
	return Other
}
