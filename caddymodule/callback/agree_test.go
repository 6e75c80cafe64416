// SPDX-FileCopyrightText: 2026 The timguard authors
// SPDX-License-Identifier: Apache-2.0

package callback

import (
	"bytes"
	"fmt"
	"maps"
	"strconv"
	"strings"
	"testing"

	"github.com/go-json-experiment/json/jsontext"
)

// FuzzInspectAgree checks that all available parsers read an accepted payload as the
// guard does. The text is used as the whole payload and, because few such payloads are
// valid, as additional members of a valid one.
func FuzzInspectAgree(f *testing.F) {
	requireInterpreters(f)
	for i, c := range commands {
		f.Add(uint8(i), Sample(c.Name))
	}
	for _, members := range oddMembers {
		f.Add(uint8(0), []byte(members))
	}
	f.Fuzz(func(t *testing.T, command uint8, text []byte) {
		chosen := commands[int(command)%len(commands)].Name
		wantAgreement(t, text, RecallCommand)
		wantAgreement(t, text, chosen)
		wantAgreement(t, text, "Future.CallbackAfterAnything")
		wantAgreement(t, sampleWith(chosen, string(text)), chosen)
	})
}

// FuzzParseQueryAgree checks that all available parsers read the parameters of an
// accepted query as the guard does.
func FuzzParseQueryAgree(f *testing.F) {
	requireInterpreters(f)
	f.Add(sampleQuery)
	for _, raw := range oddQueries {
		f.Add(raw)
	}
	f.Fuzz(func(t *testing.T, raw string) {
		wantQueryAgreement(t, raw)
		wantQueryAgreement(t, raw+"&"+sampleQuery)
	})
}

// TestParsersAgreeOnPayloads adds odd members to every command's sample, and puts odd
// text in every position of the recall's sample and some others.
func TestParsersAgreeOnPayloads(t *testing.T) {
	t.Parallel()
	requireInterpreters(t)
	accepted, tried := 0, 0
	try := func(body []byte, command string) {
		tried++
		if wantAgreement(t, body, command) {
			accepted++
		}
	}
	for i, c := range commands {
		body := Sample(c.Name)
		try(body, c.Name)
		for _, members := range oddMembers {
			try(sampleWith(c.Name, members), c.Name)
		}
		if i%5 != 0 {
			continue
		}
		eachToken(t, body, func(start, end int, kind jsontext.Kind) {
			for _, odd := range oddTokens(string(body[start:end]), kind) {
				try([]byte(string(body[:start])+odd+string(body[end:])), c.Name)
			}
		})
	}
	t.Logf("%d of %d payloads were accepted", accepted, tried)
	if accepted < tried/10 || accepted > tried*9/10 {
		t.Error("the payloads are too good or too bad to tell anything")
	}
}

// TestParsersAgreeOnQueries puts every byte, raw and escaped, in every position of
// every parameter's name and value.
func TestParsersAgreeOnQueries(t *testing.T) {
	t.Parallel()
	requireInterpreters(t)
	accepted, tried := 0, 0
	try := func(raw string) {
		tried++
		if wantQueryAgreement(t, raw) {
			accepted++
		}
	}
	try(sampleQuery)
	for _, raw := range oddQueries {
		try(raw)
		try(raw + "&" + sampleQuery)
	}
	for _, name := range parameters {
		pair := name + "=17"
		for c := range 256 {
			if c > 0x80 && !strings.ContainsRune("\u0085\u00a0\u00c3\u00ff", rune(c)) {
				continue // some Latin-1 spaces and parts of UTF-8 are enough; the rest behave alike
			}
			for _, at := range []int{0, len(name) / 2, len(name), len(name) + 1, len(pair)} {
				try(pair[:at] + string([]byte{byte(c)}) + pair[at:])
				try(fmt.Sprintf("%s%%%02X%s&x=1", pair[:at], c, pair[at:]))
			}
		}
	}
	t.Logf("%d of %d queries were accepted", accepted, tried)
	if accepted < tried/10 || accepted > tried*9/10 {
		t.Error("the queries are too good or too bad to tell anything")
	}
}

// wantAgreement reports whether the guard accepts the payload. If so, it fails the
// test if a parser reads it differently.
func wantAgreement(t *testing.T, body []byte, command string) bool {
	t.Helper()
	event, err := Inspect(body, command)
	if err != nil {
		return false
	}
	written, err := exactlyOf(body)
	if err != nil {
		t.Fatalf("%v; %s body %.2000q", err, command, body)
	}
	fields := fieldsOf(command)
	wantEvent(t, event, written, fields, body)
	all := goReadings(body)
	maps.Copy(all, readings(t, "json", body))
	for parser, got := range all {
		if d := differ(written, got, fields, true); d != "" {
			t.Errorf("%s, %s%s; body %.2000q", parser, command, d, body)
		}
		if got.Kind != "refused" {
			wantEvent(t, event, got, fields, body)
		}
	}
	kept := written.pruned(fields)
	for parser, got := range structReadings(body, fields) {
		if d := differ(kept, got, fields, true); d != "" {
			t.Errorf("%s, %s%s; body %.2000q", parser, command, d, body)
		}
	}
	return true
}

