-- SPDX-FileCopyrightText: 2026 The timguard authors
-- SPDX-License-Identifier: Apache-2.0

-- Checks a callback of Tencent Cloud Chat before nginx passes it on.
local bit = require "bit"
local cjson = require "cjson.safe"
local sha256 = require "nginx.sha256" -- lua-resty-string, as Debian names it
local to_hex = require("nginx.string").to_hex

local APP = "1400000000"
local COMMAND = "Group.CallbackAfterRecallMsg"
local TOKEN = os.getenv("TIM_CALLBACK_TOKEN")
local WINDOW = 60 -- seconds

local function refuse(status, info)
	ngx.status = status
	ngx.header.content_type = "application/json"
	ngx.say(cjson.encode({ ActionStatus = "FAIL", ErrorInfo = info, ErrorCode = 1 }))
	return ngx.exit(status)
end

local function sign(request_time)
	local hash = sha256:new()
	hash:update(TOKEN)
	hash:update(request_time)
	return to_hex(hash:final())
end

-- same compares in a time that does not tell where the strings differ.
local function same(a, b)
	if #a ~= #b then
		return false
	end
	local difference = 0
	for i = 1, #a do
		difference = bit.bor(difference, bit.bxor(a:byte(i), b:byte(i)))
	end
	return difference == 0
end

local function is_fresh(request_time)
	return request_time:find("^%d+$") and math.abs(ngx.time() - tonumber(request_time)) <= WINDOW
end

local function is_string(value)
	return type(value) == "string" and value ~= ""
end

local function is_sequence(value)
	return type(value) == "number" and value >= 1 and value % 1 == 0
end

local function is_recall(event)
	if type(event) ~= "table" or event.CallbackCommand ~= COMMAND then
		return false
	end
	if not (is_string(event.Operator_Account) and is_string(event.Type) and is_string(event.GroupId)) then
		return false
	end
	local list = event.MsgSeqList
	if type(list) ~= "table" or #list == 0 then
		return false
	end
	for _, message in ipairs(list) do
		if type(message) ~= "table" or not is_sequence(message.MsgSeq) then
			return false
		end
	end
	return true
end

local function check()
	if ngx.req.get_method() ~= "POST" then
		return refuse(405, "want POST")
	end
	-- A parameter that is given twice comes as a table, which equals no string.
	local args, err = ngx.req.get_uri_args()
	if err then
		return refuse(400, "too many parameters")
	end
	if args.SdkAppid ~= APP then
		return refuse(403, "SdkAppid")
	end
	if args.CallbackCommand ~= COMMAND then
		return refuse(403, "CallbackCommand")
	end
	if type(args.Sign) ~= "string" or type(args.RequestTime) ~= "string" then
		return refuse(401, "unsigned")
	end
	if not is_fresh(args.RequestTime) then
		return refuse(401, "RequestTime")
	end
	if not same(args.Sign, sign(args.RequestTime)) then
		return refuse(401, "Sign")
	end
	ngx.req.read_body()
	local event = cjson.decode(ngx.req.get_body_data() or "")
	if not is_recall(event) then
		return refuse(400, "payload")
	end
end

return { check = check }
