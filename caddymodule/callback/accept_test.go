// SPDX-FileCopyrightText: 2026 The timguard authors
// SPDX-License-Identifier: Apache-2.0

package callback

import (
	"bytes"
	"compress/gzip"
	"errors"
	"strings"
	"testing"
	"time"
	"unicode/utf16"
)

const failAnswer = `{"ActionStatus":"FAIL","ErrorInfo":"","ErrorCode":1}`

func zipped(t *testing.T, text string) string {
	t.Helper()
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	_, _ = w.Write([]byte(text))
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func inUTF16(text string) string {
	b := []byte{0xff, 0xfe}
	for _, unit := range utf16.Encode([]rune(text)) {
		b = append(b, byte(unit), byte(unit>>8))
	}
	return string(b)
}

func TestAnswersAcceptByTheirForm(t *testing.T) {
	t.Parallel()
	const ok = `{"ActionStatus":"OK","ErrorInfo":"","ErrorCode":0}`
	const form, fail, gone = "form", "says FAIL", "status"
	for name, tt := range map[string]struct {
		answer        BackendAnswer
		sound, answr  string // what the error is about; empty if the answer is accepted
		pointer, any2 string // of accept /code 0 ok, and of accept 2xx
	}{
		"OK":                          {BackendAnswer{200, "", "", []byte(ok)}, "", "", form, ""},
		"OK, and a code":              {BackendAnswer{200, "application/json", "", []byte(`{"code":0}`)}, "", "", "", ""},
		"a code as a string":          {BackendAnswer{200, "application/json", "", []byte(`{"a":{"code":9},"code":"ok"}`)}, "", "", "", ""},
		"another code":                {BackendAnswer{200, "application/json", "", []byte(`{"code":500,"msg":"x"}`)}, "", "", form, ""},
		"nothing":                     {BackendAnswer{200, "text/html; charset=UTF-8", "", nil}, "", form, form, ""},
		"white space":                 {BackendAnswer{200, "", "", []byte(" \r\n")}, "", form, form, ""},
		"no content":                  {BackendAnswer{204, "", "", nil}, "", form, form, ""},
		"ok":                          {BackendAnswer{200, "text/html; charset=UTF-8", "", []byte("ok\n")}, "", form, form, ""},
		"success":                     {BackendAnswer{200, "text/plain", "", []byte("SUCCESS")}, "", form, form, ""},
		"ok in GBK, which is ASCII":   {BackendAnswer{200, "text/html; charset=GBK", "", []byte("ok")}, "", form, form, ""},
		"queued":                      {BackendAnswer{202, "text/plain", "", []byte("queued.")}, "", form, form, ""},
		"done in Chinese":             {BackendAnswer{200, "text/plain; charset=utf-8", "", []byte("成功")}, "", form, form, ""},
		"a JSON string":               {BackendAnswer{200, "", "", []byte(`"ok"`)}, "", form, form, ""},
		"an array":                    {BackendAnswer{200, "", "", []byte("[1,2]")}, "", form, form, ""},
		"null":                        {BackendAnswer{200, "", "", []byte("null")}, "", form, form, ""},
		"a number":                    {BackendAnswer{200, "", "", []byte("1")}, "", form, form, ""},
		"identity":                    {BackendAnswer{200, "", "identity", []byte(ok)}, "", "", form, ""},
		"OK, gzip":                    {BackendAnswer{200, "", "gzip", []byte(zipped(t, ok))}, "", "", form, ""},
		"OK, gzip that is not said":   {BackendAnswer{200, "", "", []byte(zipped(t, ok))}, "", "", form, ""},
		"OK behind a mark":            {BackendAnswer{200, "", "", []byte("\ufeff" + ok)}, "", "", form, ""},
		"FAIL in another name":        {BackendAnswer{200, "", "", []byte(`{"actionstatus":"FAIL"}`)}, "", "", form, ""},
		"FAIL within a member":        {BackendAnswer{200, "", "", []byte(`{"ActionStatus":"OK","other":{"ActionStatus":"FAIL"}}`)}, "", "", form, ""},
		"FAIL":                        {BackendAnswer{200, "", "", []byte(failAnswer)}, fail, fail, fail, ""},
		"FAIL, escaped":               {BackendAnswer{201, "", "", []byte(`{"Action\u0053tatus":"\u0046AIL"}`)}, fail, fail, fail, ""},
		"FAIL in lower case":          {BackendAnswer{200, "", "", []byte(`{"ActionStatus":"fail"}`)}, fail, fail, fail, ""},
		"FAIL behind a mark":          {BackendAnswer{200, "", "", []byte("\ufeff" + failAnswer)}, fail, fail, fail, ""},
		"FAIL, gzip":                  {BackendAnswer{200, "", "X-GZIP", []byte(zipped(t, "\ufeff"+failAnswer))}, fail, fail, fail, ""},
		"FAIL, gzip that is not said": {BackendAnswer{200, "", "", []byte(zipped(t, failAnswer))}, fail, fail, fail, ""},
		"FAIL, encoded twice":         {BackendAnswer{200, "", "", []byte(`"{\"ActionStatus\":\"FAIL\"}"`)}, fail, fail, fail, ""},
		"FAIL in an array":            {BackendAnswer{200, "", "", []byte("[" + failAnswer + "]")}, fail, fail, fail, ""},
		"FAIL, cut off":               {BackendAnswer{200, "", "", []byte(`{"ActionStatus":"FAIL","Err`)}, fail, fail, fail, ""},
		"FAIL behind a warning":       {BackendAnswer{200, "", "", []byte("<br />\n<b>Warning</b>: x\n" + failAnswer)}, fail, fail, fail, ""},
		"cut off before FAIL":         {BackendAnswer{200, "", "", []byte(`{"ActionStatus":"FA`)}, form, form, form, ""},
		"a name twice":                {BackendAnswer{200, "", "", []byte(`{"ActionStatus":"OK","ActionStatus":"FAI"}`)}, form, form, form, ""},
		"text behind JSON":            {BackendAnswer{200, "", "", []byte(ok + "\nNotice: bye")}, form, form, form, ""},
		"a trailing comma":            {BackendAnswer{200, "", "", []byte(`{"a":1,}`)}, form, form, form, ""},
		"a maintenance page":          {BackendAnswer{200, "text/html; charset=utf-8", "", []byte("<!DOCTYPE html><title>系统维护中</title>")}, form, form, form, ""},
		"a maintenance page, no type": {BackendAnswer{200, "", "", []byte("\n <html>系统维护中")}, form, form, form, ""},
		"a maintenance text":          {BackendAnswer{200, "text/html; charset=utf-8", "", []byte("系统维护中")}, form, form, form, ""},
		"a sentence":                  {BackendAnswer{200, "text/plain", "", []byte("We will be back soon")}, form, form, form, ""},
		"error":                       {BackendAnswer{200, "text/plain", "", []byte("Error!")}, form, form, form, ""},
		"false":                       {BackendAnswer{200, "", "", []byte("false")}, form, form, form, ""},
		"UTF-16":                      {BackendAnswer{200, "application/json; charset=utf-16", "", []byte(inUTF16(failAnswer))}, form, form, form, ""},
		"UTF-16 that is not said":     {BackendAnswer{200, "", "", []byte(inUTF16(ok))}, form, form, form, ""},
		"GBK":                         {BackendAnswer{200, "application/json; charset=gbk", "", []byte("{\"msg\":\"\xb3\xc9\"}")}, form, form, form, ""},
		"gzip that is none":           {BackendAnswer{200, "", "gzip", []byte(ok)}, form, form, form, ""},
		"gzip that is cut":            {BackendAnswer{200, "", "gzip", []byte(zipped(t, ok)[:20])}, form, form, form, ""},
		"gzip that is large":          {BackendAnswer{200, "", "gzip", []byte(zipped(t, strings.Repeat("x", MaxAnswer+1)))}, form, form, form, ""},
		"another encoding":            {BackendAnswer{200, "", "br", []byte(ok)}, form, form, form, ""},
		"too long":                    {BackendAnswer{200, "", "", []byte(strings.Repeat("x", MaxAnswer+1))}, form, form, form, ""},
		"a redirect":                  {BackendAnswer{302, "", "", []byte(ok)}, gone, gone, gone, gone},
		"an error page":               {BackendAnswer{500, "", "", []byte(ok)}, gone, gone, gone, gone},
		"no answer":                   {BackendAnswer{}, "no handler answered", "no handler answered", "no handler answered", "no handler answered"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for _, accept := range []struct {
				words []string
				want  string
			}{{[]string{"sound"}, tt.sound}, {[]string{"answer"}, tt.answr}, {[]string{"/code", "0", "ok"}, tt.pointer}, {[]string{"2xx"}, tt.any2}} {
				a, err := NewAcceptance(accept.words[0], accept.words[1:]...)
				if err != nil {
					t.Fatal(err)
				}
				err = a.Check(tt.answer)
				_, isForm := errors.AsType[*FormError](err)
				switch {
				case (err == nil) != (accept.want == "") || isForm != (accept.want == form):
					t.Errorf("accept %v: error %v, want one about %q", accept.words, err, accept.want)
				case isForm && !strings.Contains(err.Error(), "; accept "):
					t.Errorf("accept %v: error %v does not say what would take it", accept.words, err)
				case err != nil && !isForm && !strings.Contains(err.Error(), accept.want):
					t.Errorf("accept %v: error %v, want %s", accept.words, err, accept.want)
				}
			}
		})
	}
}

