// SPDX-FileCopyrightText: 2026 The timguard authors
// SPDX-License-Identifier: Apache-2.0

package publish_test

import (
	"testing"

	"github.com/timguard/timguard/caddymodule/internal/guardtest"
)

func TestCaddyfileAdaptsTo(t *testing.T) {
	t.Parallel()
	guardtest.CaddyfilesAdapt(t)
}