// wantEvent compares the Event with what was read.
func wantEvent(t *testing.T, event Event, got *value, fields []Field, body []byte) {
	t.Helper()
	for name, here := range map[string]string{
		"CallbackCommand": event.Command, "GroupId": event.GroupID, "TopicId": event.TopicID, "Operator_Account": event.Operator, "Type": event.GroupType,
	} {
		there := got.member(name)
		if fieldNamed(fields, name).Type&String == 0 || there == nil {
			continue
		}
		if there.Kind == "string" && unhexed(there.Text) != here {
			t.Errorf("%s is %q to the guard and %q to a parser; body %.2000q", name, here, unhexed(there.Text), body)
		}
	}
	if event.EventTime == 0 {
		return
	}
	there := got.member("EventTime")
	if there == nil {
		t.Errorf("the guard reads an EventTime that a parser does not; body %.2000q", body)
		return
	}
	if n, err := strconv.ParseInt(unhexed(there.Text), 10, 64); err != nil || n != event.EventTime {
		t.Errorf("EventTime is %d to the guard and %q to a parser; body %.2000q", event.EventTime, unhexed(there.Text), body)
	}
}

// wantQueryAgreement reports whether the guard accepts the query. If so, it fails the
// test if a parser reads another value of a protocol parameter, or a name that could
// be taken for one.
func wantQueryAgreement(t *testing.T, raw string) bool {
	t.Helper()
	q, err := ParseQuery(raw)
	if err != nil {
		return false
	}
	here := []string{q.SdkAppID, q.CallbackCommand, q.ContentType, q.ClientIP, q.OptPlatform, q.Sign, q.RequestTime}
	all := goQueryReadings(raw)
	maps.Copy(all, readings(t, "query", []byte(raw)))
	for parser, got := range all {
		if got.Kind != "object" {
			t.Errorf("%s: %s %q; query %.2000q", parser, got.Kind, unhexed(got.Text), raw)
			continue
		}
		for i, name := range parameters {
			if there, ok := got.member(name).only(); !ok || there != here[i] {
				t.Errorf("%s: %s is %q, and %q to the guard; query %.2000q", parser, name, there, here[i], raw)
			}
		}
		for other := range got.Members {
			for _, name := range parameters {
				if seen := unhexed(other); seen != name && strings.EqualFold(strings.TrimSpace(seen), name) {
					t.Errorf("%s: %q stands beside %s; query %.2000q", parser, seen, name, raw)
				}
			}
		}
	}
	return true
}

// only returns the only value of a parameter, or "" if it is absent.
func (v *value) only() (string, bool) {
	switch {
	case v == nil:
		return "", true
	case len(v.Elements) != 1 || v.Elements[0].Kind != "string":
		return v.Kind, false
	}
	return unhexed(v.Elements[0].Text), true
}

// sampleWith returns the command's sample with additional members at its end.
func sampleWith(command, members string) []byte {
	return append(bytes.TrimSuffix(Sample(command), []byte("}")), ","+members+"}"...)
}

// eachToken calls f for every scalar and name of the payload.
func eachToken(t *testing.T, body []byte, f func(start, end int, kind jsontext.Kind)) {
	t.Helper()
	dec := jsontext.NewDecoder(bytes.NewBuffer(body))
	for dec.PeekKind() != 0 {
		token, err := dec.ReadToken()
		if err != nil {
			t.Fatal(err)
		}
		kind, end := token.Kind(), int(dec.InputOffset())
		if _, n := dec.StackIndex(dec.StackDepth()); kind == '"' && n%2 == 1 && bytes.HasPrefix(body[end:], []byte(":")) {
			kind = 'n' // a name
		}
		switch kind {
		case '0':
			f(bytes.LastIndexAny(body[:end], ":[, ")+1, end, kind)
		case '"', 'n':
			f(bytes.LastIndexByte(body[:end-1], '"'), end, kind)
		}
	}
}

// oddTokens returns valid and invalid replacements for a name, string or number.
func oddTokens(literal string, kind jsontext.Kind) []string {
	switch kind {
	case 'n':
		text := strings.Trim(literal, `"`)
		escaped := fmt.Sprintf(`\u%04x%s`, text[0], text[1:])
		return []string{
			`"` + escaped + `"`, `"` + strings.ToLower(text) + `"`, `"` + text + `\u0000"`, `"x":` + literal + `,` + literal,
			literal + `:1,` + literal, literal + `:1,"` + escaped + `"`, `"` + strings.Replace(text, "s", "\u017f", 1) + `"`,
			`"x":1,` + literal, ` ` + literal + "\r\n\t",
		}
	case '"':
		text := strings.Trim(literal, `"`)
		escaped := fmt.Sprintf(`\u%04X%s`, text[0], text[1:])
		return []string{
			`"` + escaped + `"`, `""`, `" "`, `"\u0000"`, `"` + text + `\u0000x"`, `"\ud83d\ude00"`, `"\ud83d"`, "\"\xff\"", "\"\u2028\ufeff\ufffd\"", `"\/\"\\\b\f\n\r\t"`,
			`"\uFFFF"`, "\"\x7f\"", "\"\t\"", `1`, `null`, `"1"`, `"0"`, `"007"`, `"9007199254740991"`, `"9007199254740993"`, `"9223372036854775807"`, `"\u0661"`, `"-0"`,
		}
	}
	return []string{
		`0`, `1`, `-1`, `-0`, `1.0`, `1e2`, `1E400`, `4294967295`, `4294967296`, `2147483648`, `9007199254740991`, `9007199254740992`, `9007199254740993`,
		`-9007199254740991`, `-9007199254740992`, `-9007199254740993`, `9223372036854775807`, `9223372036854775808`, `18446744073709551615`,
		`"1"`, `"1670574414123"`, `"9007199254740993"`, `null`, `true`, `" 1"`, `01`, `+1`, `NaN`,
	}
}

