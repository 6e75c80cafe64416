// SPDX-FileCopyrightText: 2026 The timguard authors
// SPDX-License-Identifier: Apache-2.0

package callback

import (
	"bytes"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
)

// recallWith returns a recall with these members in place of the sample's MsgSeqList,
// TopicId and EventTime.
func recallWith(members string) []byte {
	return []byte(`{"CallbackCommand":"Group.CallbackAfterRecallMsg","Operator_Account":"admin","Type":"Community","GroupId":"1213456",` + members + `}`)
}

// recallPlus returns the sample with additional members at its end.
func recallPlus(members string) []byte {
	return []byte(strings.TrimSuffix(sampleRecall, "}") + "," + members + "}")
}

func TestInspectReturnsTheEnvelopeOfTheDocumentedSample(t *testing.T) {
	t.Parallel()
	file, err := os.ReadFile("testdata/recall.json")
	if err != nil {
		t.Fatal(err)
	}
	for _, body := range [][]byte{file, []byte(sampleRecall)} {
		before := bytes.Clone(body)
		e, err := Inspect(body, RecallCommand)
		if err != nil {
			t.Fatal(err)
		}
		if e.Command != RecallCommand || e.Class != After || e.GroupID != "1213456" || e.TopicID != "@TGS#_@TGS#cQVLVHIM62CJ@TOPIC#_TestTopic" ||
			e.Operator != "admin" || e.GroupType != "Community" || e.EventTime != 1670574414123 || !slices.Equal(e.MsgSeqs, []uint32{130}) {
			t.Errorf("got %+v", e)
		}
		if !bytes.Equal(body, before) {
			t.Error("the body was changed")
		}
	}
}

func TestInspectAcceptsUnusualButValidRecalls(t *testing.T) {
	t.Parallel()
	const list = `"MsgSeqList":[{"MsgSeq":130}]`
	for name, body := range map[string][]byte{
		"EventTime as a number":          recallWith(list + `,"EventTime":1670574414123`),
		"EventTime as a string":          recallWith(list + `,"EventTime":"1670574414123"`),
		"no optional field":              recallWith(list),
		"the largest MsgSeq":             recallWith(`"MsgSeqList":[{"MsgSeq":4294967295}]`),
		"the smallest MsgSeq":            recallWith(`"MsgSeqList":[{"MsgSeq":1}]`),
		"MsgId":                          recallWith(`"MsgSeqList":[{"MsgId":"144115213033478435-1739361321-2512805311","MsgSeq":130}]`),
		"many messages":                  recallWith(`"MsgSeqList":[` + strings.Repeat(`{"MsgSeq":7},`, 5000) + `{"MsgSeq":8}]`),
		"unknown fields":                 recallPlus(`"Reason":"x","N":null,"F":1.5e3,"B":true,"":"","O":{"a":[{}]}`),
		"unknown fields in a message":    recallWith(`"MsgSeqList":[{"Extra":{"MsgSeq":[]},"MsgSeq":130,"More":[1,null]}]`),
		"fold alikes in unknown objects": recallPlus(`"Other":{"GroupId":1,"groupid":2,"GROUPID":[3]}`),
		"another command's field":        recallPlus(`"MsgTime":1,"MemberList":[{"Member_Account":"a"}],"MsgId":"x"`),
		"the other spelling of a field":  recallPlus(`"MsgID":1`),
		"an escaped name":                bytes.Replace([]byte(sampleRecall), []byte(`"GroupId"`), []byte(`"\u0047roupId"`), 1),
		"whitespace":                     []byte(" \t\r\n" + strings.NewReplacer(`:`, " :\n", `,`, "\r\n,\t").Replace(strings.Replace(sampleRecall, "TOPIC", "T", 1)) + "\n\n"),
		"another order":                  []byte(`{"MsgSeqList":[{"MsgSeq":130}],"GroupId":"a","Type":"","Operator_Account":"","CallbackCommand":"Group.CallbackAfterRecallMsg"}`),
		"an escaped command":             bytes.Replace([]byte(sampleRecall), []byte("Group.Callback"), []byte(`\u0047roup.Callback`), 1),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if _, err := Inspect(body, RecallCommand); err != nil {
				t.Errorf("%v; body %.300s", err, body)
			}
		})
	}
}

