# SPDX-FileCopyrightText: 2026 The timguard authors
# SPDX-License-Identifier: Apache-2.0
"""Says how Python reads payloads and queries: one request a line, one answer a line."""

import base64
import json
import sys
import urllib.parse


def hexed(text):
    return text.encode("utf-8", "surrogatepass").hex()


def describe(value):
    if value is None or isinstance(value, bool):
        return {"k": "literal", "t": hexed(json.dumps(value))}
    if isinstance(value, str):
        return {"k": "string", "t": hexed(value)}
    if isinstance(value, int):
        return {"k": "number", "t": hexed(str(value))}
    if isinstance(value, float):
        return {"k": "number", "t": ""}
    if isinstance(value, list):
        return {"k": "array", "e": [describe(element) for element in value]}
    return {"k": "object", "m": {hexed(name): describe(member) for name, member in value.items()}}


def attempt(read):
    try:
        return describe(read())
    except Exception as error:
        return {"k": "refused", "t": hexed(repr(error))}


for line in sys.stdin:
    what, _, encoded = line.rstrip("\n").partition(" ")
    raw = base64.b64decode(encoded)
    if what == "query":
        text = raw.decode("latin-1")  # what WSGI's QUERY_STRING is made of
        answer = {"parse_qs": attempt(lambda: urllib.parse.parse_qs(text, keep_blank_values=True))}
    else:
        answer = {"json.loads": attempt(lambda: json.loads(raw))}
    print(json.dumps(answer), flush=True)
