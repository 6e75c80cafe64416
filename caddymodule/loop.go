// SPDX-FileCopyrightText: 2026 The timguard authors
// SPDX-License-Identifier: Apache-2.0

package caddymodule

import (
	"net/http"
	"strings"

	"go.uber.org/zap"

	"github.com/timguard/timguard/caddymodule/callback"
)

// maxPasses is how many times Caddy may have passed a callback on before it comes to the
// guard. A few servers in front of it are normal; in a circle there is no end.
const maxPasses = 10

// isLoop reports whether the backend leads back to the guard, as a web server does that has
// the guard's name and is its backend, too. Calls would go round until one of them fails, and
// a delivery would be answered OK as a duplicate of itself, without ever reaching a backend.
func (h *Handler) isLoop(r *http.Request, c *call) bool {
	return c.action == actionForward && passes(r.Header) > maxPasses ||
		c.rejection == nil && h.deliveries != nil && isDelivery(r.Header) &&
			h.deliveries.Attempts(r.Context(), h.guard, r.Header.Get("Tim-Delivery-Consumer"), r.Header.Get("Tim-Event-Id"))
}

// passes returns how many times reverse_proxy has passed the request on: it adds itself to
// Via each time.
func passes(header http.Header) (n int) {
	for _, via := range header["Via"] {
		for server := range strings.SplitSeq(via, ",") {
			if strings.HasSuffix(server, " Caddy") {
				n++
			}
		}
	}
	return n
}

// isDelivery reports whether the request is an attempt of a guard to deliver a callback.
func isDelivery(header http.Header) bool { return header.Get("Tim-Delivery-Attempt") != "" }

// answerLoop refuses a call that has come back.
func (h *Handler) answerLoop(w http.ResponseWriter, c *call) {
	h.logger.Error("callback goes round in a circle: the address of the backend leads back to this guard",
		zap.String("guard", h.Name), zap.String("command", c.shown("command")))
	c.answer(w, http.StatusLoopDetected, callback.Fail("the callback goes round in a circle: the guard's backend leads back to the guard").JSON())
}
