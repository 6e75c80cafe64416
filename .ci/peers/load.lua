-- SPDX-FileCopyrightText: 2026 The timguard authors
-- SPDX-License-Identifier: Apache-2.0

-- For wrk: posts the callback in the file that BODY names to the URL. The URL is
-- signed once: all callbacks of a second carry the same Sign.
local file = assert(io.open(os.getenv("BODY"), "rb"))
wrk.method = "POST"
wrk.body = file:read("*a")
file:close()

-- Prints the number of requests, the microseconds, and how many requests failed.
function done(summary)
	local errors = summary.errors
	io.write(string.format("result %d %d %d\n", summary.requests, summary.duration,
		errors.connect + errors.read + errors.write + errors.timeout + errors.status))
end
