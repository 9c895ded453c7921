#!lua
-- Commits one decision about one prompt: checks first, then writes. All or nothing.
-- KEYS  1 active  2 routing  3 state  4 log  5 paused  6 automatic  7 prompts  8 activity
--       9 incidents  10 incidents:open  11 incidents:closed  12 phases  13 unsent
--       14 to 19 what is due: act, slack, page, mass, archive, soak
--       then one key for each incident, one for each content, one for each receipt
-- ARGV  1 commit id  2 now (ms)  3 prompt  4 expected rev and last commit ("0": no state yet)  5 expected active ("-" or "=" .. value)
--       6 paused as loaded ("0"/"1")  7 automatic rollbacks allowed ("" = this is none)  8 start of the budget's window
--       9 new active ("" = keep)  10 "keep"/"drop"/"set" routing  11 state record  12 its schema  13 serving  14 metric info
--       15 channel  16 retention of closed incidents (ms)
--       then counted lists, each as its length and its items:
--         expected routing: field, percent
--         · incidents: id, record, phase before ("" = closed, "-" = new), phase after ("" = closed)
--         · wake-ups: which of the due sets (1 = act …), member, score · messages · new routing: field, percent
--         · log entries: event, from, to, reason, operator, at, incident · contents: "keep"/"drop", text
--         · receipts of a request that is to be handled once: value, time to live (ms)
-- Returns {1, rev} committed · {2, rev} this very commit was done before · {-1} the world moved
--         · {-3} the budget is spent · {-4, key} a key holds the wrong type · {-5, schema} a newer record
local COMMITS_KEPT = 16
local call = redis.call -- a local is found sooner, twenty times over
local cursor = 16
local function take()
  cursor = cursor + 1
  return ARGV[cursor]
end

local TYPES = {
  'string', 'hash', 'hash', 'stream', 'hash', 'zset', 'zset', 'zset', 'zset', 'zset', 'zset', 'hash', 'zset',
  'zset', 'zset', 'zset', 'zset', 'zset', 'zset',
}
local FIRST_DUE, SLACK, LAST = 14, '2', 19
local function typed(at)
  local found = call('TYPE', KEYS[at]).ok
  return found == 'none' or found == (TYPES[at] or 'string')
end
local function broken(trouble)
  for at = 1, #KEYS do
    if not typed(at) then
      return { -4, KEYS[at] }
    end
  end
  return redis.error_reply(type(trouble) == 'table' and trouble.err or tostring(trouble))
end

-- a script is not rolled back: a key of the wrong type, found half-way, would leave the first writes applied. Of the
-- prompt's own keys the reads tell
local state, active, routed, pauses, spent
local fine, trouble = pcall(function()
  active = call('GET', KEYS[1])
  routed = call('HLEN', KEYS[2])
  state = call('HMGET', KEYS[3], 'rev', 'schema', 'commits')
  pauses = call('HMGET', KEYS[5], '*', ARGV[3])
  if ARGV[7] ~= '' then
    spent = call('ZCOUNT', KEYS[6], '(' .. ARGV[8], '+inf')
  end
end)
if not fine or not typed(4) then
  return broken(trouble)
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
local stamp = state[1] and rev .. ' ' .. string.match(commits, '^%S*') or '0'
if stamp ~= ARGV[4] or (active and '=' .. active or '-') ~= ARGV[5] or routed ~= expected then
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
if ARGV[7] ~= '' and spent >= tonumber(ARGV[7]) then
  -- this prompt's own does not count
  local own = call('ZSCORE', KEYS[6], ARGV[3])
  local counted = own and tonumber(own) > tonumber(since) and spent - 1 or spent
  if counted >= tonumber(ARGV[7]) then
    return { -3 }
  end
end

