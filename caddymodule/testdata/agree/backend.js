// SPDX-FileCopyrightText: 2026 The timguard authors
// SPDX-License-Identifier: Apache-2.0

// Says what an endpoint in Node reads of a request: its parameters, and its
// payload. Express reads forms and queries with qs.
'use strict';
const express = require('express');

const app = express();
app.use(express.json());
app.use(express.urlencoded({ extended: true }));
app.use(express.text());
app.use(handle);

function handle(request, response) {
  const read = request.body;
  const text = Buffer.isBuffer(read) ? read.toString('utf8') : read;
  const header = (name) => request.headers[name];
  const method = header('x-http-method-override') || header('x-http-method') || header('x-method-override') || request.query._method || request.method;
  response.json({
    parameters: { 'req.query': request.query },
    requests: { express: method + ' ' + (header('x-original-url') || header('x-rewrite-url') || request.url).split('?')[0] },
    trailers: request.trailers,
    payloads: { 'req.body': typeof text === 'string' ? JSON.parse(text) : text },
  });
}

const server = app.listen(0, '127.0.0.1', () => console.log(server.address().port));
process.stdin.on('end', () => process.exit()).resume();
