<?php
// SPDX-FileCopyrightText: 2026 The timguard authors
// SPDX-License-Identifier: Apache-2.0

// The same backend without the checks: it reads the callback and answers.

declare(strict_types=1);

$event = json_decode(file_get_contents('php://input'), true);
$carried = ['cookie' => 'HTTP_COOKIE', 'override' => 'HTTP_X_HTTP_METHOD_OVERRIDE', 'trailer' => 'HTTP_TRAILER'];
header('Carried: ' . implode(' ', array_keys(array_filter($carried, fn ($name) => isset($_SERVER[$name])))));
header('Read-As: ' . ($_POST === [] ? 'json' : 'form'));
header('Content-Type: application/json');
echo json_encode(['ActionStatus' => 'OK', 'ErrorInfo' => '', 'ErrorCode' => 0]);
