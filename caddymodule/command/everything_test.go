// SPDX-FileCopyrightText: 2026 The timguard authors
// SPDX-License-Identifier: Apache-2.0

package command_test

import (
	_ "github.com/caddyserver/caddy/v2/modules/standard" // sites have more than guards

	_ "github.com/timguard/timguard" // with both stores
)
