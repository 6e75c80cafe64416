<?php
// SPDX-FileCopyrightText: 2026 The timguard authors
// SPDX-License-Identifier: Apache-2.0

// Says how PHP reads payloads and queries: one request a line, one answer a line.

function describe($value)
{
    if ($value === null || is_bool($value)) {
        return ['k' => 'literal', 't' => bin2hex(json_encode($value))];
    }
    if (is_string($value)) {
        return ['k' => 'string', 't' => bin2hex($value)];
    }
    if (is_int($value)) {
        return ['k' => 'number', 't' => bin2hex((string) $value)];
    }
    if (is_float($value)) {
        return ['k' => 'number', 't' => ''];
    }
    $members = [];
    if (is_object($value)) {
        foreach (get_object_vars($value) as $name => $member) {
            $members[bin2hex((string) $name)] = describe($member);
        }
        return ['k' => 'object', 'm' => (object) $members];
    }
    foreach ($value as $name => $member) {
        $members[bin2hex((string) $name)] = describe($member);
    }
    return ['k' => 'table', 'm' => (object) $members]; // an array in PHP is either
}

function decode($raw, $associative)
{
    try {
        return describe(json_decode($raw, $associative, 512, JSON_THROW_ON_ERROR));
    } catch (JsonException $error) {
        return ['k' => 'refused', 't' => bin2hex($error->getMessage())];
    }
}

function readQuery($raw)
{
    parse_str($raw, $parameters);
    $members = [];
    foreach ($parameters as $name => $value) {
        $members[bin2hex((string) $name)] = ['k' => 'array', 'e' => [describe($value)]];
    }
    return ['k' => 'object', 'm' => (object) $members];
}

while (($line = fgets(STDIN)) !== false) {
    [$what, $encoded] = explode(' ', rtrim($line, "\n"), 2);
    $raw = base64_decode($encoded);
    $answer = $what === 'query'
        ? ['parse_str' => readQuery($raw)]
        : ['json_decode' => decode($raw, false), 'json_decode to arrays' => decode($raw, true)];
    fwrite(STDOUT, json_encode($answer) . "\n");
}
