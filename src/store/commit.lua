#!lua
-- Commits one decision about one prompt: checks everything first, then only writes. All or nothing.
-- KEYS  1 active  2 routing  3 state  4 log  5 paused  6 automatic  7 due  8 prompts  9 activity
--       10 incidents  11 incidents:open  12 incidents:closed  13 phases
--       then one key for each incident, then one for each content
-- ARGV  1 commit id  2 now (ms)  3 prompt  4 expected rev ("0": no state yet)  5 expected active ("-" or "=" .. value)
--       6 paused as loaded ("0"/"1")  7 automatic rollbacks allowed ("" = this is none)  8 start of the budget's window
--       9 new active ("" = keep)  10 "keep"/"drop"/"set" routing  11 state record  12 its schema  13 serving  14 metric info
--       15 channel  16 retention of closed incidents (ms)
--       then counted lists, each as its length and its items:
--         expected routing: field, percent · incidents: id, record, phase before ("" = new or closed),
--         phase after ("" = closed) · log entries: event, from, to, reason, operator, at, incident
--         · messages · wake-ups: member, score · contents: "keep"/"drop", text
--         · new routing: field, percent
-- Returns {1, rev} committed · {2, rev} this very commit was done before · {-1} the world moved
--         · {-3} the budget is spent · {-4, key} a key holds the wrong type · {-5, schema} a newer record
local COMMITS_KEPT = 16
local call = redis.call -- a local is found sooner, forty times over
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
local shares = take_list(2)

-- a script is not rolled back: a wrong type found half-way would leave the first writes applied. Reading tells of the
-- keys that are read below, at no cost
local wrong
local function read(at, name, ...)
  local value = redis.pcall(name, KEYS[at], ...)
  if type(value) == 'table' and value.err then
    wrong = wrong or { at = at, err = value.err }
  end
  return value
end
local state = read(3, 'HMGET', 'rev', 'schema', 'commits')
local active = read(1, 'GET')
local routed = read(2, 'HLEN')
local pauses = read(5, 'HMGET', '*', ARGV[3])
local spent = ARGV[7] ~= '' and read(6, 'ZCOUNT', '(' .. ARGV[8], '+inf')
if wrong then
  return string.find(wrong.err, 'WRONGTYPE', 1, true) and { -4, KEYS[wrong.at] } or redis.error_reply(wrong.err)
end
local TYPES = { [4] = 'stream', [7] = 'zset', [8] = 'zset', [9] = 'zset', [10] = 'zset', [11] = 'zset', [12] = 'zset', [13] = 'hash' }
for i = 4, #KEYS do
  if i ~= 5 and i ~= 6 then
    local found = call('TYPE', KEYS[i]).ok
    if found ~= 'none' and found ~= (TYPES[i] or 'string') then
      return { -4, KEYS[i] }
    end
  end
end

local rev = state[1] or '0'
local commits = state[3] or ''
if string.find(commits, ARGV[1], 1, true) then
  return { 2, tonumber(rev) }
end
if state[2] and tonumber(state[2]) > tonumber(ARGV[12]) then
  return { -5, state[2] }
end
if rev ~= ARGV[4] or (active and '=' .. active or '-') ~= ARGV[5] or routed ~= #routing then
  return { -1 }
end
for _, pair in ipairs(routing) do
  if call('HGET', KEYS[2], pair[1]) ~= pair[2] then
    return { -1 }
  end
end
if ((pauses[1] or pauses[2]) and '1' or '0') ~= ARGV[6] then
  return { -1 }
end
-- times stay text: to write a number out costs more than most commands
local now, since = ARGV[2], ARGV[8]
if ARGV[7] ~= '' then
  local allowed = tonumber(ARGV[7])
  if spent >= allowed then
    -- this prompt's own does not count
    local own = call('ZSCORE', KEYS[6], ARGV[3])
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
  call('SET', KEYS[1], ARGV[9])
end
if ARGV[10] ~= 'keep' and #routing > 0 then
  call('DEL', KEYS[2])
end
for _, share in ipairs(shares) do
  call('HSET', KEYS[2], share[1], share[2])
end
if ARGV[7] ~= '' then
  call('ZREMRANGEBYSCORE', KEYS[6], '-inf', since)
  call('ZADD', KEYS[6], now, ARGV[3])
end
commits = string.sub(ARGV[1] .. ' ' .. commits, 1, COMMITS_KEPT * (#ARGV[1] + 1))
call('HSET', KEYS[3], 'rev', tonumber(rev) + 1, 'schema', ARGV[12], 'json', ARGV[11], 'serving', ARGV[13],
  'info', ARGV[14], 'commits', commits)
if rev == '0' then
  call('ZADD', KEYS[8], '0', ARGV[3])
end
if rev == '0' or #messages > 0 then
  call('ZADD', KEYS[9], now, ARGV[3])
end
for _, entry in ipairs(entries) do
  call('XADD', KEYS[4], 'MAXLEN', '~', '10000', '*', 'event', entry[1], 'from', entry[2], 'to', entry[3],
    'reason', entry[4], 'operator', entry[5], 'at', entry[6], 'incident', entry[7])
end
for i, incident in ipairs(incidents) do
  local id, record, before, after = incident[1], incident[2], incident[3], incident[4]
  local key = KEYS[13 + i]
  call('ZADD', KEYS[10], '0', id)
  if before ~= '' then
    call('HINCRBY', KEYS[13], before, '-1')
  end
  if after ~= '' then
    call('SET', key, record)
    call('HINCRBY', KEYS[13], after, '1')
    call('ZADD', KEYS[11], '0', id)
    call('ZREM', KEYS[12], id)
  else
    call('SET', key, record, 'PX', ARGV[16])
    call('ZREM', KEYS[11], id)
    call('ZADD', KEYS[12], now, id)
    -- their records have expired: a few at a time, so that no commit pays for all
    for _, gone in ipairs(call('ZRANGEBYSCORE', KEYS[12], '-inf', tonumber(now) - tonumber(ARGV[16]), 'LIMIT', 0, 20)) do
      call('ZREM', KEYS[12], gone)
      call('ZREM', KEYS[10], gone)
    end
  end
end
for _, wake in ipairs(wakes) do
  call('ZADD', KEYS[7], 'LT', wake[2], wake[1])
end
for i, content in ipairs(contents) do
  local key = KEYS[13 + #incidents + i]
  if content[1] == 'keep' then
    call('SET', key, content[2])
  else
    call('DEL', key)
  end
end
for _, message in ipairs(messages) do
  call('PUBLISH', ARGV[15], message[1])
end
return { 1, tonumber(rev) + 1 }