-- what is shared with other prompts comes first, each step with the way back: cheaper than to look at each key before,
-- because none of it fails where nobody meddled
local back = {}
local function add(key, member, score)
  if call('ZADD', key, score, member) == 1 then
    back[#back + 1] = { 'ZREM', key, member }
  end
end
local function remove(key, member, score)
  if call('ZREM', key, member) == 1 then
    back[#back + 1] = { 'ZADD', key, score, member }
  end
end
local function count(phase, by, other_way)
  call('HINCRBY', KEYS[12], phase, by)
  back[#back + 1] = { 'HINCRBY', KEYS[12], phase, other_way }
end
local closes, messages = false, 0
local key = LAST
fine, trouble = pcall(function()
  for _ = 1, tonumber(take()) do
    local id, record, before, after = take(), take(), take(), take()
    key = key + 1
    local was
    if after ~= '' then
      was = call('SET', KEYS[key], record, 'GET')
    else
      was = call('SET', KEYS[key], record, 'PX', ARGV[16], 'GET')
    end
    if not was then
      back[#back + 1] = { 'DEL', KEYS[key] }
    elseif before == '' then
      back[#back + 1] = { 'SET', KEYS[key], was, 'PX', ARGV[16] }
    else
      back[#back + 1] = { 'SET', KEYS[key], was }
    end
    if before == '-' or before == '' then
      add(KEYS[9], id, '0')
    else
      count(before, '-1', '1')
    end
    if after ~= '' then
      count(after, '1', '-1')
      add(KEYS[10], id, '0')
      if before == '' then
        remove(KEYS[11], id, now)
      end
    else
      closes = true
      remove(KEYS[10], id, '0')
      add(KEYS[11], id, now)
    end
  end
  for at = key + 1, #KEYS do
    if not typed(at) then
      error('a content or a receipt') -- SET would not say so
    end
  end
  if rev == '0' then
    add(KEYS[7], ARGV[3], '0')
  end
  for _ = 1, tonumber(take()) do
    local set, member, score = take(), take(), take()
    local due = KEYS[FIRST_DUE - 1 + set]
    -- one that is only moved stays so: a wake-up too early does nothing
    if call('ZADD', due, 'LT', score, member) == 1 then
      back[#back + 1] = { 'ZREM', due, member }
    end
    -- since when Slack has something to say: rescheduling the wake-up does not change it
    if set == SLACK and call('ZADD', KEYS[13], 'NX', now, member) == 1 then
      back[#back + 1] = { 'ZREM', KEYS[13], member }
    end
  end
  messages = tonumber(take())
  if rev == '0' or messages > 0 then
    call('ZADD', KEYS[8], now, ARGV[3]) -- the last that may fail
  end
end)
if not fine then
  for at = #back, 1, -1 do
    local step = back[at]
    if call(unpack(step)) == 0 and step[1] == 'HINCRBY' then
      call('HDEL', step[2], step[3])
    end
  end
  return broken(trouble)
end

-- nothing below may fail
if ARGV[9] ~= '' then
  call('SET', KEYS[1], ARGV[9])
end
if ARGV[7] ~= '' then
  if spent == 0 then
    call('ZREMRANGEBYSCORE', KEYS[6], '-inf', since)
  end
  call('ZADD', KEYS[6], now, ARGV[3])
end
commits = string.sub(ARGV[1] .. ' ' .. commits, 1, COMMITS_KEPT * (#ARGV[1] + 1))
call('HSET', KEYS[3], 'rev', tonumber(rev) + 1, 'schema', ARGV[12], 'json', ARGV[11], 'serving', ARGV[13],
  'info', ARGV[14], 'commits', commits)
for _ = 1, messages do
  call('PUBLISH', ARGV[15], take())
end
if ARGV[10] ~= 'keep' and expected > 0 then
  call('DEL', KEYS[2])
end
for _ = 1, tonumber(take()) do
  call('HSET', KEYS[2], take(), take())
end
for _ = 1, tonumber(take()) do
  call('XADD', KEYS[4], 'MAXLEN', '~', '10000', '*', 'event', take(), 'from', take(), 'to', take(), 'reason', take(),
    'operator', take(), 'at', take(), 'incident', take())
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
for _ = 1, tonumber(take()) do
  key = key + 1
  call('SET', KEYS[key], take(), 'PX', take())
end
if closes then
  -- their records have expired: a few at a time, so that no commit pays for all
  local gone = call('ZRANGEBYSCORE', KEYS[11], '-inf', tonumber(now) - tonumber(ARGV[16]), 'LIMIT', 0, 20)
  for _, id in ipairs(gone) do
    redis.pcall('ZREM', KEYS[9], id)
    call('ZREM', KEYS[11], id)
  end
end
return { 1, tonumber(rev) + 1 }
