// SPDX-FileCopyrightText: 2026 The timguard authors
// SPDX-License-Identifier: Apache-2.0

package callback

import (
	"bytes"
	"errors"
	"strings"
	"testing"
	"unicode/utf8"
)

// wantReason is like wantRejection, but accepts any path.
func wantReason(t *testing.T, err error, reason Reason) Rejection {
	t.Helper()
	r, ok := errors.AsType[*Rejection](err)
	if !ok {
		t.Fatalf("got error %v, want a Rejection for %s", err, reason)
	}
	return wantRejection(t, err, reason, r.Path)
}

// wantOffset fails the test unless the rejection's offset is that of the last
// occurrence of the text in the body.
func wantOffset(t *testing.T, r Rejection, body []byte, text string) {
	t.Helper()
	if want := int64(bytes.LastIndex(body, []byte(text))); r.Offset != want {
		t.Errorf("%v is reported at byte %d, want %d; body %s", &r, r.Offset, want, body)
	}
}

func TestFaultsHaveTheirOffset(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		body         []byte
		path, offset string
	}{
		"a string for an array":      {recallWith(`"MsgSeqList": "FAULT"`), "/MsgSeqList", `"FAULT"`},
		"an object for an array":     {recallWith(`"MsgSeqList": {"FAULT":1}`), "/MsgSeqList", `{"FAULT"`},
		"null for an array":          {recallWith(`"MsgSeqList": null`), "/MsgSeqList", `null`},
		"a string for an object":     {recallWith(`"MsgSeqList":[{"MsgSeq":1}, "FAULT"]`), "/MsgSeqList/1", `"FAULT"`},
		"a number for an object":     {recallWith(`"MsgSeqList":[{"MsgSeq":1}, 13579]`), "/MsgSeqList/1", `13579`},
		"null for an object":         {recallWith(`"MsgSeqList":[null]`), "/MsgSeqList/0", `null`},
		"an array for an object":     {recallWith(`"MsgSeqList":[ [13579]]`), "/MsgSeqList/0", `[13579`},
		"an array for a string":      {recallWith(`"MsgSeqList":[{"MsgSeq":1}],"TopicId":["FAULT"]`), "/TopicId", `["FAULT`},
		"a number for a string":      {recallWith(`"MsgSeqList":[{"MsgSeq":1}],"TopicId": 13579`), "/TopicId", `13579`},
		"a string for a number":      {recallWith(`"MsgSeqList":[{"MsgSeq": "FAULT"}]`), "/MsgSeqList/0/MsgSeq", `"FAULT"`},
		"a look-alike":               {recallPlus(`  "GROUPID" : 1`), "/GROUPID", `"GROUPID"`},
		"an escaped look-alike":      {recallPlus(`"\u0067roupid" : 1`), "/groupid", `"\u0067`},
		"an array without elements":  {recallWith(`"MsgSeqList":[]`), "/MsgSeqList", `]}`},
		"a missing field":            {recallWith(`"MsgSeqList":[{"MsgId":"x"}]`), "/MsgSeqList/0/MsgSeq", `}]}`},
		"a name that needs escaping": {recallWith(`"MsgSeqList":[{"MsgSeq":1,"x/~":[[FAULT`), "/MsgSeqList/0/x~1~0/0/0", `FAULT`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := Inspect(test.body, RecallCommand)
			reason := ReasonPayload
			if strings.Contains(test.path, "~") {
				reason = ReasonJSON
			}
			wantOffset(t, wantRejection(t, err, reason, test.path), test.body, test.offset)
		})
	}
}

// The result must not depend on an earlier payload.
func TestFaultsAtTheBeginningHaveOffsetZero(t *testing.T) {
	t.Parallel()
	for range 100 {
		_, _ = Inspect(recallWith(`"MsgSeqList":"a long string for the inspector to remember"`), RecallCommand)
		for _, body := range []string{"[]", "null", `""`, "1"} {
			_, err := Inspect([]byte(body), RecallCommand)
			if r := wantRejection(t, err, ReasonJSON, ""); r.Offset != 0 {
				t.Fatalf("%s: reported at %d", body, r.Offset)
			}
		}
	}
}

