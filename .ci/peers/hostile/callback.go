// SPDX-FileCopyrightText: 2026 The timguard authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"crypto/sha256"
	"encoding"
	"encoding/binary"
	"encoding/hex"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"
)

const (
	app      = "1400000000"
	otherApp = "1400000001"
	command  = "Group.CallbackAfterRecallMsg"
)

// callback is a request before it is sent, which a case changes.
type callback struct {
	token  string
	query  []string // name=value, percent-encoded
	header http.Header
	body   string

	trailer http.Header // if any, the body is chunked
}

// newCallback returns a genuine callback with the body, signed now.
func newCallback(token, body string) *callback {
	c := &callback{token: token, header: http.Header{}, body: body}
	c.header.Set("Content-Type", "application/json")
	c.query = []string{
		"SdkAppid=" + app, "CallbackCommand=" + command, "contenttype=json",
		"ClientIP=127.0.0.1", "OptPlatform=RESTAPI", "Sign=", "RequestTime=",
	}
	c.sign(0)
	return c
}

// sign computes Sign itself, so that it and timguard cannot be wrong together.
func (c *callback) sign(offset time.Duration) {
	requestTime := unixSeconds(offset)
	sum := sha256.Sum256([]byte(c.token + requestTime))
	c.set("Sign", hex.EncodeToString(sum[:]))
	c.set("RequestTime", requestTime)
}

// extend makes of a Sign that someone has seen the Sign of a longer RequestTime,
// from nothing but the token's length.
func (c *callback) extend() {
	const more = "9"
	signed := len(c.token) + len(c.get("RequestTime"))
	padding := "\x80" + strings.Repeat("\x00", 64-8-1-signed)
	padding += string(binary.BigEndian.AppendUint64(nil, uint64(8*signed)))

	state := []byte("sha\x03")
	sum, err := hex.DecodeString(c.get("Sign"))
	must(err)
	state = append(append(state, sum...), make([]byte, 64)...)
	state = binary.BigEndian.AppendUint64(state, 64)
	h := sha256.New()
	must(h.(encoding.BinaryUnmarshaler).UnmarshalBinary(state))
	h.Write([]byte(more))

	requestTime := c.get("RequestTime") + padding + more
	forged, honest := h.Sum(nil), sha256.Sum256([]byte(c.token+requestTime))
	if !slices.Equal(forged, honest[:]) {
		panic("the forged Sign is not the one that the token makes")
	}
	c.set("Sign", hex.EncodeToString(forged))
	c.set("RequestTime", url.QueryEscape(requestTime))
}

func (c *callback) index(name string) int {
	return slices.IndexFunc(c.query, func(pair string) bool { return strings.HasPrefix(pair, name+"=") })
}

func (c *callback) get(name string) string { return c.query[c.index(name)][len(name)+1:] }

func (c *callback) set(name, value string) { c.query[c.index(name)] = name + "=" + value }

func (c *callback) remove(name string) {
	i := c.index(name)
	c.query = slices.Delete(c.query, i, i+1)
}

func (c *callback) prepend(pair string) { c.query = slices.Insert(c.query, 0, pair) }

// command sets the command in the query, percent-encoded, and in the body.
func (c *callback) command(inQuery, inBody string) {
	c.set("CallbackCommand", inQuery)
	c.replace(`"`+command+`"`, `"`+inBody+`"`)
}

// replace changes the body, and panics if the body has no such part.
func (c *callback) replace(part, by string) {
	if !strings.Contains(c.body, part) {
		panic("the body has no " + part)
	}
	c.body = strings.Replace(c.body, part, by, 1)
}