func TestInspectAcceptsEventTimeAsNumberOrString(t *testing.T) {
	t.Parallel()
	for literal, want := range map[string]int64{
		`1670574414123`: 1670574414123, `"1670574414123"`: 1670574414123, `0`: 0, `"0"`: 0,
		`9007199254740991`: 1<<53 - 1, `"9007199254740991"`: 1<<53 - 1, `"\u0031"`: 1,
	} {
		e, err := Inspect(recallWith(`"MsgSeqList":[{"MsgSeq":130}],"EventTime":`+literal), RecallCommand)
		if err != nil || e.EventTime != want {
			t.Errorf("%s: got %d, %v", literal, e.EventTime, err)
		}
	}
}

func TestInspectRejectsEventTimesThatAreNotIntegers(t *testing.T) {
	t.Parallel()
	for _, literal := range []string{
		`1.0`, `1e12`, `-0`, `9007199254740992`, `-9007199254740992`, `9223372036854775808`, `99999999999999999999999`, `null`, `true`, `{}`, `[]`, `[1]`,
		`""`, `" 1"`, `"1 "`, `"-1"`, `"+1"`, `"1.0"`, `"1e3"`, `"0x10"`, `"9007199254740992"`, `"9223372036854775808"`, `"now"`, `"\u0661"`,
	} {
		body := recallWith(`"MsgSeqList":[{"MsgSeq":130}],"EventTime":` + literal)
		_, err := Inspect(body, RecallCommand)
		r := wantRejection(t, err, ReasonPayload, "/EventTime")
		wantOffset(t, r, body, literal)
	}
}

func TestInspectReturnsAnyGroupIDThatTencentAllows(t *testing.T) {
	t.Parallel()
	var printable strings.Builder
	for c := byte(' '); c <= '~'; c++ {
		printable.WriteByte(c)
	}
	for _, id := range []string{`a"b`, "a b", " ", "<script>", "100%", "%00", "@TGS#_x", `back\slash`, "/../", "a&b=c", "\u7fa4", printable.String()} {
		body := bytes.Replace([]byte(sampleRecall), []byte(`"1213456"`), fmt.Appendf(nil, "%q", id), 1)
		e, err := Inspect(body, RecallCommand)
		if err != nil || e.GroupID != id {
			t.Errorf("GroupId %q: got %q, %v", id, e.GroupID, err)
		}
	}
}

func TestInspectRejectsMsgSeqsThatAreNotUint32(t *testing.T) {
	t.Parallel()
	for _, literal := range []string{
		`4294967296`, `18446744073709551617`, `1.0`, `1.5`, `1e2`, `1E2`, `10e-1`, `-1`, `-0`, `0`, `"130"`, `""`, `null`, `true`, `[130]`, `{}`, `{"MsgSeq":130}`,
	} {
		body := recallWith(`"MsgSeqList":[{"MsgSeq":7},{"MsgId":"a","MsgSeq":` + literal + `}]`)
		_, err := Inspect(body, RecallCommand)
		r := wantRejection(t, err, ReasonPayload, "/MsgSeqList/1/MsgSeq")
		wantOffset(t, r, body, literal)
	}
}

