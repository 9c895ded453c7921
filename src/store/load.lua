#!lua flags=no-writes
-- Reads all of one prompt in one round trip.
-- KEYS  1 active  2 routing  3 state  4 paused  5 automatic  6.. further strings wanted (an incident, a content)
-- ARGV  1 prompt  2 the budget's window in ms  3 ms by which the clock is ahead (0; tests pass time by it)
-- Returns {"ok", now in ms, active, routing, rev, schema, json, paused for all, paused for this prompt,
--          other prompts in the budget, further strings…}, absent values as nil (false),
--      or {"wrong_type", key} where a key does not hold what it should.
local function read(key, ...)
  local value = redis.pcall(...)
  if type(value) == 'table' and value.err then
    if string.find(value.err, 'WRONGTYPE', 1, true) then
      error({ wrong = key })
    end
    error({ other = value.err })
  end
  return value
end

local function all()
  local time = redis.call('TIME')
  local now = time[1] * 1000 + math.floor(time[2] / 1000) + tonumber(ARGV[3])
  local active = read(KEYS[1], 'GET', KEYS[1])
  local routing = read(KEYS[2], 'HGETALL', KEYS[2])
  local state = read(KEYS[3], 'HMGET', KEYS[3], 'rev', 'schema', 'json')
  local paused = read(KEYS[4], 'HMGET', KEYS[4], '*', ARGV[1])
  local window = tonumber(ARGV[2])
  local others = read(KEYS[5], 'ZCOUNT', KEYS[5], '(' .. (now - window), '+inf')
  if others > 0 then
    local own = read(KEYS[5], 'ZSCORE', KEYS[5], ARGV[1])
    if own and tonumber(own) > now - window then
      others = others - 1
    end
  end
  local reply = { 'ok', now, active, routing, state[1], state[2], state[3], paused[1], paused[2], others }
  for i = 6, #KEYS do
    reply[5 + i] = read(KEYS[i], 'GET', KEYS[i])
  end
  return reply
end

local ok, result = pcall(all)
if ok then
  return result
end
if type(result) == 'table' and result.wrong then
  return { 'wrong_type', result.wrong }
end
if type(result) == 'table' and result.other then
  return redis.error_reply(result.other)
end
return redis.error_reply('ERR ' .. tostring(result))
