// SPDX-FileCopyrightText: 2026 The timguard authors
// SPDX-License-Identifier: Apache-2.0

package caddymodule_test

import _ "github.com/timguard/timguard" // tests load examples and dashboards, which use deliveries