func TestInspectRejectsNamesThatParsersReadDifferently(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		body   []byte
		reason Reason
		path   string
	}{
		"a known name twice":           {recallPlus(`"GroupId":"x"`), ReasonJSON, "/GroupId"},
		"a known name twice, escaped":  {recallPlus(`"\u0047roupId":"x"`), ReasonJSON, "/GroupId"},
		"an escaped name, then itself": {[]byte(`{"\u0047roupId":"x",` + sampleRecall[1:]), ReasonJSON, "/GroupId"},
		"the first name again":         {recallPlus(`"CallbackCommand":"Group.CallbackAfterRecallMsg"`), ReasonJSON, "/CallbackCommand"},
		"an unknown name twice":        {recallPlus(`"x":1,"x":1`), ReasonJSON, "/x"},
		"twice in an unknown object":   {recallPlus(`"o":[{"x":1,"\u0078":1}]`), ReasonJSON, "/o/0/x"},
		"twice in a message":           {recallWith(`"MsgSeqList":[{"MsgSeq":1,"MsgSeq":2}]`), ReasonJSON, "/MsgSeqList/0/MsgSeq"},
		"twice, escaped, in a message": {recallWith(`"MsgSeqList":[{"MsgSeq":1,"Msg\u0053eq":2}]`), ReasonJSON, "/MsgSeqList/0/MsgSeq"},
		"another case beside":          {recallPlus(`"groupid":"x"`), ReasonPayload, "/groupid"},
		"another case before":          {[]byte(`{"GROUPID":"x",` + sampleRecall[1:]), ReasonPayload, "/GROUPID"},
		"another case instead":         {bytes.Replace([]byte(sampleRecall), []byte("GroupId"), []byte("groupId"), 1), ReasonPayload, "/groupId"},
		"another case, escaped":        {recallPlus(`"\u0067roupId":"x"`), ReasonPayload, "/groupId"},
		"another case of an optional":  {recallPlus(`"topicid":"x"`), ReasonPayload, "/topicid"},
		"a letter that folds to ASCII": {recallPlus(`"M\u017fgSeqList":[]`), ReasonPayload, "/M\u017fgSeqList"},
		"a nested name's at the top":   {recallPlus(`"msgseq":1`), ReasonPayload, "/msgseq"},
		"a top name's in a message":    {recallWith(`"MsgSeqList":[{"MsgSeq":130,"groupid":1}]`), ReasonPayload, "/MsgSeqList/0/groupid"},
		"another command's":            {recallPlus(`"msgTime":1`), ReasonPayload, "/msgTime"},
		"another command's, beside it": {recallPlus(`"MsgTime":1,"msgtime":2`), ReasonPayload, "/msgtime"},
		"both spellings":               {recallPlus(`"MsgId":1,"MsgID":2`), ReasonPayload, "/MsgID"},
		"both, the other way":          {recallPlus(`"MsgID":1,"MsgId":2`), ReasonPayload, "/MsgId"},
		"in another command's object":  {recallPlus(`"MemberList":[{"member_account":"a"}]`), ReasonPayload, "/MemberList/0/member_account"},
		"JavaScript's prototype":       {recallPlus(`"__proto__":{"GroupId":"x"}`), ReasonPayload, "/__proto__"},
		"the prototype, escaped":       {recallPlus(`"\u005f_proto__":1`), ReasonPayload, "/__proto__"},
		"the prototype in an object":   {recallPlus(`"x":[{"y":{"__proto__":1}}]`), ReasonPayload, "/x/0/y/__proto__"},
		"another case in a message":    {recallWith(`"MsgSeqList":[{"MsgSeq":1,"msgSeq":2}]`), ReasonPayload, "/MsgSeqList/0/msgSeq"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := Inspect(test.body, RecallCommand)
			wantRejection(t, err, test.reason, test.path)
		})
	}
}

func TestInspectRejectsWhatSomeParsersRejectOrTruncate(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct{ members, path, at string }{
		"a name that begins with NUL":       {`"\u0000x":1`, "/\x00x", `"\u0000x"`},
		"a NUL within a name":               {`"x\u0000y":1`, "/x\x00y", `"x\u0000y"`},
		"a known name before a NUL":         {`"GroupId\u0000":1`, "/GroupId\x00", `"GroupId\u0000"`},
		"a NUL in a nested name":            {`"x":[{"y":1, "\u0000":1}]`, "/x/0/\x00", `"\u0000"`},
		"an exponent beyond float64":        {`"x":1e400`, "/x", `1e400`},
		"the same below 0, in an array":     {`"x":[1, -1E309]`, "/x/1", `-1E309`},
		"more digits than a float64's":      {`"x": 1` + strings.Repeat("0", 309), "/x", `1` + strings.Repeat("0", 309)},
		"more digits than Python's limit":   {`"x":{"y":` + strings.Repeat("1", 5000) + `}`, "/x/y", strings.Repeat("1", 5000)},
		"the same in an envelope's place":   {`"EventTime2":1e400`, "/EventTime2", `1e400`},
		"the same after what a value holds": {`"x":"\u0000","y":1e400`, "/y", `1e400`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			body := recallPlus(test.members)
			_, err := Inspect(body, RecallCommand)
			wantOffset(t, wantRejection(t, err, ReasonJSON, test.path), body, test.at)
		})
	}
	_, err := Inspect([]byte(`{"EventTime":1e400}`), "Future.CallbackAfterAnything")
	wantRejection(t, err, ReasonJSON, "/EventTime")
	for _, members := range []string{`"x":"\u0000"`, `"x":["\u0000",{"y":"\u0000"}]`, `"\\u0000":1`, `"x":1e308`, `"x":1e-400`, `"x":1` + strings.Repeat("0", 308), `"x":0.` + strings.Repeat("9", 5000)} {
		if _, err := Inspect(recallPlus(members), RecallCommand); err != nil {
			t.Errorf("%.100s: %v", members, err)
		}
	}
}