var (
	// oddMembers are not of any command.
	oddMembers = []string{
		`"x":null`, `"":""`, `"x":{"":[{}]}`, `"\u0000x":1`, `"x\u0000":1`, `"x":{"\u0000":1}`, `"x":[{"\u0000y":1}]`, `"x":"\u0000"`,
		`"x":1e400`, `"x":[-1e400]`, `"x":1e-400`, `"x":-0`, `"x":1e308`, `"x":9007199254740993`, `"x":18446744073709551616`, `"x":1.000000000000000000001`,
		`"x":` + strings.Repeat("9", 5000), `"x":0.` + strings.Repeat("9", 5000), `"x":{"y":` + strings.Repeat("1", 310) + `}`,
		`"__proto__":{"GroupId":"x"}`, `"constructor":1,"toString":2,"length":3`, `"0":1,"1":2`, `"00":1,"0":2`, `"-1":1,"1.0":2`, `"x":{"0":1,"1":2}`, `"x":{"1":1}`,
		`"x":[],"y":{}`, `"x":"\ud83d\ude00"`, `"\ud83d\ude00":1`, "\"\u2028\":\"\u2029\"", "\"\ufeff\":1", `"x":"\ufffe"`, `"this":1`, `"x":[[[[[[[[[[[[[[]]]]]]]]]]]]]]`,
		`"groupid":"x"`, `"GROUPID":"x"`, `"x":{"GroupId":1,"groupid":2}`, `"x":1,"x":2`, `"x":1,"\u0078":2`,
	}

	oddQueries = []string{
		"?Sign=1", "?SdkAppid=2&SdkAppid=1", "??Sign=1", "%3FSign=1", "&?Sign=1", "Sign?=1",
		"OptPlatform=\u5e73\u53f0", "OptPlatform=%E5%B9%B3", "OptPlatform=\u5e73+%41", "\u5e73=1", "x=\u5e73\xff&SdkAppid=1",
		strings.Repeat("x&", 999) + "SdkAppid=1", strings.Repeat("x&", 1000) + "SdkAppid=1", strings.Repeat("&", 1000) + "SdkAppid=1", strings.Repeat("x=1&", 20000) + "SdkAppid=1",
		strings.Repeat("x&", 993) + sampleQuery, strings.Repeat("x[]=1&", 999) + "SdkAppid=1", "SdkAppid=1" + strings.Repeat("&x=2", 1001),
		"x" + strings.Repeat("[]", 100) + "=1&SdkAppid=1", "[Sign=1", "]Sign=1", "x[Sign=1", "x[Sign]=1", "x[=1&Sign=2", "_Sign=1", "Sign_=1",
		"=1&SdkAppid=2", "=&=&==", "&&&", "SdkAppid", "SdkAppid=", "=SdkAppid=1", "SdkAppid==1", "SdkAppid=1=2", "SdkAppid%3D1", "SdkAppid=1%26Sign=2",
		"__proto__=1&SdkAppid=2", "constructor=1&hasOwnProperty=2&SdkAppid=3", "__proto__[Sign]=1", "GLOBALS=1&this=2&_GET[Sign]=3&SdkAppid=4",
		"SdkAppid=1&SdkAppid=2", "SdkAppid[]=1", "Sdk.Appid=1", "Sdk+Appid=1", "+SdkAppid=1", "Sign=%zz", "a;b=c", "SdkAppid=1;Sign=2", "x=%00&%00Sign=1", "Sign%00x=1", "x%00&Sign=2",
		"OptPlatform=%C3%28", "OptPlatform=%EF%BB%BF1", "OptPlatform=%EF%BF%BD", "OptPlatform=%F0%9F%98%80", "OptPlatform=%ED%A0%BD", "%EF%BB%BFx=1&Sign=2", "%C5%BFign=1", "Sign=1#x",
		"x=%C3&SdkAppid=1", "%C3=1&SdkAppid=1", "x=%&SdkAppid=1", "ClientIP=%2B+%20%25", "ClientIP=2001:db8::1%25eth0", "amp%3BSign=1", "Sign=1&amp%3BSign=2", "Sign%C2%A0=1", "%E3%80%80Sign=1", "%53ign=1", "S%69gn=1&RequestTime=%31",
	}
)
