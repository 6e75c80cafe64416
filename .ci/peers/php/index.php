<?php
// SPDX-FileCopyrightText: 2026 The timguard authors
// SPDX-License-Identifier: Apache-2.0

// A PHP backend that checks the callbacks of Tencent Cloud Chat which it receives.

declare(strict_types=1);

const APP = '1400000000';
const COMMAND = 'Group.CallbackAfterRecallMsg';
const WINDOW = 60; // seconds

function answer(int $status, array $answer): never
{
    http_response_code($status);
    header('Content-Type: application/json');
    echo json_encode($answer);
    exit;
}

function refuse(int $status, string $info): never
{
    answer($status, ['ActionStatus' => 'FAIL', 'ErrorInfo' => $info, 'ErrorCode' => 1]);
}

function checkQuery(): void
{
    if (($_GET['SdkAppid'] ?? null) !== APP) {
        refuse(403, 'SdkAppid');
    }
    if (($_GET['CallbackCommand'] ?? null) !== COMMAND) {
        refuse(403, 'CallbackCommand');
    }
    $sign = $_GET['Sign'] ?? null;
    $time = $_GET['RequestTime'] ?? null;
    if (!is_string($sign) || !is_string($time)) {
        refuse(401, 'unsigned');
    }
    if (!ctype_digit($time) || abs(time() - (int) $time) > WINDOW) {
        refuse(401, 'RequestTime');
    }
    if (!hash_equals(hash('sha256', getenv('TIM_CALLBACK_TOKEN') . $time), $sign)) {
        refuse(401, 'Sign');
    }
}

function isText(mixed $value): bool
{
    return is_string($value) && $value !== '';
}

function isRecall(mixed $event): bool
{
    if (!is_array($event) || ($event['CallbackCommand'] ?? null) !== COMMAND) {
        return false;
    }
    foreach (['Operator_Account', 'Type', 'GroupId'] as $name) {
        if (!isText($event[$name] ?? null)) {
            return false;
        }
    }
    $list = $event['MsgSeqList'] ?? null;
    if (!is_array($list) || $list === [] || !array_is_list($list)) {
        return false;
    }
    foreach ($list as $message) {
        $sequence = is_array($message) ? $message['MsgSeq'] ?? null : null;
        if (!is_int($sequence) || $sequence < 1) {
            return false;
        }
    }
    return true;
}

if ($_SERVER['REQUEST_METHOD'] !== 'POST') {
    refuse(405, 'want POST');
}
checkQuery();
if (!isRecall(json_decode(file_get_contents('php://input'), true))) {
    refuse(400, 'payload');
}

// Read-As says that the request came this far, and whether PHP took fields of a
// form out of its body; Carried says which headers of a hostile request came with it.
$carried = ['cookie' => 'HTTP_COOKIE', 'override' => 'HTTP_X_HTTP_METHOD_OVERRIDE', 'trailer' => 'HTTP_TRAILER'];
header('Carried: ' . implode(' ', array_keys(array_filter($carried, fn ($name) => isset($_SERVER[$name])))));
header('Read-As: ' . ($_POST === [] ? 'json' : 'form'));
answer(200, ['ActionStatus' => 'OK', 'ErrorInfo' => '', 'ErrorCode' => 0]);
