// SPDX-FileCopyrightText: 2026 The timguard authors
// SPDX-License-Identifier: Apache-2.0

package callback

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"testing"
)

// edited returns the command's sample after a replacement, which must have an effect.
func edited(t *testing.T, command, old, replacement string) []byte {
	t.Helper()
	sample := Sample(command)
	if !bytes.Contains(sample, []byte(old)) {
		t.Fatalf("the sample of %s has no %s: %s", command, old, sample)
	}
	return bytes.Replace(sample, []byte(old), []byte(replacement), 1)
}

func wantAccepted(t *testing.T, body []byte, command string) Event {
	t.Helper()
	event, err := Inspect(body, command)
	if err != nil {
		t.Errorf("%s: %v; body %.300s", command, err, body)
	}
	return event
}

func TestRandomIsUnsigned(t *testing.T) {
	t.Parallel()
	for _, command := range []string{"Group.CallbackBeforeSendMsg", "Group.CallbackAfterSendMsg", "Group.CallbackSendMsgException", "Bot.OnGroupMessage"} {
		for _, random := range []string{"2804799576", "2147483648", "4294967295", "0"} {
			wantAccepted(t, edited(t, command, `"Random":2804799576`, `"Random":`+random), command)
		}
		for _, random := range []string{"4294967296", "-1", "1.0", `"2804799576"`} {
			_, err := Inspect(edited(t, command, `"Random":2804799576`, `"Random":`+random), command)
			wantRejection(t, err, ReasonPayload, "/Random")
		}
	}
}

func TestUnreadMsgNumMayBeMinusOne(t *testing.T) {
	t.Parallel()
	for _, command := range []string{"C2C.CallbackAfterSendMsg", "C2C.CallbackAfterMsgReport", "C2C.CallbackAfterMsgWithDraw", "Bot.OnC2CMessage"} {
		for _, n := range []string{"-1", "0", "7"} {
			wantAccepted(t, edited(t, command, `"UnreadMsgNum":1`, `"UnreadMsgNum":`+n), command)
		}
	}
}

var pushes = []string{"Push.OfflinePush", "Push.AllMemberPush"}

func TestPushHasItsCommandInEachEvent(t *testing.T) {
	t.Parallel()
	for _, command := range pushes {
		event := `{"CallbackCommand":"` + command + `","EventType":1,"EventTime":1557481126,"To_Account":"a"}`
		other := strings.Replace(event, command, "Push.Other", 1)
		wantAccepted(t, []byte(`{"Events":[`+event+`]}`), command)
		wantAccepted(t, []byte(`{"Events":[`+event+`,`+event+`]}`), command)
		wantAccepted(t, []byte(`{"Events":[`+strings.Repeat(event+",", 2000)+event+`]}`), command)
		_, err := Inspect([]byte(`{"Events":[`+other+`]}`), command)
		wantRejection(t, err, ReasonMismatch, "/Events/0/CallbackCommand")
		_, err = Inspect([]byte(`{"Events":[`+event+`,`+event+`,`+other+`]}`), command)
		wantRejection(t, err, ReasonMismatch, "/Events/2/CallbackCommand")
		_, err = Inspect([]byte(`{"Events":[`+event+`,`+strings.Replace(event, "CallbackCommand", "Command", 1)+`]}`), command)
		wantRejection(t, err, ReasonPayload, "/Events/1/CallbackCommand")
		_, err = Inspect([]byte(`{"Events":[]}`), command)
		wantRejection(t, err, ReasonPayload, "/Events")
		_, err = Inspect([]byte(`{"CallbackCommand":"`+command+`"}`), command)
		wantRejection(t, err, ReasonPayload, "/Events")
	}
}

// Push events have several times, which are in seconds.
func TestPushTimesAreNotTakenForMilliseconds(t *testing.T) {
	t.Parallel()
	for _, command := range pushes {
		if e := wantAccepted(t, Sample(command), command); e.EventTime != 0 {
			t.Errorf("%s: EventTime %d, want none", command, e.EventTime)
		} else if _, random := e.ID("1", nil); random {
			t.Errorf("%s: a random ID, although the time tells events apart", command)
		}
	}
}

