// SPDX-FileCopyrightText: 2026 The timguard authors
// SPDX-License-Identifier: Apache-2.0

// Command hostile sends a list of hostile callbacks to several systems and prints,
// as a Markdown table, which of them each lets through:
//
//	hostile -body recall.json -unchecked URL NAME=URL...
//
// It fails if the first system lets one through, if one that checks nothing does
// not (then that request shows nothing), or if any refuses a genuine callback.
// TIM_CALLBACK_TOKEN is the token.
package main

import (
	"bufio"
	"context"
	"flag"
	"fmt"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"
	"time"
)

const timeout = 30 * time.Second

type system struct {
	name, url string
	through   int // how many cases it let through
	alone     int // how many of them need no second reader
}

func main() {
	bodyFile := flag.String("body", "", "file with the body of a genuine recall")
	unchecked := flag.String("unchecked", "", "URL of a site that checks nothing")
	flag.Parse()
	body, err := os.ReadFile(*bodyFile)
	must(err)
	var systems []*system
	for _, argument := range flag.Args() {
		name, url, _ := strings.Cut(argument, "=")
		systems = append(systems, &system{name: name, url: url})
	}
	faults := run(string(body), *unchecked, systems)
	for _, fault := range faults {
		fmt.Fprintln(os.Stderr, "hostile:", fault)
	}
	if len(faults) > 0 {
		os.Exit(1)
	}
}

// run prints the table, and returns what must not be.
func run(body, unchecked string, systems []*system) (faults []string) {
	token := os.Getenv("TIM_CALLBACK_TOKEN")
	genuine := func() {
		for _, s := range systems {
			if got := send(s.url, newCallback(token, body)); !got.reached {
				faults = append(faults, fmt.Sprintf("%s refuses a genuine callback: %s", s.name, got))
			}
		}
	}
	genuine()
	printHead(systems)
	for _, hostile := range cases() {
		try := func(url string) outcome {
			c := newCallback(token, body)
			hostile.change(c)
			return send(url, c)
		}
		if got := try(unchecked); !got.reached {
			faults = append(faults, fmt.Sprintf("%s does not pass where nothing is checked: %s", hostile.name, got))
		}
		fmt.Printf("| %s | %s |", hostile.name, hostile.why)
		for i, s := range systems {
			got := try(s.url)
			fmt.Printf(" %s |", got)
			if !got.through() {
				continue
			}
			s.through++
			if !strings.HasSuffix(hostile.name, secondReader) {
				s.alone++
			}
			if i == 0 {
				faults = append(faults, fmt.Sprintf("%s lets through: %s", s.name, hostile.name))
			}
		}
		fmt.Println()
	}
	printTotals(systems)
	genuine() // nor did a hostile one end the server
	return faults
}

func printHead(systems []*system) {
	fmt.Print("| hostile request | what it is for |")
	for _, s := range systems {
		fmt.Printf(" %s |", s.name)
	}
	fmt.Printf("\n|%s\n", strings.Repeat("---|", len(systems)+2))
}

func printTotals(systems []*system) {
	fmt.Printf("| **let through, of %d** | |", len(cases()))
	for _, s := range systems {
		fmt.Printf(" **%d** |", s.through)
	}
	fmt.Printf("\n| without those with %s | |", secondReader)
	for _, s := range systems {
		fmt.Printf(" %d |", s.alone)
	}
	fmt.Print("\n", notes)
}

// outcome is what became of a request.
type outcome struct {
	status  int
	reached bool   // the backend or the application's handler has it
	readAs  string // what that reads the body as: json or form
	form    bool   // it was sent as a form
	lost    bool   // a header that makes it hostile did not arrive
	broken  bool   // the server closed the connection instead of an answer
}

// through reports whether the request got through as what it is. A form that
// arrives as JSON and nothing else can do no harm, nor can one without its header.
func (o outcome) through() bool { return o.reached && !o.lost && (!o.form || o.readAs == "form") }

func (o outcome) String() string {
	switch {
	case o.through():
		return "**through**"
	case o.reached && o.lost:
		return "removed"
	case o.reached:
		return "read as JSON"
	case o.broken:
		return "closed"
	default:
		return fmt.Sprint(o.status)
	}
}

// send reads the answer while it still sends, because a server that refuses a large
// body does not wait for its end.
func send(url string, c *callback) outcome {
	url += "?" + strings.Join(c.query, "&")
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, url, strings.NewReader(c.body)) //nolint:gosec // it goes where the command line says
	must(err)
	request.Header, request.Close = c.header, true
	if c.trailer != nil {
		request.Trailer, request.ContentLength = c.trailer, -1
	}
	o := outcome{form: strings.Contains(c.header.Get("Content-Type"), "form")}

	conn, err := new(net.Dialer).DialContext(ctx, "tcp", request.URL.Host)
	must(err)
	defer func() { _ = conn.Close() }()
	must(conn.SetDeadline(time.Now().Add(timeout)))
	go func() { _ = request.Write(conn) }()
	response, err := http.ReadResponse(bufio.NewReader(conn), request)
	if err != nil {
		o.broken = true
		return o
	}
	defer func() { _ = response.Body.Close() }()
	o.status, o.readAs = response.StatusCode, response.Header.Get("Read-As")
	o.reached = response.StatusCode == http.StatusOK && o.readAs != ""
	o.lost = slices.ContainsFunc(c.carries(), func(header string) bool { return !strings.Contains(response.Header.Get("Carried"), header) })
	return o
}

// carries returns the headers that make the callback hostile, as the header Carried of the
// answer names them.
func (c *callback) carries() (headers []string) {
	for name, header := range map[string]string{"Cookie": "cookie", "X-Http-Method-Override": "override"} {
		if c.header.Get(name) != "" {
			headers = append(headers, header)
		}
	}
	if c.trailer != nil {
		headers = append(headers, "trailer")
	}
	return headers
}

func must(err error) {
	if err != nil {
		panic(err)
	}
}
