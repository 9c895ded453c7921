#!lua flags=no-writes
-- Reads the whole state of one prompt in one round trip.
-- KEYS  1 active  2 routing  3 state  4 paused  5 automatic  6.. further strings to read (an incident, content)
-- ARGV  1 prompt  2 the budget's window in ms  3 ms by which the clock is ahead (0; tests set it)
-- Returns {"ok", now in ms, active, routing, rev and last commit, schema, json, paused for all, paused for this prompt,
--          held because of an outage, other prompts in the budget, further strings…}, absent values as nil (false),
--      or {"wrong_type", key} if a key has the wrong type.
local call = redis.call
local TYPES = { 'string', 'hash', 'hash', 'hash', 'zset' }

local function all()
  local time = call('TIME')
  local now = time[1] * 1000 + math.floor(time[2] / 1000) + tonumber(ARGV[3])
  local active = call('GET', KEYS[1])
  local routing = call('HGETALL', KEYS[2])
  local state = call('HMGET', KEYS[3], 'rev', 'schema', 'json', 'commits')
  -- the last commit as well: after a failover that lost commits, as many others reach the same number
  local stamp = state[1] and state[1] .. ' ' .. string.match(state[4] or '', '^%S*')
  local paused = call('HMGET', KEYS[4], '*', ARGV[1], '*outage')
  local since = now - tonumber(ARGV[2])
  local others = call('ZCOUNT', KEYS[5], '(' .. since, '+inf')
  if others > 0 then
    local own = call('ZSCORE', KEYS[5], ARGV[1])
    if own and tonumber(own) > since then
      others = others - 1
    end
  end
  local reply = { 'ok', now, active, routing, stamp, state[2], state[3], paused[1], paused[2], paused[3], others }
  for at = 6, #KEYS do
    reply[6 + at] = call('GET', KEYS[at])
  end
  return reply
end

local fine, result = pcall(all)
if fine then
  return result
end
for at = 1, #KEYS do
  local found = call('TYPE', KEYS[at]).ok
  if found ~= 'none' and found ~= (TYPES[at] or 'string') then
    return { 'wrong_type', KEYS[at] }
  end
end
return redis.error_reply(type(result) == 'table' and result.err or tostring(result))