func TestNamesThatSomeParserTakesForAKnownOneAreRejected(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"groupid", "Group_Id", "group-id", "Group.Id", "GroupId ", "GroupıD", "\ufeffGroupId", "GROUPID"} {
		_, err := Inspect(edited(t, RecallCommand, `"Type"`, `"`+name+`":"other","Type"`), RecallCommand)
		wantRejection(t, err, ReasonPayload, "/"+name)
	}
	if _, err := ParseQuery("S%C4%B1gn=1&Sign=2"); err == nil {
		t.Error("a dotless i in Sign passes")
	}
}

// A backend may read a field of any command, whatever the command of the query.
func TestOtherCasesOfProtocolNamesAreRejectedInEveryCommand(t *testing.T) {
	t.Parallel()
	names := make(map[string]bool)
	eachField(commands, func(f Field) { names[f.Name] = true })
	tried := 0
	for _, c := range append(Commands(), Command{Name: "Future.CallbackAfterAnything"}) {
		for name := range names {
			alike := strings.ToLower(name)
			if names[alike] {
				alike = strings.ToUpper(name) // key and value are names themselves
			}
			members := `"` + alike + `":1`
			if len(c.Fields) == 0 && !protocolNames[normalizeName(name)].hasRole {
				// Of a command without a schema, this may be the true name, if it is alone.
				wantAccepted(t, sampleWith(c.Name, members), c.Name)
				members = `"` + name + `":1,` + members
			}
			_, err := Inspect(sampleWith(c.Name, members), c.Name)
			if r := wantReason(t, err, ReasonPayload); r.Path != "/"+alike {
				t.Errorf("%s in %s: %v", alike, c.Name, &r)
			}
			tried++
		}
	}
	if tried < 69*100 {
		t.Errorf("%d names were tried, want all", tried)
	}
}

func TestLookAlikesAreRejectedInEveryObjectOfTheProtocol(t *testing.T) {
	t.Parallel()
	const unknown = "Future.CallbackAfterAnything"
	for body, path := range map[string]string{
		`{"MsgSeqList":[{"MsgSeq":1}],"msgseqlist":[{"MsgSeq":2}]}`:                "/msgseqlist",
		`{"MsgSeqList":[{"MsgSeq":1},{"msgseq":2}]}`:                               "/MsgSeqList/1/msgseq",
		`{"Events":[{"EventTime":1,"eventtime":2}]}`:                               "/Events/0/eventtime",
		`{"MemberList":{"member_account":1}}`:                                      "/MemberList/member_account",
		`{"GroupMsgReceiptList":[{"ReadReceiptMembers":[{"MemberAccount":"x"}]}]}`: "/GroupMsgReceiptList/0/ReadReceiptMembers/0/MemberAccount",
		`{"TopicId":"a","topicid":"b"}`:                                            "/topicid",
		`{"GroupAttr":[{"Key":"a"}]}`:                                              "/GroupAttr/0/Key",
		`{"a":{"b":[{"__proto__":{}}]}}`:                                           "/a/b/0/__proto__",
		`{"EventTime":-1}`:                                                         "/EventTime",
	} {
		_, err := Inspect([]byte(body), unknown)
		wantRejection(t, err, ReasonPayload, path)
	}
	alarm := sampleWith("Group.CallbackOnDailyGroupQuotaAlarm", `"TopicId":"a","topicId":"b"`)
	_, err := Inspect(alarm, "Group.CallbackOnDailyGroupQuotaAlarm")
	wantRejection(t, err, ReasonPayload, "/topicId")
	for _, body := range []string{
		`{"GroupAttr":[{"key":"a","value":"b"}],"UserDefinedDataList":[{"Key":"a","Value":"b"}]}`,
		`{"Unknown":{"groupid":1,"GroupId":2,"GROUPID":[{"msgseq":1}]}}`,
		`{"MsgID":"a"}`, `{"MsgId":"a"}`, `{"key":1}`, `{"Key":1}`, `{"EventTime":0}`, `{"proto":1,"__PROTO__":2}`,
	} {
		wantAccepted(t, []byte(body), unknown)
	}
}