func TestErrorsOfAnswersNameWhatCame(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ accept, body, want string }{
		{"sound", "<html>", "the answer is an HTML page; accept 2xx would take it"},
		{"answer", "<html>", "the answer is an HTML page; accept 2xx would take it"},
		{"/code", "<html>", "the answer is not JSON; accept 2xx would take it"},
		{"/code", "ok", "the answer is not JSON; accept sound would take it"},
		{"answer", "false", "the answer is JSON, but no object; accept 2xx would take it"},
		{"sound", `{"a"`, "the answer is JSON that is cut off; accept 2xx would take it"},
		{"answer", "ok", "the answer is a plain word; accept sound would take it"},
		{"/code", `{"code":500}`, "/code is 500; accept /code 500 would take it"},
		{"/code", `{"code":"what a user wrote"}`, "the answer is JSON with another value at /code; accept sound would take it"},
		{"/data/code", `{"code":0,"data":{"x":1}}`, "the answer is JSON without a value at /data/code; accept sound would take it"},
	} {
		values := []string{"0"}
		if tt.accept[0] != '/' {
			values = nil
		}
		a, err := NewAcceptance(tt.accept, values...)
		if err != nil {
			t.Fatal(err)
		}
		if err := a.Check(BackendAnswer{Status: 200, Body: []byte(tt.body)}); err == nil || err.Error() != tt.want {
			t.Errorf("accept %s of %s: error %v, want %s", tt.accept, tt.body, err, tt.want)
		}
	}
}

