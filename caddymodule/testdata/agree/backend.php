<?php
// SPDX-FileCopyrightText: 2026 The timguard authors
// SPDX-License-Identifier: Apache-2.0

// Says what an endpoint in PHP reads of a request: its parameters, and its payload.
header('Content-Type: application/json');
$body = (array) json_decode(file_get_contents('php://input'), true);
$method = $_SERVER['HTTP_X_HTTP_METHOD_OVERRIDE'] ?? $_SERVER['HTTP_X_HTTP_METHOD'] ?? $_SERVER['HTTP_X_METHOD_OVERRIDE']
    ?? $body['_method'] ?? $_GET['_method'] ?? $_SERVER['REQUEST_METHOD'];
$url = $_SERVER['HTTP_X_ORIGINAL_URL'] ?? $_SERVER['HTTP_X_REWRITE_URL'] ?? $_SERVER['REQUEST_URI'];
echo json_encode([
    'parameters' => ['$_REQUEST' => (object) $_REQUEST, '$_POST' => (object) $_POST],
    'inputs' => [ // as frameworks merge them
        'body before query' => (object) ($body + $_GET),
        'query before body' => (object) ($_GET + $body),
        'cookies before all' => (object) ($_COOKIE + $_GET),
    ],
    'requests' => ['$_SERVER' => $method . ' ' . parse_url($url, PHP_URL_PATH)],
    'payloads' => ['php://input' => json_decode(file_get_contents('php://input'))],
]);
