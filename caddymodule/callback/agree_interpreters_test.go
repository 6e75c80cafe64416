// SPDX-FileCopyrightText: 2026 The timguard authors
// SPDX-License-Identifier: Apache-2.0

package callback

import (
	"bufio"
	"encoding/base64"
	"encoding/json"
	"io"
	"os"
	"os/exec"
	"sync"
	"testing"
)

// interpreters are languages in which endpoints are written. Each uses its own parsers
// with default settings, without a configuration file.
var interpreters = []*interpreter{
	{command: []string{"node", "testdata/agree/read.js"}},
	{command: []string{"python3", "-I", "testdata/agree/read.py"}},
	{command: []string{"php", "-n", "-d", "display_errors=stderr", "testdata/agree/read.php"}},
}

// interpreter is a child process that answers each line with one line. It exits at the
// end of its input, that is, with the test or fuzz worker that started it.
type interpreter struct {
	command []string

	start sync.Once
	in    io.WriteCloser // nil if it is not installed
	out   *bufio.Reader
}

var asking sync.Mutex // one question at a time

// requireInterpreters fails the test if an interpreter is missing although all are
// required.
func requireInterpreters(tb testing.TB) {
	tb.Helper()
	for _, p := range interpreters {
		p.start.Do(func() { p.run(tb) })
		switch {
		case p.in != nil:
		case os.Getenv("TIMGUARD_REQUIRE_INTERPRETERS") != "":
			tb.Fatalf("%s is not installed", p.command[0])
		default:
			tb.Logf("%s is not installed: what it reads is not compared", p.command[0])
		}
	}
}

func (p *interpreter) run(tb testing.TB) {
	tb.Helper()
	if _, err := exec.LookPath(p.command[0]); err != nil {
		return
	}
	child := exec.Command(p.command[0], p.command[1:]...)
	child.Stderr = os.Stderr
	in, err := child.StdinPipe()
	if err != nil {
		tb.Fatal(err)
	}
	out, err := child.StdoutPipe()
	if err != nil {
		tb.Fatal(err)
	}
	if err := child.Start(); err != nil {
		tb.Fatal(err)
	}
	p.in, p.out = in, bufio.NewReaderSize(out, 1<<20)
}

// readings asks every interpreter what it reads in the text, which is of the kind what
// ("json" or "query"), and returns the results by the name of the parser.
func readings(t *testing.T, what string, text []byte) map[string]*value {
	t.Helper()
	request := what + " " + base64.StdEncoding.EncodeToString(text) + "\n"
	all := map[string]*value{}
	asking.Lock()
	defer asking.Unlock()
	for _, p := range interpreters {
		if p.in != nil {
			if _, err := io.WriteString(p.in, request); err != nil {
				t.Fatalf("%s: %v", p.command[0], err)
			}
		}
	}
	for _, p := range interpreters {
		if p.in == nil {
			continue
		}
		answer, err := p.out.ReadBytes('\n')
		if err != nil {
			t.Fatalf("%s ended: %v; at %s %.2000q", p.command[0], err, what, text)
		}
		var some map[string]*value
		if err := json.Unmarshal(answer, &some); err != nil {
			t.Fatalf("%s answers %.300q: %v", p.command[0], answer, err)
		}
		for name, v := range some {
			all[p.command[0]+" "+name] = v
		}
	}
	return all
}
