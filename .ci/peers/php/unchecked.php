<?php
// SPDX-FileCopyrightText: 2026 The timguard authors
// SPDX-License-Identifier: Apache-2.0

// The same backend without the checks: it reads the callback and answers.

declare(strict_types=1);

$event = json_decode(file_get_contents('php://input'), true);
header('Read-As: ' . ($_POST === [] ? 'json' : 'form'));
header('Content-Type: application/json');
echo json_encode(['ActionStatus' => 'OK', 'ErrorInfo' => '', 'ErrorCode' => 0]);