func TestInspectRejectsAnythingButOneStrictJSONObject(t *testing.T) {
	t.Parallel()
	object := strings.TrimSuffix(sampleRecall, "}")
	for name, body := range map[string]string{
		"nothing":                   "",
		"only space":                " \r\n",
		"a byte order mark":         "\ufeff" + sampleRecall,
		"UTF-16":                    "\xff\xfe{\x00}\x00",
		"a comment before":          "// the sample\n" + sampleRecall,
		"a comment after":           sampleRecall + " // the sample",
		"a comment within":          "{// CallbackCommand\n" + sampleRecall[1:],
		"a comment in stars":        "{/* */" + sampleRecall[1:],
		"a hash comment":            "{# x\n" + sampleRecall[1:],
		"a second object":           sampleRecall + sampleRecall,
		"a brace after":             sampleRecall + "}",
		"a NUL after":               sampleRecall + "\x00",
		"a no-break space after":    sampleRecall + "\u00a0",
		"a vertical tab before":     "\v" + sampleRecall,
		"a comma after":             sampleRecall + ",",
		"a trailing comma":          object + ",}",
		"a comma too many":          strings.Replace(sampleRecall, ",", ",,", 1),
		"a comma missing":           strings.Replace(sampleRecall, ",", " ", 1),
		"a leading comma":           "{," + sampleRecall[1:],
		"a trailing comma in a row": object + `,"x":[1,]}`,
		"no closing brace":          object,
		"the wrong closing brace":   object + "]",
		"NaN":                       object + `,"x":NaN}`,
		"Infinity":                  object + `,"x":-Infinity}`,
		"undefined":                 object + `,"x":undefined}`,
		"a number with a plus":      object + `,"x":+1}`,
		"a number with zeros":       object + `,"x":01}`,
		"a hexadecimal number":      object + `,"x":0x1}`,
		"a number without a digit":  object + `,"x":.5}`,
		"TRUE":                      object + `,"x":TRUE}`,
		"single quotes":             strings.ReplaceAll(sampleRecall, `"`, `'`),
		"a bare name":               object + `,x:1}`,
		"a number as a name":        object + `,1:1}`,
		"null as a name":            object + `,null:1}`,
		"a name without a value":    object + `,"x"}`,
		"a name without a colon":    object + `,"x" 1}`,
		"an equals sign":            object + `,"x"=1}`,
		"an open string":            object + `,"x":"}`,
		"a raw newline in a string": object + ",\"x\":\"\n\"}",
		"a raw NUL in a string":     object + ",\"x\":\"\x00\"}",
		"a bad escape":              object + `,"x":"\x41"}`,
		"a short escape":            object + `,"x":"\u12"}`,
		"an array":                  "[" + sampleRecall + "]",
		"a string":                  `"CallbackCommand"`,
		"a number":                  "130",
		"null":                      "null",
		"true":                      "true",
		"form encoded":              "CallbackCommand=Group.CallbackAfterRecallMsg",
		"invalid UTF-8":             strings.Replace(sampleRecall, "admin", "adm\xff", 1),
		"invalid UTF-8, skipped":    object + ",\"x\":\"\xc3\x28\"}",
		"invalid UTF-8 in a name":   object + ",\"\xff\":1}",
		"an overlong form":          object + ",\"x\":\"\xc0\x80\"}",
		"an encoded surrogate":      object + ",\"x\":\"\xed\xa0\x80\"}",
		"a lone high surrogate":     strings.Replace(sampleRecall, "admin", `\ud83d`, 1),
		"a lone low surrogate":      object + `,"x":"\ude00"}`,
		"surrogates the wrong way":  object + `,"x":"\ude00\ud83d"}`,
		"a lone surrogate, nested":  object + `,"x":[{"y":"\ud83dx"}]}`,
		"a lone surrogate name":     object + `,"\ud83d":1}`,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for _, command := range []string{RecallCommand, "Future.CallbackAfterAnything"} {
				_, err := Inspect([]byte(strings.ReplaceAll(body, RecallCommand, command)), command)
				r := wantReason(t, err, ReasonJSON)
				if r.Offset > int64(len(body)+len(command)) {
					t.Errorf("the offset %d is beyond the body", r.Offset)
				}
			}
		})
	}
}

