// SPDX-FileCopyrightText: 2026 The timguard authors
// SPDX-License-Identifier: Apache-2.0

package callback

import (
	"bytes"
	"compress/gzip"
	"strings"
	"testing"
	"time"
)

const failAnswer = `{"ActionStatus":"FAIL","ErrorInfo":"restarting","ErrorCode":1}`

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

func TestCheckAccepted(t *testing.T) {
	t.Parallel()
	const ok = `{"ActionStatus":"OK","ErrorInfo":"","ErrorCode":0}`
	for name, tt := range map[string]struct {
		status   int
		encoding string
		body     string
		want     string // in the error; empty if it is accepted
	}{
		"OK":                         {200, "", ok, ""},
		"no content":                 {204, "", "", ""},
		"a text":                     {202, "", "queued", ""},
		"an array":                   {200, "", "[1,2]", ""},
		"identity":                   {200, "identity", ok, ""},
		"OK, gzip":                   {200, "gzip", zipped(t, ok), ""},
		"nothing, gzip":              {200, "gzip", "", ""},
		"FAIL in another name":       {200, "", `{"actionstatus":"FAIL"}`, ""},
		"FAIL within a member":       {200, "", `{"ActionStatus":"OK","other":{"ActionStatus":"FAIL"}}`, ""},
		"a text with braces":         {200, "", strings.Repeat("{{}}", 1000), ""},
		"FAIL":                       {200, "", failAnswer, "says FAIL"},
		"FAIL with another status":   {201, "", failAnswer, "says FAIL"},
		"FAIL, escaped":              {200, "", `{"Action\u0053tatus":"\u0046AIL"}`, "says FAIL"},
		"FAIL, last of several":      {200, "", `{"ActionStatus":"OK","ActionStatus":"FAIL"}`, "says FAIL"},
		"FAIL behind a mark":         {200, "", "\ufeff" + failAnswer, "says FAIL"},
		"FAIL behind a warning":      {200, "", "<br />\n<b>Warning</b>: Undefined variable $x in {main} on line 1\n" + failAnswer, "says FAIL"},
		"FAIL before a notice":       {200, "", failAnswer + "\nNotice: bye", "says FAIL"},
		"FAIL after an OK":           {200, "", ok + "\n" + failAnswer, "says FAIL"},
		"FAIL in an array":           {200, "", "[" + failAnswer + "]", "says FAIL"},
		"FAIL in a broken object":    {200, "", `{"ActionStatus":"FAIL",`, "says FAIL"},
		"FAIL behind many braces":    {200, "", strings.Repeat("{", 1000) + failAnswer, "says FAIL"},
		"FAIL, gzip":                 {200, "gzip", zipped(t, failAnswer), "says FAIL"},
		"FAIL, gzip in other words":  {200, "X-GZIP", zipped(t, "\ufeff"+failAnswer), "says FAIL"},
		"gzip that is none":          {200, "gzip", ok, "cannot be read"},
		"gzip that is cut":           {200, "gzip", zipped(t, ok)[:20], "cannot be read"},
		"gzip that is large":         {200, "gzip", zipped(t, strings.Repeat("x", MaxAnswer+1)), "cannot be read"},
		"an encoding that is not":    {200, "br", ok, "cannot be read"},
		"several encodings":          {200, "gzip, gzip", ok, "cannot be read"},
		"an answer that is too long": {200, "", strings.Repeat("x", MaxAnswer+1), "cannot be read"},
		"a redirect":                 {302, "", ok, "the status 302"},
		"an error":                   {500, "", ok, "the status 500"},
		"no answer":                  {0, "", "", "no handler answered"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			err := CheckAccepted(tt.status, tt.encoding, []byte(tt.body))
			if (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error %v, want one with %q", err, tt.want)
			}
		})
	}
}

// The backend, and so the answer, may be untrusted.
func TestCheckAcceptedIsFastOnPathologicalAnswers(t *testing.T) {
	t.Parallel()
	for _, piece := range []string{"{", `{"a":`, `{"a":[`, "{}"} {
		body := []byte(strings.Repeat(piece, MaxAnswer/len(piece)))
		start := time.Now()
		_ = CheckAccepted(200, "", body)
		if took := time.Since(start); took > 5*time.Second {
			t.Errorf("%s: it took %s", piece, took)
		}
	}
}
