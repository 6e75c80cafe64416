// SPDX-FileCopyrightText: 2026 The timguard authors
// SPDX-License-Identifier: Apache-2.0

package callback

import (
	"strings"
	"testing"
)

// Payloads as on Tencent's pages, or as they were captured, that other versions of the
// table have refused.
var genuine = map[string]struct{ command, body string }{
	"the changed member, as on the international page": {
		"Group.CallbackAfterMemberFieldChanged",
		`{"CallbackCommand":"Group.CallbackAfterMemberFieldChanged","GroupId":"@TGS#xxxx","Type":"Community","Operator_Account":"admin","Member_Account":"123456","Role":"Admin","NameCard":"jacky","EventTime":"1670574414123"}`,
	},
	"the changed member, as on the Chinese page": {
		"Group.CallbackAfterMemberFieldChanged",
		`{"CallbackCommand":"Group.CallbackAfterMemberFieldChanged","GroupId":"@TGS#xxxx","Type":"Community","Operator_Account":"admin","Modified_Account":"123456","Role":"Admin","NameCard":"jacky","EventTime":"1670574414123"}`,
	},
	"a custom state, which has no reason": {
		"State.StateChange",
		`{"CallbackCommand":"State.StateChange","EventTime":1629883332497,"Info":{"Action":"CustomStatusChange","To_Account":"testuser316"}}`,
	},
	"a state without time and devices": {
		"State.StateChange",
		`{"CallbackCommand":"State.StateChange","Info":{"To_Account":"1","Action":"Login","Reason":"Register"}}`,
	},
	"a message to one user before it is sent, without MsgKey": {
		"C2C.CallbackBeforeSendMsg",
		`{"MsgBody":[{"MsgType":"TIMTextElem","MsgContent":{"Text":"123"}}],"CallbackCommand":"C2C.CallbackBeforeSendMsg","From_Account":"1","To_Account":"user_01","FriendShip":3,"MsgRandom":1109223749,"MsgSeq":3678786,"MsgTime":1543209719}`,
	},
	"a message to one user, without MsgSeq, MsgRandom and MsgKey": {
		"C2C.CallbackAfterSendMsg",
		`{"MsgBody":[{"MsgType":"TIMFaceElem","MsgContent":{"Index":3,"Data":"x"}}],"CallbackCommand":"C2C.CallbackAfterSendMsg","From_Account":"VISITOR_11","To_Account":"TXUSER_235500","MsgTime":1495788601}`,
	},
	"a group message, without Operator_Account and Random": {
		"Group.CallbackAfterSendMsg",
		`{"CallbackCommand":"Group.CallbackAfterSendMsg","From_Account":"1073260113","GroupId":"o2efcb58857jbW6Ki","MsgBody":[{"MsgContent":{"Text":"x"},"MsgType":"TIMTextElem"}],"MsgSeq":925,"MsgTime":1535137638,"Type":"AVChatRoom"}`,
	},
	"a message to a group that does not exist, which has no type": {
		"Group.CallbackSendMsgException",
		`{"CallbackCommand":"Group.CallbackSendMsgException","GroupId":"@TGS#2J4SZEAEL","From_Account":"jared","Operator_Account":"admin","Random":123456,"ErrorCode":10010,"ErrorInfo":"group not exist"}`,
	},
	"a group without an owner before it is created": {
		"Group.CallbackBeforeCreateGroup",
		`{"CallbackCommand":"Group.CallbackBeforeCreateGroup","Operator_Account":"admin","Type":"Public","Name":"MyFirstGroup","EventTime":1670574414123}`,
	},
	"a group without an owner": {
		"Group.CallbackAfterCreateGroup",
		`{"CallbackCommand":"Group.CallbackAfterCreateGroup","EventTime":1682914763569,"GroupId":"@TGS#2Z4CLQE5CM","InviteOption":"NeedPermission","MemberList":[{"Member_Account":"a"}],"Name":"n","Operator_Account":"a","Type":"Public"}`,
	},
	"a destroyed community, which has no members, and an operator": {
		"Group.CallbackAfterGroupDestroyed",
		`{"CallbackCommand":"Group.CallbackAfterGroupDestroyed","Operator_Account":"administrator","GroupId":"@TGS#_a","Type":"Community","EventTime":1670574414123}`,
	},
	"a topic of a group without an owner": {
		"Group.CallbackAfterCreateTopic",
		`{"CallbackCommand":"Group.CallbackAfterCreateTopic","GroupId":"@TGS#_a","TopicId":"@TGS#_a@TOPIC#_b","Operator_Account":"admin","Type":"Community","Name":"MyFirstTopic"}`,
	},
	"the first owner of a group": {
		"Group.CallbackAfterChangeGroupOwner",
		`{"CallbackCommand":"Group.CallbackAfterChangeGroupOwner","GroupId":"@TGS#a","Type":"Public","Operator_Account":"admin","NewOwner_Account":"user2","EventTime":"1670574414123"}`,
	},
	"a modified message outside of topics": {
		"Group.CallbackAfterModifyMsg",
		`{"MsgBody":[{"MsgType":"TIMTextElem","MsgContent":{"Text":"x"}}],"CallbackCommand":"Group.CallbackAfterModifyMsg","Operator_Account":"oper-user","GroupId":"group-test-2","TopicId":"","MsgSeq":53,"EventTime":1772762975589}`,
	},
	"a message of which only the custom data is modified": {
		"Group.CallbackAfterModifyMsg",
		`{"CloudCustomData":"x","CallbackCommand":"Group.CallbackAfterModifyMsg","Operator_Account":"oper-user","GroupId":"group-test-2","TopicId":"","MsgSeq":53,"EventTime":1772762975589}`,
	},
	"cleared extensions of a group message": {
		"Group.CallbackAfterGroupMsgExtension",
		`{"CallbackCommand":"Group.CallbackAfterGroupMsgExtension","GroupId":"test","MsgSeq":10,"OperateType":3,"ExtensionList":[],"Seq":58,"EventTime":1764688329047}`,
	},
	"cleared extensions of a message to one user": {
		"C2C.CallbackAfterC2CMsgExtension",
		`{"CallbackCommand":"C2C.CallbackAfterC2CMsgExtension","From_Account":"user1","To_Account":"user2","MsgKey":"93847636_1287657_1764688415","OperateType":3,"ExtensionList":[],"Seq":3,"EventTime":1764688641499}`,
	},
	"everything read, and no groups": {
		"C2C.CallbackAfterMsgReadAll",
		`{"CallbackCommand":"C2C.CallbackAfterMsgReadAll","Report_Account":"Jonh","EventTime":1769773302575}`,
	},
	"a gift, as in the samples": {
		"Live.CallbackBeforeSendGift",
		`{"CallbackCommand":"Live.CallbackBeforeSendGift","Operator_Account":"brennanli","RoomId":"room_id","GiftWater":{"From_Account":"from","To_Account":["to1"],"Time":1703589922,"GiftId":"gift1","Count":1,"Coins":1000}}`,
	},
	"a gift, as in the tables": {
		"Live.CallbackBeforeSendGift",
		`{"CallbackCommand":"Live.CallbackBeforeSendGift","Operator_Account":"brennanli","RoomId":"room_id","From_Account":"from","To_Account":["to1"],"Time":1703589922,"GiftId":"gift1","Count":1,"Coins":1000}`,
	},
	"a gift without details": {
		"Live.CallbackBeforeSendGift",
		`{"CallbackCommand":"Live.CallbackBeforeSendGift","Operator_Account":"brennanli","RoomId":"room_id","GiftWater":{}}`,
	},
	"a started call": {
		"Call.CallbackAfterStartCall",
		`{"CallbackCommand":"Call.CallbackAfterStartCall","CallInfo":{"CallId":"055662e1","CallMediaType":"Audio","ChatGroupId":"","RoomId":"","RoomIdType":1},"UserList":[{"User_Account":"user1","Status":"Calling"}],"EventTime":1740464128807}`,
	},
	"a member of a live room": {
		"Live.CallbackAfterMemberStateChanged",
		`{"CallbackCommand":"Live.CallbackAfterMemberStateChanged","RoomId":"room_id","EventType":"Online","EventCause":"Enter","MemberList":[{"Member_Account":"jared"}],"EventTime":1703589922780}`,
	},
	"an event of the customer service": {
		"Desk.SessionEventNotify",
		`{"CallbackCommand":"Desk.SessionEventNotify","SessionId":"2baf4d84","Event":"ChatBot.UserSendMsg","EventTime":1725540020017,"ChannelType":"SDK","ClientUserId":"your_user_id","AgentId":"test@qq.com","MsgKey":"152_1600012345_abcdefg","MsgBody":[{"MsgType":"TIMTextElem","MsgContent":{"Text":"x"}}],"CloudCustomData":"x","IsContactUser":false,"SatisfactionSelected":5,"ForwardFromAgentId":""}`,
	},
	"a pushed message": {
		"Push.OfflinePush",
		`{"Events":[{"CallbackCommand":"Push.OfflinePush","EventType":1,"EventTime":1557481127,"From_Account":"user1","To_Account":"user2","PushPlatform":1,"PushStage":1,"MsgKey":"48374_2837546_1557481126","MsgSeq":48374,"MsgRandom":2837546,"MsgTime":1557481126,"PushID":"67120c46_6a4086c0_9bf5fb50_200002d1089b322_2000005d8d46421","ErrCode":0,"ErrInfo":"OK"}]}`,
	},
	"a request to join, with its text": {
		"Group.CallbackBeforeApplyJoinGroup",
		`{"CallbackCommand":"Group.CallbackBeforeApplyJoinGroup","GroupId":"@TGS#2J4SZEAEL","Type":"Public","Requestor_Account":"jared","ApplyMsg":"test","EventTime":1670574414123}`,
	},
	"a time in digits for one user": {
		"C2C.CallbackAfterMsgReport",
		`{"CallbackCommand":"C2C.CallbackAfterMsgReport","Report_Account":"jared","Peer_Account":"Jonh","LastReadTime":1614754606,"EventTime":"1670574414123"}`,
	},
}