func TestCommonSyntaxErrorsAreExplained(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct{ body, detail string }{
		"nothing":             {"", "the body is empty"},
		"only space":          {"\n ", "the body is empty"},
		"a byte order mark":   {"\ufeff" + sampleRecall, "byte order mark"},
		"a comment at first":  {"// sample\n" + sampleRecall, "a comment is not JSON"},
		"a comment within":    {"{ // sample\n" + sampleRecall[1:], "a comment is not JSON"},
		"a comment in stars":  {"{ /* x */" + sampleRecall[1:], "a comment is not JSON"},
		"a trailing comma":    {strings.TrimSuffix(sampleRecall, "}") + ",}", "misplaced comma"},
		"an end too early":    {sampleRecall[:100], "is cut off"},
		"a missing brace":     {strings.TrimSuffix(sampleRecall, "}"), "is cut off"},
		"a name twice":        {string(recallPlus(`"x":1,"x":2`)), "duplicate name"},
		"an array":            {"[]", "want one JSON object"},
		"a number before":     {"1.5" + sampleRecall, "want one JSON object"},
		"two objects":         {sampleRecall + "{}", "nothing after the JSON object"},
		"an unquoted literal": {string(recallPlus(`"x":NaN`)), "not strict JSON"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := Inspect([]byte(test.body), RecallCommand)
			if r := wantReason(t, err, ReasonJSON); !strings.Contains(r.Detail, test.detail) {
				t.Errorf("got %q, want it to say %q", r.Detail, test.detail)
			}
		})
	}
}

func TestPathsAreShortAndValidUTF8(t *testing.T) {
	t.Parallel()
	for _, letter := range []string{"x", "\u00e9", "\u7fa4", "\U0001f600", "~"} {
		for n := 150; n < 155; n++ {
			_, err := Inspect(recallPlus(`"`+strings.Repeat(letter, n)+`":`+strings.Repeat("[", 20)), RecallCommand)
			r := wantReason(t, err, ReasonJSON)
			if !utf8.ValidString(r.Path) || len(r.Path) > 210 {
				t.Errorf("got path %q of %d bytes", r.Path, len(r.Path))
			}
		}
	}
}

func TestFaultsReturnsAllFaultsWithTheirPlace(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		body  string
		paths string
	}{
		"a good payload":     {sampleRecall, ""},
		"wrong and missing":  {`{"CallbackCommand":"x","Type":1,"MsgSeqList":[{"MsgSeq":0},{"MsgSeq":1,"MsgId":[{}]},{}, 7],"groupid":{"a":[1]},"EventTime":-1}`, "/CallbackCommand /Type /MsgSeqList/0/MsgSeq /MsgSeqList/1/MsgId /MsgSeqList/2/MsgSeq /MsgSeqList/3 /groupid /EventTime /Operator_Account /GroupId"},
		"everything missing": {`{}`, "/CallbackCommand /Operator_Account /Type /GroupId /MsgSeqList"},
		"up to a broken end": {`{"Type":1,"x":}`, ""},
		"up to the depth":    {`{"Type":1,"x":` + strings.Repeat("[", 600) + strings.Repeat("]", 600) + `,"GroupId":2}`, "/Type /x" + strings.Repeat("/0", 99) + "…"},
		"no object":          {`[]`, ""},
		"in a list of pushes": {
			`{"MsgSeqList":[{"MsgSeq":1,"msgid":{"MsgSeq":[]}}],"MemberList":[{"member_account":1,"Member_Account":2,"x":{"__proto__":1}}]}`,
			"/MsgSeqList/0/msgid /MemberList/0/member_account /MemberList/0/x/__proto__ /CallbackCommand /Operator_Account /Type /GroupId",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var paths []string
			last := int64(-1)
			for _, r := range Faults([]byte(test.body), RecallCommand) {
				paths = append(paths, r.Path)
				if r.Offset < last || r.Detail == "" {
					t.Errorf("%v at %d stands behind one at %d", r, r.Offset, last)
				}
				last = r.Offset
			}
			if got := strings.Join(paths, " "); got != test.paths {
				t.Errorf("got  %s\nwant %s", got, test.paths)
			}
		})
	}
}

// The error of Inspect is the first of Faults, whatever the payload.
func TestFaultsBeginWithTheErrorOfInspect(t *testing.T) {
	t.Parallel()
	corrupt(sampleRecall, func(body string) {
		_, err := Inspect([]byte(body), RecallCommand)
		faults := Faults([]byte(body), RecallCommand)
		if (err == nil) != (len(faults) == 0) {
			t.Fatalf("Inspect says %v, Faults %v; body %s", err, faults, body)
		}
		if err != nil && err.Error() != faults[0].Error() && wantReason(t, err, asRejection(err).Reason).Offset != faults[0].Offset {
			t.Errorf("Inspect says %v, Faults %v; body %s", err, faults[0], body)
		}
	})
}
