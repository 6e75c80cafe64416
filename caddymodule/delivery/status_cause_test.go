// SPDX-FileCopyrightText: 2026 The timguard authors
// SPDX-License-Identifier: Apache-2.0

package delivery_test

import (
	"encoding/base64"
	"net/http"
	"strconv"
	"strings"
	"testing"

	"github.com/timguard/timguard/caddymodule/internal/guardtest"
	"github.com/timguard/timguard/caddymodule/outbox"
)

func TestEndToEndDeliveryShowSaysWhyABodyCannotBeShown(t *testing.T) {
	t.Parallel()
	key := func(b string) string {
		return "encrypt " + base64.StdEncoding.EncodeToString([]byte(strings.Repeat(b, 32)))
	}
	b := guardtest.NewBackend(t, guardtest.Answers(http.StatusInternalServerError, ""))
	s := guardtest.NewSite(t, guardtest.Delivering(b, ""))
	s.Options = "max_attempts 1\n" + key("a")
	s.Start(t)
	guardtest.NewPoster(t, s.Listen).WantOK(t, "sealed")
	s.WantState(t, outbox.Dead, 1)
	id := strconv.FormatInt(s.Items(t)[0].ID, 10)
	if text := s.CLI(t, false, "show", id); !strings.Contains(text, `"MsgSeqList":[`) {
		t.Errorf("with the key: %s", text)
	}
	s.Options = "max_attempts 1\n" + key("b")
	s.Reload(t)
	if text := s.CLI(t, false, "show", id); !strings.Contains(text, "encrypted with a key that is not configured") {
		t.Errorf("with another key: %s", text)
	}
}