func TestGenuinePayloadsAreAccepted(t *testing.T) {
	t.Parallel()
	for what, payload := range genuine {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			wantAccepted(t, []byte(payload.body), payload.command)
		})
	}
}

// A topic's TopicId names it; elsewhere it is absent or empty.
func TestTopicIDMayBeEmptyOrAbsent(t *testing.T) {
	t.Parallel()
	for _, command := range []string{RecallCommand, "Group.CallbackBeforeSendMsg", "Group.CallbackAfterSendMsg", "Group.CallbackAfterModifyMsg"} {
		const topic = `"TopicId":"@TGS#_@TGS#cQVLVHIM62CJ@TOPIC#_TestTopic"`
		if e := wantAccepted(t, edited(t, command, topic, `"TopicId":""`), command); e.TopicID != "" {
			t.Errorf("%s: topic %q", command, e.TopicID)
		}
		wantAccepted(t, edited(t, command, topic, `"Other":""`), command)
	}
}

func TestGiftsAreForbiddenWithTheirOwnCodes(t *testing.T) {
	t.Parallel()
	const command = "Live.CallbackBeforeSendGift"
	for code, want := range map[int]bool{0: true, 1: true, 2: false, 102099: false, 102100: true, 102200: true, 102201: false, 10100: false, 120001: false} {
		if err := CheckForbid(command, code); (err == nil) != want {
			t.Errorf("code %d: %v", code, err)
		}
	}
	if got := Forbid(command, Sample(command), 0, "no").ErrorCode; got != 1 {
		t.Errorf("default code %d, want 1", got)
	}
}

