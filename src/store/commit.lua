#!lua
-- Commits one decision about one prompt: checks first, then writes. All or nothing.
-- KEYS  1 active  2 routing  3 state  4 log  5 paused  6 automatic  7 prompts  8 activity
--       9 incidents  10 incidents:open  11 incidents:closed  12 phases
--       13 to 17 due sets: act, page, mass, archive, soak  18 events
--       then the due and the unsent set of each target, and one key for each incident, each content and each receipt
-- ARGV  1 commit id  2 now (ms)  3 prompt  4 expected rev and last commit ("0": no state yet)  5 expected active ("-" or "=" .. value)
--       6 as loaded ("0"/"1" each): paused, held because of an outage  7 automatic rollbacks allowed ("" = not automatic)
--       8 start of the budget's window  9 new active ("" = keep)  10 "keep"/"drop"/"set" routing  11 state record
--       12 its schema  13 serving  14 metric info  15 channel  16 retention of closed incidents (ms)
--       17 next rev  18 expected number of fields in routing  19 number of targets  20 number of events  21 number of events kept
--       then the expected routing: field, percent
--       then lists, each ended by "":
--         incidents: id, record, phase before ("" = closed, "-" = new), phase after ("" = closed)
--         · wake-ups: which of the due sets (1 = act …), member, score · wake-ups of targets: which (1 = the first), member, score
--         · messages · new routing: field, percent
--         · log entries: event, from, to, reason, operator, at, incident · contents: "keep"/"drop", text
--         · receipts of a request that must be handled once: value, time to live (ms) · events
-- Returns {1} committed · {2, rev} this commit was made before · {-1} the state has changed
--         · {-3} the budget is spent · {-4, key} a key holds the wrong type · {-5, schema} a newer record
local COMMITS_KEPT = 16
local call = redis.call -- a local is faster, over twenty calls

local TYPES = {
  'string', 'hash', 'hash', 'stream', 'hash', 'zset', 'zset', 'zset', 'zset', 'zset', 'zset', 'hash',
}
local PHASES, OPEN, FIRST_DUE, EVENTS = 12, 10, 13, 18
local LAST = ARGV[19] == '0' and EVENTS or EVENTS + 2 * ARGV[19]
local function typed(at)
  local found = call('TYPE', KEYS[at]).ok
  return found == 'none' or found == (TYPES[at] or at <= LAST and 'zset' or 'string')
end
local function broken(trouble)
  for at = 1, #KEYS do
    if not typed(at) then
      return { -4, KEYS[at] }
    end
  end
  return redis.error_reply(type(trouble) == 'table' and trouble.err or tostring(trouble))
end

-- a script is not rolled back: a key of the wrong type, found half-way, would leave the first writes applied. The reads
-- check the prompt's own keys
local state, active, routed, pauses, spent, latest
local fine, trouble = pcall(function()
  active = call('GET', KEYS[1])
  routed = call('HLEN', KEYS[2])
  state = call('HMGET', KEYS[3], 'rev', 'schema', 'commits')
  pauses = call('HMGET', KEYS[5], '*', ARGV[3], '*outage')
  if ARGV[7] ~= '' then
    spent = call('ZCOUNT', KEYS[6], '(' .. ARGV[8], '+inf')
  end
  if ARGV[20] ~= '0' then
    latest = call('ZRANGE', KEYS[EVENTS], -1, -1, 'WITHSCORES')[2]
  end
end)
if not fine or not typed(4) then
  return broken(trouble)
end

local rev = state[1] or '0'
local commits = state[3] or ''
-- this commit ran before, and its reply was lost
if string.find(commits, ARGV[1], 1, true) then
  return { 2, tonumber(rev) }
end
if state[2] and tonumber(state[2]) > tonumber(ARGV[12]) then
  return { -5, state[2] }
end
local stamp = state[1] and rev .. ' ' .. string.match(commits, '^%S*') or '0'
local expected = ARGV[18] == '0' and 0 or tonumber(ARGV[18]) -- parsing a number costs more than comparing texts
if stamp ~= ARGV[4] or (active and '=' .. active or '-') ~= ARGV[5] or routed ~= expected then
  return { -1 }
end
local at = 22
for _ = 1, expected do
  if call('HGET', KEYS[2], ARGV[at]) ~= ARGV[at + 1] then
    return { -1 }
  end
  at = at + 2
end
if ((pauses[1] or pauses[2]) and '1' or '0') .. (pauses[3] and '1' or '0') ~= ARGV[6] then
  return { -1 }
end
-- times stay text: formatting a number costs more than most commands
local now, since = ARGV[2], ARGV[8]
if ARGV[7] ~= '' and spent >= tonumber(ARGV[7]) then
  -- this prompt's own rollback does not count
  local own = call('ZSCORE', KEYS[6], ARGV[3])
  local counted = own and tonumber(own) > tonumber(since) and spent - 1 or spent
  if counted >= tonumber(ARGV[7]) then
    return { -3 }
  end
end

