// SPDX-FileCopyrightText: 2026 The timguard authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"compress/gzip"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"
)

// hostileCase is a request that must not reach a backend as what it is.
type hostileCase struct {
	name   string
	why    string // what it does if it gets through
	change func(c *callback)
}

// secondReader marks the name of a case that does harm only where the one that
// reads the callback is not the one that checked it.
const secondReader = "°"

// notes say below the table what is arguable about it.
const notes = `
° does harm through a second reader. Behind a proxy the backend is one; an application that checks for itself has one only if it passes the callback on.

"Through" means that the backend, or the application's own handler, had it. A form counts if it arrives as one: PHP fills ` + "`$_POST`" + ` from it, Express was told to read every type as JSON, and timguard replaces the type.
Tencent's page calls ` + "`MsgSeq`" + ` an Integer and says no more: a comparison would refuse 4294967296 anywhere, but after cjson or JSON.parse nothing tells 1e3 from 1000.
Express unpacks gzip, within its limit, and drops a byte order mark before it checks, so what it checks is what it reads. JSON.parse makes a plain field of ` + "`__proto__`" + `; it does harm where code copies or merges the object.
`

// oversized is a body that no unguarded server here limits, and every guarded one
// must.
const oversized = 20 << 20

func cases() []hostileCase {
	return slices.Concat(signCases, queryCases, payloadCases, transportCases)
}

var signCases = []hostileCase{
	{"no `Sign`, no `RequestTime`", "anyone can send it", func(c *callback) {
		c.remove("Sign")
		c.remove("RequestTime")
	}},
	{"wrong `Sign`", "anyone can send it", func(c *callback) { c.set("Sign", strings.Repeat("0", 64)) }},
	{"`RequestTime` 120 s ago", "a leaked URL stays good", func(c *callback) { c.sign(-2 * time.Minute) }},
	{"`RequestTime` 120 s ahead", "a leaked URL stays good", func(c *callback) { c.sign(2 * time.Minute) }},
	{"`RequestTime` continued, with the `Sign` of that", "SHA-256 goes on without the token", (*callback).extend},
}

var queryCases = []hostileCase{
	{"`SdkAppid` of another app", "another customer's callback", func(c *callback) { c.set("SdkAppid", otherApp) }},
	{"`SdkAppid` ours, then another " + secondReader, "two readers see two apps", func(c *callback) { c.query = append(c.query, "SdkAppid="+otherApp) }},
	{"`SdkAppid` another, then ours " + secondReader, "two readers see two apps", func(c *callback) { c.prepend("SdkAppid=" + otherApp) }},
	{"`sdkappid` of another app beside ours " + secondReader, "a reader that folds case sees the other app", func(c *callback) { c.prepend("sdkappid=" + otherApp) }},
	{"`SdkAppid[]` of another app before ours " + secondReader, "to PHP it is the same name", func(c *callback) { c.prepend("SdkAppid[]=" + otherApp) }},
	{"`SdkAppid[]` of another app after ours " + secondReader, "to PHP it is the same name", func(c *callback) { c.query = append(c.query, "SdkAppid[]="+otherApp) }},
	{"unknown command", "not what the endpoint is for", func(c *callback) { c.command("Group.CallbackAfterNothing", "Group.CallbackAfterNothing") }},
	{"command with a space after it " + secondReader, "a reader that trims runs it", func(c *callback) { c.command(command+"%20", command+" ") }},
	{"a push, with a recall in the body " + secondReader, "checked as one, run as the other", func(c *callback) { c.set("CallbackCommand", "Push.AllMemberPush") }},
	{"another command in the body " + secondReader, "checked as one, run as the other", func(c *callback) { c.command(command, "Group.CallbackAfterGroupDestroyed") }},
}

var payloadCases = []hostileCase{
	{"no `GroupId`", "a required field", func(c *callback) { c.replace(`"GroupId":"1213456",`, ``) }},
	{"`GroupId` twice " + secondReader, "parsers differ in which one counts", func(c *callback) { c.replace(`"GroupId"`, `"GroupId":"other","GroupId"`) }},
	{"`groupid` beside `GroupId` " + secondReader, "Go and others that fold case take it", func(c *callback) { c.replace(`"Type"`, `"groupid":"other","Type"`) }},
	{"`__proto__` as a field " + secondReader, "JavaScript that copies it gets another prototype", func(c *callback) { c.replace(`"Type"`, `"__proto__":{"admin":true},"Type"`) }},
	{"`SdkAppid` of another app in the body " + secondReader, "frameworks that read the body before the query take it", func(c *callback) { c.replace(`"Type"`, `"SdkAppid":"`+otherApp+`","Type"`) }},
	{"`@type` as a field " + secondReader, "fastjson makes an object of the class that it names", func(c *callback) { c.replace(`"Type"`, `"@type":"java.net.URL","Type"`) }},
	{"`MsgSeqList` empty", "a recall of nothing", func(c *callback) { c.replace(`[{"MsgSeq":130}]`, `[]`) }},
	{"`MsgSeq` `\"12\"`", "a string for a number", func(c *callback) { c.replace(`130`, `"12"`) }},
	{"`MsgSeq` `1e3`", "a float where integers are read", func(c *callback) { c.replace(`130`, `1e3`) }},
	{"`MsgSeq` `4294967296`", "over uint32, it becomes 0 or an error", func(c *callback) { c.replace(`130`, `4294967296`) }},
	{"byte order mark before the JSON " + secondReader, "no JSON: some parsers fail on it", func(c *callback) { c.body = "\xef\xbb\xbf" + c.body }},
	{"invalid UTF-8 in `GroupId` " + secondReader, "each reader makes another id of it", func(c *callback) { c.replace(`"1213456"`, "\"1213456\xff\"") }},
	{"100,000 arrays in each other", "parsers that recurse end in an overflow", func(c *callback) {
		c.replace(`"Type"`, `"x":`+strings.Repeat("[", 100_000)+strings.Repeat("]", 100_000)+`,"Type"`)
	}},
}

var transportCases = []hostileCase{
	{"20 MB of body", "memory", func(c *callback) { c.replace(`"Type"`, `"x":"`+strings.Repeat("x", oversized)+`","Type"`) }},
	{"`Content-Type` of a form, `GroupId` in a string " + secondReader, "PHP, Go and others read the form", func(c *callback) {
		c.header.Set("Content-Type", "application/x-www-form-urlencoded")
		c.replace(`"admin"`, `"&GroupId=other&"`)
	}},
	{"a `Cookie` with another `SdkAppid` " + secondReader, "PHP's `$_REQUEST` has it", func(c *callback) { c.header.Set("Cookie", "SdkAppid="+otherApp) }},
	{"`X-HTTP-Method-Override` " + secondReader, "frameworks take it for the method", func(c *callback) { c.header.Set("X-Http-Method-Override", "DELETE") }},
	{"a trailer " + secondReader, "some servers merge it with the headers", func(c *callback) { c.trailer = http.Header{"X-Forwarded-For": {"127.0.0.1"}} }},
	{"gzip " + secondReader, "what was checked is not what is read", func(c *callback) {
		c.header.Set("Content-Encoding", "gzip")
		c.body = compressed(c.body)
	}},
}

func compressed(s string) string {
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	_, err := w.Write([]byte(s))
	must(err)
	must(w.Close())
	return b.String()
}

func unixSeconds(offset time.Duration) string {
	return strconv.FormatInt(time.Now().Add(offset).Unix(), 10)
}
