// SPDX-FileCopyrightText: 2026 The timguard authors
// SPDX-License-Identifier: Apache-2.0

// Package callback judges the callbacks ("third-party callbacks", webhooks) of
// Tencent Cloud Chat (IM): the query of the request, its Sign, and the payload
// of every known command. It knows nothing of HTTP servers; it works on the raw
// query and on the bytes of the body, and never changes either.
//
// The protocol is described by Tencent in
// https://www.tencentcloud.com/document/product/1047/34354 (webhook overview),
// https://www.tencentcloud.com/document/product/1047/34520 (console) and, for
// the command this package was founded for,
// https://www.tencentcloud.com/document/product/1047/46979 (a group message
// was recalled).
//
// One callback is judged in three steps:
//
//	query, err := callback.ParseQuery(rawQuery)
//	token, skew, err := verifier.Verify(query)
//	event, err := callback.Inspect(body, query.CallbackCommand)
//
// Every error of the package is a [*Rejection].
package callback
