// SPDX-FileCopyrightText: 2026 The timguard authors
// SPDX-License-Identifier: Apache-2.0

package callback

import (
	"bytes"
	"fmt"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// Sample returns a valid payload of the command on one line, with every field of the
// schema and the EventTime of Tencent's samples.
func Sample(command string) []byte { return SampleAt(command, sampleTime) }

// SampleAt is like [Sample], but for an event at the given time.
func SampleAt(command string, at time.Time) []byte {
	fields := []Field{callbackCommand}
	if c, ok := Lookup(command); ok && len(c.Fields) > 0 {
		fields = c.Fields
	}
	var buf bytes.Buffer
	s := sampler{enc: jsontext.NewEncoder(&buf), command: command, at: at}
	if err := s.object(fields); err != nil {
		panic(fmt.Sprintf("callback: sample of %s: %v", command, err)) // a bug in the table of commands
	}
	return bytes.TrimSpace(buf.Bytes())
}

type sampler struct {
	enc     *jsontext.Encoder
	command string
	at      time.Time
}

func (s sampler) object(fields []Field) error {
	if err := s.enc.WriteToken(jsontext.BeginObject); err != nil {
		return err
	}
	for _, f := range fields {
		if err := s.enc.WriteToken(jsontext.String(f.Name)); err != nil {
			return err
		}
		if err := s.value(f); err != nil {
			return err
		}
	}
	return s.enc.WriteToken(jsontext.EndObject)
}

func (s sampler) value(f Field) error {
	switch {
	case f.Name == "CallbackCommand":
		return s.enc.WriteToken(jsontext.String(s.command))
	case f.Name == "EventTime" && s.enc.StackDepth() > 1: // push events have it in seconds
		return s.enc.WriteToken(jsontext.Int(s.at.Unix()))
	case f.Name == "EventTime":
		return s.enc.WriteToken(jsontext.Int(s.at.UnixMilli()))
	case f.Type&(Objects|Array|Strings) != 0:
		return s.array(f)
	case f.Type&Object != 0 && len(f.Fields) > 0:
		return s.object(f.Fields)
	}
	return json.MarshalEncode(s.enc, sampleScalar(f), json.Deterministic(true))
}

func (s sampler) array(f Field) error {
	if err := s.enc.WriteToken(jsontext.BeginArray); err != nil {
		return err
	}
	var err error
	switch element, known := samples[f.Name]; {
	case known:
		err = json.MarshalEncode(s.enc, element, json.Deterministic(true))
	case f.Type&Objects != 0:
		err = s.object(f.Fields)
	default:
		err = json.MarshalEncode(s.enc, "sample")
	}
	if err != nil {
		return err
	}
	return s.enc.WriteToken(jsontext.EndArray)
}

func sampleScalar(f Field) any {
	if value, known := samples[f.Name]; known {
		return value
	}
	if f.Type&String != 0 {
		return "sample"
	}
	return 1
}

// SampleApp is the app in samples of ContentCallback.ResultNotify.
const SampleApp = 1400000000

var sampleTime = time.UnixMilli(1670574414123)

// samples maps fields to the values that they have in Tencent's samples. For an array,
// the value is one element.
var samples = map[string]any{
	"Operator_Account":  "admin",
	"From_Account":      "jared",
	"To_Account":        "jonh",
	"Owner_Account":     "leckie",
	"Member_Account":    "bob",
	"Modified_Account":  "123456",
	"OldOwner_Account":  "user1",
	"NewOwner_Account":  "user2",
	"Requestor_Account": "jared",
	"Report_Account":    "jared",
	"Peer_Account":      "Jonh",
	"SdkAppId":          SampleApp,
	"Official_Account":  "@TOA#_2MYTQ6TGB",
	"AtRobots_Account":  "@RBT#001",

	"Type":        "Community",
	"GroupId":     "1213456",
	"GroupID":     "@TGS#12DEVUDHQ",
	"TopicId":     "@TGS#_@TGS#cQVLVHIM62CJ@TOPIC#_TestTopic",
	"TopicIdList": "@TGS#_@TGS#cQVLVHIM62CJ@TOPIC#_TestTopic",
	"Name":        "MyFirstGroup",
	"NameCard":    "jacky",
	"Role":        "Admin",
	"JoinType":    "Apply",
	"ExitType":    "Kicked",
	"EventCause":  "HeartbeatInterrupt",
	"OptionType":  "set",
	"ApplyMsg":    "test",

	"MsgSeq":    130,
	"MsgRandom": 2837546,
	"Random":    2804799576,
	"MsgTime":   1557481126,
	"MsgKey":    "48374_2837546_1557481126",
	"MsgId":     "144115213033478435-1739361321-2512805311",
	"MsgBody": map[string]any{
		"MsgType": "TIMTextElem", "MsgContent": map[string]any{"Text": "red packet"},
	},
	"CloudCustomData": "your cloud custom data",
	"LastReadTime":    1614754606,
	"Seq":             56,

	"Action":   "Login",
	"Reason":   "Register",
	"Platform": "Windows",

	"AddType":        "Add_Type_Both",
	"AddSource":      "AddSource_Type_Android",
	"ResponseAction": "Response_Action_AgreeAndAdd",
	"ClientCmd":      "friend_add",

	"RoomId": "room_id",
	"Time":   1703589922,
	"GiftId": "gift1",
	"Coins":  1000,

	"Scene":           "C2C",
	"ContentType":     "Text",
	"TextContent":     "aaabbbccc",
	"MsgID":           "1434460578_4137340972_1661154487",
	"CtxcbRequestId":  "241ed925-4c56-4357-95dd-1e6e7798f214",
	"CtxcbKeywords":   "aaabbbccc",
	"CtxcbSuggestion": "Review",
	"CtxcbLabel":      "Sexy",
}
