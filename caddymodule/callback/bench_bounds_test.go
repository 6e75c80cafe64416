// SPDX-FileCopyrightText: 2026 The timguard authors
// SPDX-License-Identifier: Apache-2.0

package callback

import (
	"bytes"
	_ "embed"
	"encoding/json"
	"errors"
	"io"
	"slices"
	"testing"
	"time"

	"github.com/go-json-experiment/json/jsontext"
)

// chatMessage is the most frequent kind of callback: a group message, here with Chinese
// text and three elements.
//
//go:embed testdata/message.json
var chatMessage string

// BenchmarkBounds compares Inspect with other parsers, as medians of ratios. The two
// that are compared alternate, so that a slowdown of the machine affects both.
func BenchmarkBounds(b *testing.B) {
	b.Run("recall/times faster than encoding/json (at least 3)", func(b *testing.B) {
		body := []byte(sampleRecall)
		b.ReportMetric(ratio(b, decodeRecall(body), inspecting(body, RecallCommand)), "times")
	})
	b.Run("chat message/of jsontext's tokens (at most 1.6)", func(b *testing.B) {
		body := []byte(chatMessage)
		b.ReportMetric(ratio(b, inspecting(body, "Group.CallbackAfterSendMsg"), walking(body)), "ratio")
	})
	b.Run("all samples/of jsontext's tokens (at most 1.6)", func(b *testing.B) {
		var inspects, walks []func() error
		for _, c := range commands {
			inspects = append(inspects, inspecting(Sample(c.Name), c.Name))
			walks = append(walks, walking(Sample(c.Name)))
		}
		b.ReportMetric(ratio(b, each(inspects), each(walks)), "ratio")
	})
}

// ratio returns the median of the first function's time divided by the second's.
func ratio(b *testing.B, one, other func() error) float64 {
	b.Helper()
	const rounds = 301
	turn := func(f func() error, calls int) time.Duration {
		start := time.Now()
		for range calls {
			if err := f(); err != nil {
				b.Fatal(err)
			}
		}
		return time.Since(start)
	}
	calls := 1 + int(time.Millisecond/max(1, turn(one, 10)/10))
	ratios := make([]float64, rounds)
	for i := range ratios {
		ratios[i] = float64(turn(one, calls)) / float64(turn(other, calls))
	}
	slices.Sort(ratios)
	b.ReportMetric(0, "ns/op") // not meaningful
	return ratios[rounds/2]
}

func inspecting(body []byte, command string) func() error {
	return func() error {
		_, err := Inspect(body, command)
		return err
	}
}

// walking reads all tokens, with an existing decoder.
func walking(body []byte) func() error {
	reader, dec := new(bytes.Reader), new(jsontext.Decoder)
	return func() error {
		reader.Reset(body)
		dec.Reset(reader)
		for {
			if _, err := dec.ReadToken(); errors.Is(err, io.EOF) {
				return nil
			} else if err != nil {
				return err
			}
		}
	}
}

func decodeRecall(body []byte) func() error {
	return func() error {
		var recall struct {
			CallbackCommand, Type, GroupId, TopicId string //nolint:revive,staticcheck // the wire's names
			Operator_Account                        string //nolint:revive,staticcheck // the wire's names
			MsgSeqList                              []struct{ MsgSeq uint32 }
			EventTime                               string
		}
		return json.Unmarshal(body, &recall)
	}
}

func each(calls []func() error) func() error {
	return func() error {
		for _, call := range calls {
			if err := call(); err != nil {
				return err
			}
		}
		return nil
	}
}
