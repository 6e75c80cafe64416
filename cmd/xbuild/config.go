// SPDX-FileCopyrightText: 2026 The timguard authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"

	"github.com/caddyserver/xcaddy"
	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	jsonv1 "github.com/go-json-experiment/json/v1"
)

// loadConfig reads, validates and completes a build description. Errors name the file
// and the key to change.
func loadConfig(file, caddyVersion string) (xcaddy.Builder, error) {
	data, err := os.ReadFile(file)
	if err != nil {
		return xcaddy.Builder{}, err
	}
	builder, err := decode(data)
	if err == nil {
		err = check(builder, caddyVersion)
	}
	if err == nil {
		err = resolvePaths(&builder, filepath.Dir(file))
	}
	if err != nil {
		return xcaddy.Builder{}, fmt.Errorf("%s: %w", file, err)
	}
	return builder, nil
}

// decode rejects unknown and duplicate keys. Otherwise, a misspelled key would silently
// build something else.
func decode(data []byte) (xcaddy.Builder, error) {
	var builder xcaddy.Builder
	err := json.Unmarshal(data, &builder,
		json.RejectUnknownMembers(true),
		jsonv1.FormatDurationAsNano(true), // as in encoding/json, which xcaddy uses
	)
	if err == nil {
		return builder, nil
	}

	var syntactic *jsontext.SyntacticError
	var semantic *json.SemanticError
	switch {
	case errors.Is(err, jsontext.ErrDuplicateName) && errors.As(err, &syntactic):
		return builder, fmt.Errorf("key %s occurs twice: keep one of the two", syntactic.JSONPointer)
	case errors.Is(err, json.ErrUnknownName) && errors.As(err, &semantic):
		return builder, fmt.Errorf("unknown key %s: remove it or write one of %s",
			semantic.JSONPointer, strings.Join(keys(semantic.GoType), ", "))
	case errors.As(err, &syntactic) && syntactic.JSONPointer == "" && json.Unmarshal(data[:syntactic.ByteOffset], new(any)) == nil:
		return builder, fmt.Errorf("data after the closing brace, at byte %d: remove it, the file must be one JSON object", syntactic.ByteOffset)
	case errors.As(err, &semantic) && semantic.JSONPointer == "":
		return builder, errors.New("write one JSON object")
	case errors.As(err, &semantic):
		return builder, fmt.Errorf("key %s: a %s is not valid here, write a value for the Go type %s",
			semantic.JSONPointer, semantic.JSONKind, semantic.GoType)
	}
	return builder, err
}

// keys returns the JSON keys of a struct.
func keys(t reflect.Type) []string {
	var names []string
	for _, field := range reflect.VisibleFields(t) {
		name, _, _ := strings.Cut(field.Tag.Get("json"), ",")
		if name != "" && name != "-" {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

func check(builder xcaddy.Builder, caddyVersion string) error {
	if builder.CaddyVersion != caddyVersion {
		return fmt.Errorf(`"caddy_version" is %q, but go.mod requires Caddy %s: write "caddy_version": %[2]q, or run "go get %s@VERSION" to change go.mod`,
			builder.CaddyVersion, caddyVersion, caddyModule)
	}
	for i, plugin := range builder.Plugins {
		if plugin.PackagePath == "" {
			return fmt.Errorf(`plugins[%d] has no "module_path": write the path from the first line of the plugin's go.mod`, i)
		}
		// Without a version, Go queries the module proxy, even for a local checkout.
		if plugin.Version == "" {
			return fmt.Errorf(`plugins[%d] (%s) has no "version": write a released one, or "v0.0.0" with an entry in "replacements" for a local checkout`,
				i, plugin.PackagePath)
		}
	}
	for i, replace := range builder.Replacements {
		if replace.Old == "" || replace.New == "" {
			return fmt.Errorf(`replacements[%d] needs both keys: write the module path to "old" and its folder to "new"`, i)
		}
	}
	return nil
}

// resolvePaths makes relative paths absolute, because xcaddy runs the go command in a
// temporary folder. Only xcaddy's own command line resolves them.
func resolvePaths(builder *xcaddy.Builder, base string) error {
	base, err := filepath.Abs(base)
	if err != nil {
		return err
	}
	absolute := func(path string) string {
		if filepath.IsAbs(path) {
			return path
		}
		return filepath.Join(base, path)
	}
	for i, replace := range builder.Replacements {
		// As in go.mod, a replacement is a path if it begins with a dot (or is
		// absolute), and a module otherwise.
		if strings.HasPrefix(string(replace.New), ".") {
			builder.Replacements[i].New = xcaddy.ReplacementPath(absolute(string(replace.New)))
		}
	}
	for i, embed := range builder.EmbedDirs {
		builder.EmbedDirs[i].Dir = absolute(embed.Dir)
	}
	if builder.PgoProfile != "" {
		builder.PgoProfile = absolute(builder.PgoProfile)
	}
	return nil
}
