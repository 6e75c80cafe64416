// SPDX-FileCopyrightText: 2026 The timguard authors
// SPDX-License-Identifier: Apache-2.0

// Package callback verifies the callbacks ("third-party callbacks", webhooks) of
// Tencent Cloud Chat (IM): the query of the request, its Sign, and the payloads
// of all known commands. It is independent of HTTP servers: it works on the raw
// query and the bytes of the body, and modifies neither.
//
// The protocol is described by Tencent in
// https://www.tencentcloud.com/document/product/1047/34354 (webhook overview),
// https://www.tencentcloud.com/document/product/1047/34520 (console) and, as an
// example of a command,
// https://www.tencentcloud.com/document/product/1047/46979 (a group message
// was recalled).
//
// A callback is verified in three steps:
//
//	query, err := callback.ParseQuery(rawQuery)
//	token, skew, err := verifier.Verify(query)
//	event, err := callback.Inspect(body, query.CallbackCommand)
//
// Each of these errors is a [*Rejection].
package callback
