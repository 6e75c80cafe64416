// SPDX-FileCopyrightText: 2026 The timguard authors
// SPDX-License-Identifier: Apache-2.0

package option

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"regexp"
	"strings"

	"github.com/caddyserver/caddy/v2"
)

// Expand replaces the placeholders in a setting that may be a secret, when the configuration
// is loaded. Each must have a value. The error names the placeholder, but does not contain
// other text in braces, which may be a part of a password.
func Expand(text string) (string, error) {
	value, err := Replace(text)
	if err == nil {
		return value, nil
	}
	switch key := placeholderIn.FindString(err.Error()); {
	case errors.Is(err, fs.ErrPermission):
		return "", fmt.Errorf("%w; the user that runs Caddy must be able to read it", err)
	case strings.HasPrefix(key, "{file."):
		return "", err
	case strings.HasPrefix(key, "{env."):
		return "", fmt.Errorf("%w; it must have a value in the environment or files of the running server: "+
			"a reload cannot add environment variables", err)
	case key == text:
		return "", fmt.Errorf("%w; want {env.NAME} or {file./path}", err)
	}
	return "", errors.New(`contains a placeholder without a value; write \{ for a literal brace`)
}

// Replace replaces the placeholders in a text. Each must have a value. The error says why a
// file has none, which Caddy only logs.
func Replace(text string) (string, error) {
	value, err := caddy.NewReplacer().ReplaceOrErr(text, true, true)
	if err == nil {
		return value, nil
	}
	key := placeholderIn.FindString(err.Error())
	if name, ok := strings.CutPrefix(strings.TrimSuffix(key, "}"), "{file."); ok {
		return "", fmt.Errorf("%s: %w", key, unreadable(name))
	}
	return "", err
}

var placeholderIn = regexp.MustCompile(`\{[^{}]*\}`)

// unreadable returns why a file has no text.
func unreadable(name string) error {
	f, err := os.Open(name)
	if err == nil {
		defer func() { _ = f.Close() }()
		_, err = f.Read(make([]byte, 1))
	}
	if failed, ok := errors.AsType[*fs.PathError](err); ok {
		return failed.Err // the name is in the placeholder
	}
	return errors.New("the file is empty")
}
