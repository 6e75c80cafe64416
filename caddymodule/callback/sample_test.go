// SPDX-FileCopyrightText: 2026 The timguard authors
// SPDX-License-Identifier: Apache-2.0

package callback

import (
	"bytes"
	"testing"
)

func TestSamplesAreValidAndOnOneLine(t *testing.T) {
	t.Parallel()
	for _, c := range append(Commands(), Command{Name: "Future.CallbackAfterAnything"}) {
		sample := Sample(c.Name)
		event, err := Inspect(sample, c.Name)
		if err != nil {
			t.Errorf("%s: %v; sample %s", c.Name, err, sample)
			continue
		}
		if event.Command != c.Name {
			t.Errorf("%s: the event's command is %q", c.Name, event.Command)
		}
		if bytes.ContainsAny(sample, "\r\n") || !bytes.Equal(sample, bytes.TrimSpace(sample)) {
			t.Errorf("%s: the sample is not one line: %q", c.Name, sample)
		}
	}
}

func TestSamplesHaveAllFields(t *testing.T) {
	t.Parallel()
	for _, c := range Commands() {
		tree := decodeTree(t, Sample(c.Name))
		visit(c.Fields, tree, nil, func(f Field, at *place) {
			if _, there := at.object[f.Name]; !there {
				t.Errorf("%s: the sample has no %s", c.Name, at.pointer(f.Name))
			}
		})
	}
}