func TestEventTimesAreNotNegative(t *testing.T) {
	t.Parallel()
	for _, c := range append(Commands(), Command{Name: "Future.CallbackAfterAnything"}) {
		sample := string(Sample(c.Name))
		if c.Name == "Future.CallbackAfterAnything" || len(c.Fields) == 0 {
			sample = strings.TrimSuffix(sample, "}") + `,"EventTime":1670574414123}`
		}
		for _, sampled := range []string{"1670574414123", "1670574414"} {
			if negative := strings.Replace(sample, `"EventTime":`+sampled+`}`, `"EventTime":-1}`, 1); negative != sample {
				_, err := Inspect([]byte(negative), c.Name)
				wantReason(t, err, ReasonPayload)
			}
		}
	}
}

func TestFollowDeleteHasAnArrayOfAccounts(t *testing.T) {
	t.Parallel()
	const deleted, array = "Follow.CallbackAfterFollowDelete", `"To_Account":["jonh"]`
	for _, accounts := range []string{`["a"]`, `["a","b"]`, `[]`} {
		wantAccepted(t, edited(t, deleted, array, `"To_Account":`+accounts), deleted)
	}
	_, err := Inspect(edited(t, deleted, array, `"To_Account":"a"`), deleted)
	wantRejection(t, err, ReasonPayload, "/To_Account")
	_, err = Inspect(edited(t, deleted, array, `"To_Account":["a",1]`), deleted)
	wantRejection(t, err, ReasonPayload, "/To_Account/1")

	for _, command := range []string{"C2C.CallbackBeforeSendMsg", "C2C.CallbackAfterSendMsg"} {
		_, err := Inspect(edited(t, command, `"To_Account":"jonh"`, array), command)
		wantRejection(t, err, ReasonPayload, "/To_Account")
	}
	const added = "Follow.CallbackAfterFollowAdd"
	_, err = Inspect(edited(t, added, `"To_Account":"jonh"`, array), added)
	wantRejection(t, err, ReasonPayload, "/FollowList/0/To_Account")
}

func TestTopicIDListMayBeAnArrayOrAString(t *testing.T) {
	t.Parallel()
	const command = "Group.CallbackAfterTopicDestroyed"
	with := func(value string) []byte {
		return []byte(`{"CallbackCommand":"` + command + `","GroupId":"@TGS#_a","Type":"Community","TopicIdList":` + value + `}`)
	}
	for _, value := range []string{`["@TGS#_a@TOPIC#_b"]`, `["a","b"]`, `[]`, `"@TGS#_a@TOPIC#_b"`} {
		wantAccepted(t, with(value), command)
	}
	for value, path := range map[string]string{`1`: "/TopicIdList", `{}`: "/TopicIdList", `null`: "/TopicIdList", `["a",1]`: "/TopicIdList/1"} {
		_, err := Inspect(with(value), command)
		wantRejection(t, err, ReasonPayload, path)
	}
}

func TestGroupAttrHasLowerCaseNames(t *testing.T) {
	t.Parallel()
	const command = "Group.CallbackAfterGroupAttrChanged"
	wantAccepted(t, edited(t, command, `{"key":"sample","value":"sample"}`, `{"key":"a","value":"b"},{"key":"c"}`), command)
	for _, name := range []string{"Key", "Value"} {
		_, err := Inspect(edited(t, command, `{"key":"sample","value":"sample"}`, `{"`+name+`":"a"}`), command)
		wantRejection(t, err, ReasonPayload, "/GroupAttr/0/"+name)
	}
	// Elsewhere they are in upper case.
	const created = "Group.CallbackAfterCreateGroup"
	_, err := Inspect(edited(t, created, `{"Key":"sample","Value":"sample"}`, `{"key":"a"}`), created)
	wantRejection(t, err, ReasonPayload, "/UserDefinedDataList/0/key")
}

