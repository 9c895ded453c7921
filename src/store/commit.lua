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
--         expected routing: field, percent · new routing: field, percent
--         · incidents: id, record, phase before ("" = closed, "-" = new), phase after ("" = closed)
--         · log entries: event, from, to, reason, operator, at, incident · messages · wake-ups: member, score
--         · contents: "keep"/"drop", text
-- Returns {1, rev} committed · {2, rev} this very commit was done before · {-1} the world moved
--         · {-3} the budget is spent · {-4, key} a key holds the wrong type · {-5, schema} a newer record
local COMMITS_KEPT = 16
local call = redis.call -- a local is found sooner, thirty times over
local cursor = 16
local function take()
  cursor = cursor + 1
  return ARGV[cursor]
end

local TYPES = {
  'string', 'hash', 'hash', 'stream', 'hash', 'zset', 'zset', 'zset', 'zset', 'zset', 'zset', 'zset', 'hash',
}
local function typed(at)
  local found = call('TYPE', KEYS[at]).ok
  return found == 'none' or found == (TYPES[at] or 'string')
end

-- a script is not rolled back: a wrong type found half-way would leave the first writes applied. A command that reads
-- the type tells, for less than TYPE costs
local state, active, routed, pauses, spent
local fine, trouble = pcall(function()
  active = call('GET', KEYS[1])
  routed = call('HLEN', KEYS[2])
  state = call('HMGET', KEYS[3], 'rev', 'schema', 'commits')
  pauses = call('HMGET', KEYS[5], '*', ARGV[3])
  if ARGV[7] ~= '' then
    spent = call('ZCOUNT', KEYS[6], '(' .. ARGV[8], '+inf')
  end
  for at = 7, 12 do
    call('ZCARD', KEYS[at])
  end
  call('HLEN', KEYS[13])
end)
if not fine then
  for at = 1, #KEYS do
    if not typed(at) then
      return { -4, KEYS[at] }
    end
  end
  return redis.error_reply(type(trouble) == 'table' and trouble.err or tostring(trouble))
end
for at = 4, #KEYS do
  if (at == 4 or at > 13) and not typed(at) then
    return { -4, KEYS[at] }
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
local expected = tonumber(take())
if rev ~= ARGV[4] or (active and '=' .. active or '-') ~= ARGV[5] or routed ~= expected then
  return { -1 }
end
for _ = 1, expected do
  local field, percent = take(), take()
  if call('HGET', KEYS[2], field) ~= percent then
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
if ARGV[10] ~= 'keep' and expected > 0 then
  call('DEL', KEYS[2])
end
for _ = 1, tonumber(take()) do
  call('HSET', KEYS[2], take(), take())
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
local key = 13
for _ = 1, tonumber(take()) do
  local id, record, before, after = take(), take(), take(), take()
  key = key + 1
  if before == '-' or before == '' then
    call('ZADD', KEYS[10], '0', id)
  else
    call('HINCRBY', KEYS[13], before, '-1')
  end
  if after ~= '' then
    call('SET', KEYS[key], record)
    call('HINCRBY', KEYS[13], after, '1')
    call('ZADD', KEYS[11], '0', id)
    if before == '' then
      call('ZREM', KEYS[12], id)
    end
  else
    call('SET', KEYS[key], record, 'PX', ARGV[16])
    call('ZREM', KEYS[11], id)
    call('ZADD', KEYS[12], now, id)
    -- their records have expired: a few at a time, so that no commit pays for all
    for _, gone in ipairs(call('ZRANGEBYSCORE', KEYS[12], '-inf', tonumber(now) - tonumber(ARGV[16]), 'LIMIT', 0, 20)) do
      call('ZREM', KEYS[12], gone)
      call('ZREM', KEYS[10], gone)
    end
  end
end
for _ = 1, tonumber(take()) do
  call('XADD', KEYS[4], 'MAXLEN', '~', '10000', '*', 'event', take(), 'from', take(), 'to', take(), 'reason', take(),
    'operator', take(), 'at', take(), 'incident', take())
end
local messages = tonumber(take())
for _ = 1, messages do
  call('PUBLISH', ARGV[15], take())
end
if rev == '0' or messages > 0 then
  call('ZADD', KEYS[9], now, ARGV[3])
end
for _ = 1, tonumber(take()) do
  local member, score = take(), take()
  call('ZADD', KEYS[7], 'LT', score, member)
end
for _ = 1, tonumber(take()) do
  local what, text = take(), take()
  key = key + 1
  if what == 'keep' then
    call('SET', KEYS[key], text)
  else
    call('DEL', KEYS[key])
  end
end
return { 1, tonumber(rev) + 1 }
