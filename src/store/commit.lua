#!lua
-- Commits one decision about one prompt: checks everything first, then only writes. All or nothing.
-- KEYS  1 active  2 routing  3 state  4 log  5 paused  6 automatic  7 due  8 prompts  9 activity
--       10 incidents  11 incidents:open  12 incidents:closed  13 phases
--       then one key for each incident, then one for each content
-- ARGV  1 commit id  2 now (ms)  3 prompt  4 expected rev ("0": no state yet)  5 expected active ("-" or "=" .. value)
--       6 paused as loaded ("0"/"1")  7 automatic rollbacks allowed ("" = this is none)  8 start of the budget's window
--       9 new active ("" = keep)  10 "keep"/"drop" routing  11 state record  12 its schema  13 serving  14 metric info
--       15 channel  16 retention of closed incidents (ms)
--       then counted lists, each as its length and its items:
--         expected routing: field, percent · incidents: id, record, phase before ("" = new or closed),
--         phase after ("" = closed) · log entries: event, from, to, reason, operator, at, incident
--         · messages · wake-ups: member, score · contents: "keep"/"drop", text
-- Returns {1, rev} committed · {2, rev} this very commit was done before · {-1} the world moved
--         · {-3} the budget is spent · {-4, key} a key holds the wrong type · {-5, schema} a newer record
local COMMITS_KEPT = 16
local cursor = 16
local function take()
  cursor = cursor + 1
  return ARGV[cursor]
end
local function take_list(width)
  local list = {}
  for i = 1, tonumber(take()) do
    local item = {}
    for field = 1, width do
      item[field] = take()
    end
    list[i] = item
  end
  return list
end

local routing = take_list(2)
local incidents = take_list(4)
local entries = take_list(7)
local messages = take_list(1)
local wakes = take_list(2)
local contents = take_list(2)

-- a script is not rolled back: a wrong type found half-way would leave the first writes applied
local TYPES = { 'string', 'hash', 'hash', 'stream', 'hash', 'zset', 'zset', 'zset', 'zset', 'zset', 'zset', 'zset', 'hash' }
for i = 1, #KEYS do
  local found = redis.call('TYPE', KEYS[i]).ok
  if found ~= 'none' and found ~= (TYPES[i] or 'string') then
    return { -4, KEYS[i] }
  end
end

local state = redis.call('HMGET', KEYS[3], 'rev', 'schema', 'commits')
local rev = state[1] or '0'
local commits = state[3] or ''
if string.find(commits, ARGV[1], 1, true) then
  return { 2, tonumber(rev) }
end
if state[2] and tonumber(state[2]) > tonumber(ARGV[12]) then
  return { -5, state[2] }
end
if rev ~= ARGV[4] then
  return { -1 }
end
local active = redis.call('GET', KEYS[1])
if (active and '=' .. active or '-') ~= ARGV[5] then
  return { -1 }
end
if redis.call('HLEN', KEYS[2]) ~= #routing then
  return { -1 }
end
for _, pair in ipairs(routing) do
  if redis.call('HGET', KEYS[2], pair[1]) ~= pair[2] then
    return { -1 }
  end
end
local pauses = redis.call('HMGET', KEYS[5], '*', ARGV[3])
if ((pauses[1] or pauses[2]) and '1' or '0') ~= ARGV[6] then
  return { -1 }
end
-- times stay text: to write a number out costs more than most commands
local now, since = ARGV[2], ARGV[8]
if ARGV[7] ~= '' then
  local allowed, spent = tonumber(ARGV[7]), redis.call('ZCOUNT', KEYS[6], '(' .. since, '+inf')
  if spent >= allowed then
    -- this prompt's own does not count
    local own = redis.call('ZSCORE', KEYS[6], ARGV[3])
    if own and tonumber(own) > tonumber(since) then
      spent = spent - 1
    end
  end
  if spent >= allowed then
    return { -3 }
  end
end

-- nothing below may fail
if ARGV[9] ~= '' then
  redis.call('SET', KEYS[1], ARGV[9])
end
if ARGV[10] == 'drop' and #routing > 0 then
  redis.call('DEL', KEYS[2])
end
if ARGV[7] ~= '' then
  redis.call('ZREMRANGEBYSCORE', KEYS[6], '-inf', since)
  redis.call('ZADD', KEYS[6], now, ARGV[3])
end
commits = string.sub(ARGV[1] .. ' ' .. commits, 1, COMMITS_KEPT * (#ARGV[1] + 1))
redis.call('HSET', KEYS[3], 'rev', tonumber(rev) + 1, 'schema', ARGV[12], 'json', ARGV[11], 'serving', ARGV[13],
  'info', ARGV[14], 'commits', commits)
if rev == '0' then
  redis.call('ZADD', KEYS[8], '0', ARGV[3])
end
if rev == '0' or #messages > 0 then
  redis.call('ZADD', KEYS[9], now, ARGV[3])
end
for _, entry in ipairs(entries) do
  redis.call('XADD', KEYS[4], 'MAXLEN', '~', '10000', '*', 'event', entry[1], 'from', entry[2], 'to', entry[3],
    'reason', entry[4], 'operator', entry[5], 'at', entry[6], 'incident', entry[7])
end
for i, incident in ipairs(incidents) do
  local id, record, before, after = incident[1], incident[2], incident[3], incident[4]
  local key = KEYS[13 + i]
  redis.call('ZADD', KEYS[10], '0', id)
  if before ~= '' then
    redis.call('HINCRBY', KEYS[13], before, '-1')
  end
  if after ~= '' then
    redis.call('SET', key, record)
    redis.call('HINCRBY', KEYS[13], after, '1')
    redis.call('ZADD', KEYS[11], '0', id)
    redis.call('ZREM', KEYS[12], id)
  else
    redis.call('SET', key, record, 'PX', ARGV[16])
    redis.call('ZREM', KEYS[11], id)
    redis.call('ZADD', KEYS[12], now, id)
    -- their records have expired: a few at a time, so that no commit pays for all
    for _, gone in ipairs(redis.call('ZRANGEBYSCORE', KEYS[12], '-inf', tonumber(now) - tonumber(ARGV[16]), 'LIMIT', 0, 20)) do
      redis.call('ZREM', KEYS[12], gone)
      redis.call('ZREM', KEYS[10], gone)
    end
  end
end
for _, wake in ipairs(wakes) do
  redis.call('ZADD', KEYS[7], 'LT', wake[2], wake[1])
end
for i, content in ipairs(contents) do
  local key = KEYS[13 + #incidents + i]
  if content[1] == 'keep' then
    redis.call('SET', key, content[2])
  else
    redis.call('DEL', key)
  end
end
for _, message in ipairs(messages) do
  redis.call('PUBLISH', ARGV[15], message[1])
end
return { 1, tonumber(rev) + 1 }