func TestInspectRejectsTheDocumentedSampleWithItsComments(t *testing.T) {
	t.Parallel()
	body, err := os.ReadFile("testdata/recall_as_printed.txt")
	if err != nil {
		t.Fatal(err)
	}
	_, err = Inspect(body, RecallCommand)
	r := wantReason(t, err, ReasonJSON)
	if r.Detail != "a comment is not JSON" || !bytes.HasPrefix(body[r.Offset:], []byte("//")) {
		t.Errorf("got %q at %d, want the comment to be named", r.Detail, r.Offset)
	}
	// Without its comments it is the sample.
	var clean []byte
	for line := range bytes.Lines(body) {
		before, _, _ := bytes.Cut(line, []byte(" //"))
		clean = append(append(clean, before...), '\n')
	}
	if _, err := Inspect(clean, RecallCommand); err != nil {
		t.Errorf("the cleaned sample: %v", err)
	}
}

func TestInspectAcceptsSurrogatePairs(t *testing.T) {
	t.Parallel()
	body := strings.Replace(sampleRecall, "admin", `\ud83d\ude00`, 1)
	e, err := Inspect([]byte(body), RecallCommand)
	if err != nil || e.Operator != "\U0001f600" {
		t.Errorf("got %q, %v", e.Operator, err)
	}
}

func TestInspectLimitsTheDepth(t *testing.T) {
	t.Parallel()
	arrays := func(n int) string { return strings.Repeat("[", n) + strings.Repeat("]", n) }
	objects := func(n int) string { return strings.Repeat(`{"a":`, n-1) + "{}" + strings.Repeat("}", n-1) }
	for name, test := range map[string]struct {
		command string
		body    func(depth int) []byte
	}{
		"arrays in an unknown field":     {RecallCommand, func(d int) []byte { return recallPlus(`"x":` + arrays(d-1)) }},
		"objects in an unknown field":    {RecallCommand, func(d int) []byte { return recallPlus(`"x":` + objects(d-1)) }},
		"both in an unknown field":       {RecallCommand, func(d int) []byte { return recallPlus(`"x":[` + objects(d-3) + `,{"y":` + arrays(d-3) + `}]`) }},
		"an unknown field of a message":  {RecallCommand, func(d int) []byte { return recallWith(`"MsgSeqList":[{"MsgSeq":1,"x":` + arrays(d-3) + `}]`) }},
		"a command without a schema":     {"X.Y", func(d int) []byte { return []byte(objects(d)) }},
		"an envelope field of no schema": {"X.Y", func(d int) []byte { return []byte(`{"Type":` + arrays(d-1) + `}`) }},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if _, err := Inspect(test.body(MaxDepth), test.command); err != nil {
				t.Errorf("depth %d: %v", MaxDepth, err)
			}
			for _, depth := range []int{MaxDepth + 1, 9000, 100000} {
				_, err := Inspect(test.body(depth), test.command)
				r := wantReason(t, err, ReasonJSON)
				if want := "nested deeper than 512"; r.Detail != want {
					t.Errorf("depth %d: got %v, want %s", depth, err, want)
				}
			}
		})
	}
}

func TestInspectRejectsNestingInAKnownFieldAsWrongType(t *testing.T) {
	t.Parallel()
	body := recallWith(`"MsgSeqList":[{"MsgSeq":1}],"TopicId":` + strings.Repeat("[", 100) + strings.Repeat("]", 100))
	_, err := Inspect(body, RecallCommand)
	wantRejection(t, err, ReasonPayload, "/TopicId")
}

