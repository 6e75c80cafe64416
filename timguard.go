// SPDX-FileCopyrightText: 2026 The timguard authors
// SPDX-License-Identifier: Apache-2.0

// Package timguard registers the tim_callback modules with Caddy. It exists so
// that xcaddy's --with can name the root of the module:
//
//	xcaddy build --with github.com/timguard/timguard
//
// The modules themselves live in package caddymodule.
package timguard

import _ "github.com/timguard/timguard/caddymodule" // register the Caddy modules