func TestAcceptanceIsChecked(t *testing.T) {
	t.Parallel()
	for words, want := range map[string]string{
		"sound": "", "answer": "", "2xx": "", "/code 0": "", "/code 0 200 ok": "", "/a~1b/0 x": "",
		"": "want sound, answer, 2xx", "ok": "want sound, answer, 2xx", "200": "want sound, answer, 2xx", "code 0": "want sound, answer, 2xx",
		"sound 0": "takes no values", "/code": "want the values", "/a~b 0": "want a JSON pointer",
	} {
		all := strings.Fields(words)
		if len(all) == 0 {
			all = []string{""}
		}
		if _, err := NewAcceptance(all[0], all[1:]...); (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("accept %s: error %v, want %q", words, err, want)
		}
	}
}

// The backend, and so the answer, may be untrusted.
func TestAnswersAreJudgedFastWhateverTheyAre(t *testing.T) {
	t.Parallel()
	for _, form := range []string{"sound", "/a/a/a"} {
		a, _ := NewAcceptance(form, map[bool][]string{true: {"0"}}[form[0] == '/']...)
		for _, piece := range []string{"{", `{"a":`, `{"a":[`, "[", `["a",`, `"\\`, " "} {
			body := []byte(strings.Repeat(piece, MaxAnswer/len(piece)))
			start := time.Now()
			_ = a.Check(BackendAnswer{Status: 200, Body: body})
			if took := time.Since(start); took > 5*time.Second {
				t.Errorf("%s: it took %s", piece, took)
			}
		}
	}
}
