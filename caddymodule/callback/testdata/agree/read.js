// SPDX-FileCopyrightText: 2026 The timguard authors
// SPDX-License-Identifier: Apache-2.0

// Says how Node reads payloads and queries: one request a line, one answer a line.
'use strict';
const querystring = require('node:querystring');
const readline = require('node:readline');

const hex = (text) => Buffer.from(text, 'utf8').toString('hex');

function describe(value) {
  if (value === null || typeof value === 'boolean') return { k: 'literal', t: hex(String(value)) };
  if (typeof value === 'string') return { k: 'string', t: hex(value) };
  if (typeof value === 'number') return { k: 'number', t: Number.isInteger(value) ? hex(BigInt(value).toString()) : '' };
  if (Array.isArray(value)) return { k: 'array', e: value.map(describe) };
  const members = {};
  for (const name of Object.keys(value)) members[hex(name)] = describe(value[name]);
  return { k: 'object', m: members };
}

function attempt(read) {
  try {
    return read();
  } catch (error) {
    return { k: 'refused', t: hex(String(error)) };
  }
}

function readQuery(raw) {
  const text = raw.toString('latin1'); // what http.IncomingMessage.url is made of
  const params = new URLSearchParams(text);
  const members = {};
  for (const name of new Set(params.keys())) members[hex(name)] = describe(params.getAll(name));
  const parsed = querystring.parse(text);
  const others = {};
  for (const name of Object.keys(parsed)) others[hex(name)] = describe([parsed[name]].flat());
  return { URLSearchParams: { k: 'object', m: members }, querystring: { k: 'object', m: others } };
}

readline.createInterface({ input: process.stdin }).on('line', (line) => {
  const [what, encoded] = line.split(' ');
  const raw = Buffer.from(encoded, 'base64');
  const answer = what === 'query' ? readQuery(raw) : { 'JSON.parse': attempt(() => describe(JSON.parse(raw.toString('utf8')))) };
  process.stdout.write(JSON.stringify(answer) + '\n');
});
