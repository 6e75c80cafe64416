// SPDX-FileCopyrightText: 2026 The timguard authors
// SPDX-License-Identifier: Apache-2.0

// Command xbuild builds the Caddy binary that xcaddy.json describes:
//
//	go run ./cmd/xbuild [-o timguard] [xcaddy.json]
//
// The file is the JSON form of xcaddy's Builder, without unknown keys. Relative paths
// are relative to the file.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"syscall"
)

const caddyModule = "github.com/caddyserver/caddy/v2"

func main() {
	output := flag.String("o", "timguard", "write the binary to this `file`")
	flag.Usage = func() {
		fmt.Fprintln(flag.CommandLine.Output(), "usage: xbuild [-o file] [xcaddy.json]")
		flag.PrintDefaults()
	}
	flag.Parse()

	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, *output, flag.Args())
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "xbuild:", strings.ReplaceAll(err.Error(), "\n", "; "))
		os.Exit(1)
	}
}

func run(ctx context.Context, output string, args []string) error {
	file := "xcaddy.json"
	switch len(args) {
	case 0:
	case 1:
		file = args[0]
	default:
		return fmt.Errorf("want at most one configuration file, not %q", args)
	}

	caddyVersion, err := goModVersion(ctx)
	if err != nil {
		return err
	}
	builder, err := loadConfig(file, caddyVersion)
	if err != nil {
		return err
	}
	if err := builder.Build(ctx, output); err != nil {
		return fmt.Errorf("building %s: %w", file, err)
	}
	return nil
}

// goModVersion returns the version of Caddy that go.mod selects, so that xbuild builds
// the version that was tested.
func goModVersion(ctx context.Context) (string, error) {
	out, err := exec.CommandContext(ctx, "go", "list", "-m", "-f", "{{.Version}}", caddyModule).Output()
	if err != nil {
		return "", fmt.Errorf("getting the version of %s (run xbuild inside of timguard's module): %w", caddyModule, err)
	}
	return strings.TrimSpace(string(out)), nil
}