func TestOperatorIsReadFromTheFieldOfEachCommand(t *testing.T) {
	t.Parallel()
	found := make(map[string]bool)
	for command, field := range map[string]string{
		"Group.CallbackBeforeSendMsg":        "Operator_Account",
		"C2C.CallbackAfterModifyMsg":         "Operator_Account",
		"Group.CallbackBeforeApplyJoinGroup": "Requestor_Account",
		"Sns.CallbackPrevFriendAdd":          "Requester_Account",
		"Sns.CallbackPrevFriendResponse":     "Requester_Account",
		"C2C.CallbackAfterMsgReport":         "Report_Account",
		"Sns.CallbackFriendAdd":              "Admin_Account",
	} {
		value, known := samples[field]
		if !known {
			value = "sample"
		}
		before := fmt.Sprintf("%q:%q", field, value)
		if e := wantAccepted(t, edited(t, command, before, `"`+field+`":"who \"asks\""`), command); e.Operator != `who "asks"` {
			t.Errorf("%s: Operator %q, want the %s", command, e.Operator, field)
		}
		found[field] = true
	}
	if len(found) != 5 {
		t.Errorf("%d names, want 5", len(found))
	}
}

// destroyed returns the payload for a destroyed group with many members.
func destroyed(size int) []byte {
	var b bytes.Buffer
	b.WriteString(`{"CallbackCommand":"Group.CallbackAfterGroupDestroyed","GroupId":"@TGS#2J4SZEAEL","Type":"Public","Owner_Account":"leckie","Name":"n","MemberList":[`)
	for i := 0; b.Len() < size; i++ {
		fmt.Fprintf(&b, `{"Member_Account":"user_%d_0123456789abcdef"},`, i)
	}
	b.WriteString(`{"Member_Account":"last"}],"EventTime":1670574414123}`)
	return b.Bytes()
}

func TestADestroyedGroupMayHaveThousandsOfMembers(t *testing.T) {
	t.Parallel()
	body := destroyed(400_000)
	if e := wantAccepted(t, body, "Group.CallbackAfterGroupDestroyed"); e.GroupID != "@TGS#2J4SZEAEL" || e.EventTime != 1670574414123 {
		t.Errorf("got %+v", e)
	}
	_, err := Inspect(bytes.Replace(body, []byte(`"last"`), []byte(`1`), 1), "Group.CallbackAfterGroupDestroyed")
	r := wantReason(t, err, ReasonPayload)
	if !strings.HasPrefix(r.Path, "/MemberList/") || r.Offset < 400_000 {
		t.Errorf("got %+v, want the last member of all", r)
	}
}

func TestContentResultsHaveNoCommand(t *testing.T) {
	t.Parallel()
	const command = "ContentCallback.ResultNotify"
	if bytes.Contains(Sample(command), []byte("CallbackCommand")) {
		t.Errorf("sample %s", Sample(command))
	}
	wantAccepted(t, Sample(command), command)
	wantAccepted(t, []byte(`{}`), command)
	wantAccepted(t, []byte(`{"ContactItem":{"a":1},"CtxcbKeywords":["x",1],"TextContent":[]}`), command)
	wantAccepted(t, []byte(`{"ContactItem":"a"}`), command)
	_, err := Inspect([]byte(`{"CtxcbResult":"1"}`), command)
	wantRejection(t, err, ReasonPayload, "/CtxcbResult")
}

func TestContentResultsDifferByPageAndScene(t *testing.T) {
	t.Parallel()
	const command = "ContentCallback.ResultNotify"
	for _, member := range []string{
		`"TextContent":["aaabbbccc","1234567"]`, `"TextContent":"aaabbbccc"`,
		`"MsgID":"1434460578_4137340972_1661154487"`, `"MsgID":130`,
		`"ContactItem":{"ContactType":1,"To_Account":"Jonh"}`, `"ContactItem":{"ContactType":2,"ToGroupId":"1213456"}`,
		`"CtxcbSubLabel":"InsinuationPorn","CtxcbSubLabelDesc":"d","CtxcbLibName":"test","SdkAppId":1400187352`,
	} {
		wantAccepted(t, []byte(`{`+member+`}`), command)
	}
	for member, path := range map[string]string{
		`"TextContent":1`: "/TextContent", `"MsgID":[]`: "/MsgID", `"SdkAppId":"1400187352"`: "/SdkAppId",
	} {
		_, err := Inspect([]byte(`{`+member+`}`), command)
		wantRejection(t, err, ReasonPayload, path)
	}
}

