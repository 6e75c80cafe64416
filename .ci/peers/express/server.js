// SPDX-FileCopyrightText: 2026 The timguard authors
// SPDX-License-Identifier: Apache-2.0

// An Express application that checks the callbacks of Tencent Cloud Chat which it
// receives: one process for each core.
import cluster from 'node:cluster';
import { createHash, timingSafeEqual } from 'node:crypto';
import { availableParallelism } from 'node:os';
import express from 'express';

const APP = '1400000000';
const COMMAND = 'Group.CallbackAfterRecallMsg';
const TOKEN = process.env.TIM_CALLBACK_TOKEN;
const WINDOW = 60; // seconds

function refuse(res, status, info) {
  res.status(status).json({ ActionStatus: 'FAIL', ErrorInfo: info, ErrorCode: 1 });
}

function isSigned(sign, requestTime) {
  const expected = createHash('sha256').update(TOKEN + requestTime).digest('hex');
  return sign.length === expected.length && timingSafeEqual(Buffer.from(sign), Buffer.from(expected));
}

function isFresh(requestTime) {
  return /^\d+$/.test(requestTime) && Math.abs(Date.now() / 1000 - Number(requestTime)) <= WINDOW;
}

// A parameter that is given twice comes as an array, which equals no string.
function checkQuery(req, res, next) {
  const { SdkAppid, CallbackCommand, Sign, RequestTime } = req.query;
  if (SdkAppid !== APP) return refuse(res, 403, 'SdkAppid');
  if (CallbackCommand !== COMMAND) return refuse(res, 403, 'CallbackCommand');
  if (typeof Sign !== 'string' || typeof RequestTime !== 'string') return refuse(res, 401, 'unsigned');
  if (!isFresh(RequestTime)) return refuse(res, 401, 'RequestTime');
  if (!isSigned(Sign, RequestTime)) return refuse(res, 401, 'Sign');
  next();
}

const isString = (value) => typeof value === 'string' && value !== '';
const isSequence = (value) => Number.isInteger(value) && value >= 1;

function isRecall(event) {
  return (
    event?.CallbackCommand === COMMAND &&
    isString(event.Operator_Account) &&
    isString(event.Type) &&
    isString(event.GroupId) &&
    Array.isArray(event.MsgSeqList) &&
    event.MsgSeqList.length > 0 &&
    event.MsgSeqList.every((message) => isSequence(message?.MsgSeq))
  );
}

function checkBody(req, res, next) {
  if (!isRecall(req.body)) return refuse(res, 400, 'payload');
  next();
}

// Read-As says that the request came this far, and as what its body was read; Carried
// says which headers of a hostile request came with it.
function handle(req, res) {
  const carried = { cookie: req.headers.cookie, override: req.headers['x-http-method-override'], trailer: req.headers.trailer };
  res.set('Carried', Object.keys(carried).filter((name) => carried[name]).join(' '));
  res.set('Read-As', 'json').json({ ActionStatus: 'OK', ErrorInfo: '', ErrorCode: 0 });
}

function serve() {
  const app = express();
  app.disable('x-powered-by');
  // Tencent does not say which Content-Type it sends.
  const json = express.json({ limit: '1mb', type: () => true });
  app.post('/callback', checkQuery, json, checkBody, handle);
  app.post('/unchecked', json, handle);
  app.use((error, req, res, next) => {
    if (res.headersSent) return next(error);
    refuse(res, error.status ?? 500, error.type ?? 'error');
  });
  app.listen(Number(process.env.PORT), '127.0.0.1');
}

if (cluster.isPrimary) {
  for (let i = 0; i < availableParallelism(); i++) cluster.fork();
} else {
  serve();
}