func TestSilenceFollowsFromTheClassExceptForGifts(t *testing.T) {
	t.Parallel()
	for _, c := range Commands() {
		want := map[Class]Silence{Before: Allows, After: Loses}[c.Class]
		if c.Name == "Live.CallbackBeforeSendGift" {
			want = Blocks
		}
		if c.Silence != want {
			t.Errorf("%s: %q, want %q", c.Name, c.Silence, want)
		}
	}
}

func TestOnlyAfterCommandsAreMarkedAsAnswered(t *testing.T) {
	t.Parallel()
	for _, c := range Commands() {
		want := c.Name == "Chatbot.OnC2CSignalMessage" || c.Name == "Chatbot.InterfaceInvocation"
		if c.Answered != want || c.Answered && c.Class != After {
			t.Errorf("%s: answered is %t", c.Name, c.Answered)
		}
	}
}

// undocumented are the commands for which there is no page of Tencent's.
var undocumented = map[string]bool{"Call.CallbackAfterRecordChanged": true}

func TestCommandsNameTheirPages(t *testing.T) {
	t.Parallel()
	for _, c := range Commands() {
		if (len(c.Source) == 0) != undocumented[c.Name] {
			t.Errorf("%s: source %v", c.Name, c.Source)
		}
		languages := make(map[string]bool)
		for _, page := range c.Source {
			language := page.URL[:max(0, strings.Index(page.URL, "/document/"))]
			if languages[language] {
				t.Errorf("%s: two pages of %s", c.Name, language)
			}
			languages[language] = true
			switch language {
			case "https://cloud.tencent.com", "https://www.tencentcloud.com", "https://trtc.io":
			default:
				t.Errorf("%s: %s is no page of Tencent's", c.Name, page.URL)
			}
			if !wellFormedDate(page.Date) {
				t.Errorf("%s: date %q", c.Name, page.Date)
			}
		}
	}
}

func TestFieldsAreNotBothRequiredAndOptional(t *testing.T) {
	t.Parallel()
	for _, c := range Commands() {
		eachField([]Command{c}, func(f Field) {
			if f.Required && f.Optional {
				t.Errorf("%s: %s", c.Name, f.Name)
			}
		})
	}
}