func TestAlertsAreNotAboutAGroup(t *testing.T) {
	t.Parallel()
	const command = "Alert.RequestOverLimit"
	e := wantAccepted(t, []byte(`{"CallbackCommand":"Alert.RequestOverLimit","ServiceName":"im_open_login_svc","Command":"kick","Request":210,"Limit":200}`), command)
	if e.Class != After || e.GroupID+e.Operator+e.GroupType+e.TopicID != "" || e.EventTime != 0 || e.MsgSeqs != nil {
		t.Errorf("got %+v", e)
	}
	wantAccepted(t, []byte(`{"CallbackCommand":"Alert.New","Anything":[1.5]}`), "Alert.New")
	_, err := Inspect([]byte(`{"CallbackCommand":"Alert.Other"}`), "Alert.New")
	wantRejection(t, err, ReasonMismatch, "/CallbackCommand")
}

func TestCommandsOfNeighbouringProductsAreKnownByName(t *testing.T) {
	t.Parallel()
	var known int
	for _, c := range Commands() {
		if len(c.Fields) > 0 {
			continue
		}
		known++
		if c.Class != After {
			t.Errorf("got %+v, want an after-command", c)
		}
		e := wantAccepted(t, []byte(`{"CallbackCommand":"`+c.Name+`","RoomId":7,"RoomInfo":{"a":[null]},"EventTime":"1670574414123"}`), c.Name)
		if e.Class != After || e.EventTime != 1670574414123 {
			t.Errorf("%s: got %+v", c.Name, e)
		}
		for _, body := range []string{`[]`, `{"a":1,"a":2}`, `{"a":1}x`, "{\"a\":\"\xff\"}", `{"CallbackCommand":1}`} {
			if _, err := Inspect([]byte(body), c.Name); err == nil {
				t.Errorf("%s: %q is accepted", c.Name, body)
			}
		}
	}
	if known != 25 {
		t.Errorf("%d commands, want 25", known)
	}
}

func TestUnknownCommandsAreCheckedAsStrictJSONAndReturnAnEvent(t *testing.T) {
	t.Parallel()
	const command = "New.CallbackAfterSomething"
	e := wantAccepted(t, []byte(`{"CallbackCommand":"`+command+`","GroupId":"g","TopicId":"t","Operator_Account":"o","Type":"Public","EventTime":5,"Other":{"CallbackCommand":"x"}}`), command)
	if e.Command != command || e.Class != After || e.GroupID != "g" || e.TopicID != "t" || e.Operator != "o" || e.GroupType != "Public" || e.EventTime != 5 {
		t.Errorf("got %+v", e)
	}
	for _, body := range []string{`{}`, `{"GroupId":7,"Type":null,"EventTime":{"a":1},"Operator_Account":["o"],"TopicId":1.5}`} {
		wantAccepted(t, []byte(body), command)
	}
	for body, reason := range map[string]Reason{
		`null`: ReasonJSON, `[{}]`: ReasonJSON, `{"a":1,}`: ReasonJSON, `{"a":01}`: ReasonJSON, "\ufeff{}": ReasonJSON, `{"x":1,"x":1}`: ReasonJSON,
		strings.Repeat(`{"a":`, 513) + `1` + strings.Repeat(`}`, 513): ReasonJSON, `{"groupid":"g"}`: ReasonPayload,
		`{"CallbackCommand":"Other"}`: ReasonMismatch,
	} {
		if _, err := Inspect([]byte(body), command); err == nil {
			t.Errorf("%.100s is accepted", body)
		} else {
			wantReason(t, err, reason)
		}
	}
	if e := wantAccepted(t, []byte(`{}`), "New.CallbackBeforeSomething"); e.Class != Before {
		t.Errorf("class %s by a name with CallbackBefore, want before", e.Class)
	}
}

func TestNamesAreSpelledAsTencentSpellsThem(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"C2C.CallbackAfterMsgWithDraw", "OfficialAccount.CallbackAfterMsgWithDraw"} {
		if _, known := Lookup(name); !known {
			t.Errorf("%s is not known", name)
		}
		if _, known := Lookup(strings.Replace(name, "WithDraw", "Withdraw", 1)); known {
			t.Errorf("%s is known in another case", name)
		}
	}
	push, _ := Lookup("Push.OfflinePush")
	if i := slices.IndexFunc(push.Fields[0].Fields, func(f Field) bool { return f.Name == "GroupID" }); i < 0 {
		t.Error("the GroupID of a push is not spelled as Tencent does")
	}
}
