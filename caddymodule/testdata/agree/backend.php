<?php
// SPDX-FileCopyrightText: 2026 The timguard authors
// SPDX-License-Identifier: Apache-2.0

// Says what an endpoint in PHP reads of a request: its parameters, and its payload.
header('Content-Type: application/json');
echo json_encode([
    'parameters' => ['$_REQUEST' => (object) $_REQUEST, '$_POST' => (object) $_POST],
    'payloads' => ['php://input' => json_decode(file_get_contents('php://input'))],
]);