-- Writes to keys shared with other prompts come first: if one fails, they are undone. Checking each key beforehand would
-- cost more, and none fails unless someone changed the keys. Each write goes through `step`, with its member or value where
-- `inverse` expects it.
local first, key, closes, expires = at, LAST, false, false
local function shared(step)
  at, key = first, LAST
  while ARGV[at] ~= '' do
    local id, record, before, after = ARGV[at], ARGV[at + 1], ARGV[at + 2], ARGV[at + 3]
    at, key, expires = at + 4, key + 1, before == ''
    if after ~= '' then
      step('SET', KEYS[key], record, 'GET')
    else
      step('SET', KEYS[key], record, 'GET', 'PX', ARGV[16])
    end
    if before == '-' or before == '' then
      step('ZADD', KEYS[9], '0', id)
    else
      step('HINCRBY', KEYS[PHASES], before, '-1')
    end
    if after ~= '' then
      step('HINCRBY', KEYS[PHASES], after, '1')
      step('ZADD', KEYS[OPEN], '0', id)
      if before == '' then
        step('ZSCORE', KEYS[11], id)
        step('ZREM', KEYS[11], id)
      end
    else
      closes = true
      step('ZREM', KEYS[OPEN], id)
      step('ZADD', KEYS[11], now, id)
    end
  end
  at = at + 1
  for other = key + 1, #KEYS do
    if not typed(other) then
      error('a content or a receipt') -- SET would not fail
    end
  end
  if rev == '0' then
    step('ZADD', KEYS[7], '0', ARGV[3])
  end
  while ARGV[at] ~= '' do
    step('ZADD', KEYS[FIRST_DUE - 1 + ARGV[at]], 'LT', ARGV[at + 2], ARGV[at + 1])
    at = at + 3
  end
  at = at + 1
  while ARGV[at] ~= '' do
    local due = EVENTS - 1 + 2 * ARGV[at]
    step('ZADD', KEYS[due], 'LT', ARGV[at + 2], ARGV[at + 1])
    -- since when an update is pending: rescheduling the wake-up does not change it
    step('ZADD', KEYS[due + 1], 'NX', now, ARGV[at + 1])
    at = at + 3
  end
  at = at + 1
  if rev == '0' or ARGV[at] ~= '' then
    step('ZADD', KEYS[8], now, ARGV[3]) -- the last write that may fail
  end
end

local replies, done = {}, 0
fine, trouble = pcall(shared, function(...)
  local reply = call(...)
  done = done + 1
  replies[done] = reply
end)
if not fine then
  -- the same steps again, up to the failure: the inverse of each, unless it changed nothing
  local back, taken, score = {}, 0, nil
  local function inverse(command, where, ...)
    taken = taken + 1
    local reply = replies[taken]
    if taken > done then
      error('no further')
    elseif command == 'SET' then
      if not reply then
        back[#back + 1] = { 'DEL', where }
      elseif expires then
        back[#back + 1] = { 'SET', where, reply, 'PX', ARGV[16] }
      else
        back[#back + 1] = { 'SET', where, reply }
      end
    elseif command == 'HINCRBY' then
      local phase, by = ...
      back[#back + 1] = { 'HINCRBY', where, phase, -by }
    elseif command == 'ZSCORE' then
      score = reply
    elseif reply == 1 then
      local member = select(select('#', ...), ...)
      if command == 'ZREM' then
        back[#back + 1] = { 'ZADD', where, where == KEYS[OPEN] and '0' or score, member }
      else
        back[#back + 1] = { 'ZREM', where, member } -- a wake-up that was only moved stays moved: being early does no harm
      end
    end
  end
  pcall(shared, inverse)
  for step = #back, 1, -1 do
    if call(unpack(back[step])) == 0 and back[step][1] == 'HINCRBY' then
      call('HDEL', back[step][2], back[step][3])
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
call('HSET', KEYS[3], 'rev', ARGV[17], 'schema', ARGV[12], 'json', ARGV[11], 'serving', ARGV[13], 'info', ARGV[14],
  'commits', commits)
while ARGV[at] ~= '' do
  call('PUBLISH', ARGV[15], ARGV[at])
  at = at + 1
end
if ARGV[10] ~= 'keep' and expected > 0 then
  call('DEL', KEYS[2])
end
at = at + 1
while ARGV[at] ~= '' do
  call('HSET', KEYS[2], ARGV[at], ARGV[at + 1])
  at = at + 2
end
at = at + 1
while ARGV[at] ~= '' do
  call('XADD', KEYS[4], 'MAXLEN', '~', '10000', '*', 'event', ARGV[at], 'from', ARGV[at + 1], 'to', ARGV[at + 2],
    'reason', ARGV[at + 3], 'operator', ARGV[at + 4], 'at', ARGV[at + 5], 'incident', ARGV[at + 6])
  at = at + 7
end
at = at + 1
while ARGV[at] ~= '' do
  key = key + 1
  if ARGV[at] == 'keep' then
    call('SET', KEYS[key], ARGV[at + 1])
  else
    call('DEL', KEYS[key])
  end
  at = at + 2
end
at = at + 1
while ARGV[at] ~= '' do
  key = key + 1
  call('SET', KEYS[key], ARGV[at], 'PX', ARGV[at + 1])
  at = at + 2
end
at = at + 1
if ARGV[at] ~= '' then
  -- in the order of commits, also if the clock went back
  local score = math.max(tonumber(now), tonumber(latest or 0) + 1)
  while ARGV[at] ~= '' do
    call('ZADD', KEYS[EVENTS], string.format('%.0f', score), ARGV[at])
    at, score = at + 1, score + 1
  end
  local excess = call('ZCARD', KEYS[EVENTS]) - ARGV[21]
  if excess > 0 then
    local last = call('ZRANGE', KEYS[EVENTS], excess - 1, excess - 1, 'WITHSCORES')[2]
    call('ZREMRANGEBYSCORE', KEYS[EVENTS], '-inf', last)
    call('HSET', KEYS[3], 'dropped', last)
  end
  call('PEXPIRE', KEYS[EVENTS], ARGV[16])
end
if closes then
  -- their records have expired: a few at a time, so that no commit pays for all
  local gone = call('ZRANGEBYSCORE', KEYS[11], '-inf', tonumber(now) - tonumber(ARGV[16]), 'LIMIT', 0, 20)
  for _, id in ipairs(gone) do
    redis.pcall('ZREM', KEYS[9], id)
    call('ZREM', KEYS[11], id)
  end
end
return { 1 }