func TestInspectRejectsIncompleteRecalls(t *testing.T) {
	t.Parallel()
	const list = `"MsgSeqList":[{"MsgSeq":130}]`
	for name, test := range map[string]struct {
		body []byte
		path string
	}{
		"everything":         {[]byte(`{}`), "/CallbackCommand"},
		"the list":           {recallWith(`"TopicId":"x"`), "/MsgSeqList"},
		"a message":          {recallWith(`"MsgSeqList":[]`), "/MsgSeqList"},
		"a number":           {recallWith(`"MsgSeqList":[{"MsgSeq":1},{"MsgId":"x"}]`), "/MsgSeqList/1/MsgSeq"},
		"a message's fields": {recallWith(`"MsgSeqList":[{}]`), "/MsgSeqList/0/MsgSeq"},
		"the GroupId's text": {[]byte(`{"GroupId":"",` + list + `}`), "/GroupId"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := Inspect(test.body, RecallCommand)
			wantRejection(t, err, ReasonPayload, test.path)
		})
	}
}

func TestInspectComparesTheCommandExactly(t *testing.T) {
	t.Parallel()
	for _, command := range []string{"Group.CallbackAfterSendMsg", "group.callbackafterrecallmsg", RecallCommand + " ", RecallCommand + `\u0000`, ""} {
		body := strings.Replace(sampleRecall, RecallCommand, command, 1)
		_, err := Inspect([]byte(body), RecallCommand)
		wantRejection(t, err, ReasonMismatch, "/CallbackCommand")
	}
}

func TestInspectAcceptsAnyPayloadOfCommandsWithoutASchema(t *testing.T) {
	t.Parallel()
	const command = "Future.CallbackBeforeAnything"
	e, err := Inspect([]byte(`{"CallbackCommand":"Future.CallbackBeforeAnything","GroupId":"g","TopicId":"t","Operator_Account":"o","Type":"Public","EventTime":1670574414123,"x":[{}]}`), command)
	if err != nil {
		t.Fatal(err)
	}
	if e.Command != command || e.Class != Before || e.GroupID != "g" || e.TopicID != "t" || e.Operator != "o" || e.GroupType != "Public" || e.EventTime != 1670574414123 {
		t.Errorf("got %+v", e)
	}
	for _, body := range []string{`{}`, `{"GroupId":1,"Type":null,"TopicId":[1],"Operator_Account":{"a":{}},"EventTime":1.5}`, `{"EventTime":false,"GroupId":""}`} {
		if e, err := Inspect([]byte(body), command); err != nil || e.GroupID+e.GroupType+e.TopicID+e.Operator != "" || e.EventTime != 0 {
			t.Errorf("%s: got %+v, %v", body, e, err)
		}
	}
	_, err = Inspect([]byte(`{"CallbackCommand":"Future.CallbackAfterAnything"}`), command)
	wantRejection(t, err, ReasonMismatch, "/CallbackCommand")
	_, err = Inspect([]byte(`{"CallbackCommand":1}`), command)
	wantRejection(t, err, ReasonPayload, "/CallbackCommand")
	_, err = Inspect([]byte(`{"callbackcommand":"x"}`), command)
	wantRejection(t, err, ReasonPayload, "/callbackcommand")
}

func TestInspectChecksLargeBodiesToTheEnd(t *testing.T) {
	t.Parallel()
	const size = 4 << 20
	messages := strings.Repeat(`{"MsgSeq":4294967295,"MsgId":"x"},`, size/34)
	body := recallWith(`"MsgSeqList":[` + messages + `{"MsgSeq":1}],"Padding":"` + strings.Repeat("p", size) + `"`)
	e, err := Inspect(body, RecallCommand)
	if err != nil {
		t.Fatal(err)
	}
	if n := len(e.MsgSeqs); n != size/34+1 || e.MsgSeqs[0] != 4294967295 || e.MsgSeqs[n-1] != 1 || e.GroupID != "1213456" {
		t.Errorf("got %d messages of group %q", n, e.GroupID)
	}
	body[len(body)-1] = ' '
	_, err = Inspect(body, RecallCommand)
	if r := wantReason(t, err, ReasonJSON); r.Offset < int64(len(body))-2 {
		t.Errorf("the missing brace is reported at %d of %d", r.Offset, len(body))
	}
}
