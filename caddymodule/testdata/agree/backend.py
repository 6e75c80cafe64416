# SPDX-FileCopyrightText: 2026 The timguard authors
# SPDX-License-Identifier: Apache-2.0
"""Says what an endpoint in Python reads of a request: its parameters, and its payload."""

import email.message
import http.server
import json
import os
import sys
import threading
import urllib.parse


class Handler(http.server.BaseHTTPRequestHandler):
    """Reads a body by the charset of its Content-Type, as web frameworks do."""

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        message = email.message.Message()
        message["Content-Type"] = self.headers.get("Content-Type", "application/octet-stream")
        text = body.decode(message.get_content_charset("utf-8"), "replace")
        parameters = {"query": self.flat(urllib.parse.urlsplit(self.path).query)}
        if message.get_content_type() == "application/x-www-form-urlencoded":
            parameters["form"] = self.flat(text)
        try:
            payload = json.loads(text)
        except ValueError as error:
            payload = {"refused": str(error)}
        environ = {name.upper().replace("-", "_"): value for name, value in self.headers.items()}  # as WSGI has it
        method = next((environ[n] for n in ("X_HTTP_METHOD_OVERRIDE", "X_HTTP_METHOD", "X_METHOD_OVERRIDE") if n in environ), self.command)
        url = environ.get("X_ORIGINAL_URL", environ.get("X_REWRITE_URL", self.path))
        answer = json.dumps({
            "parameters": parameters,
            "payloads": {"body": payload},
            "requests": {"wsgi": method + " " + urllib.parse.urlsplit(url).path},
        }).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def flat(self, raw):
        return dict(urllib.parse.parse_qsl(raw, keep_blank_values=True))

    def log_message(self, *_):
        pass


def end():
    sys.stdin.read()
    os._exit(0)


server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
print(server.server_address[1], flush=True)
threading.Thread(target=end, daemon=True).start()
server.serve_forever()
