#!lua
-- Writes one coordinating incident: checks first, then only writes. All or nothing.
-- KEYS  1 record  2 members  3 the open one's id  4 incidents  5 incidents:open  6 incidents:closed  7 due mass  8 paused
--       then the due and the unsent set of each target, and one for each receipt
-- ARGV  1 expected rev ("0": a new one)  2 record  3 its schema  4 id  5 "open"/"closed"  6 now (ms)
--       7 retention once closed (ms)  8 its new rev, which no other write has
--       9 who put all prompts on hold, as JSON ("" = the prompts are not on hold)
--       then counted lists, each as its length and its items: members: field, record
--       then the wake-up of the worker that carries it out ("" = none) and the number of targets
--       then counted lists again: wake-ups of targets: which (1 = the first), member, score
--         · receipts of a request that must be handled once: value, time to live (ms)
-- Returns 1 written, now or before · -1 the record has changed · -2 another one is open
local rev = redis.call('HGET', KEYS[1], 'rev') or '0'
if rev == ARGV[8] then
  return 1 -- this write ran before, and its reply was lost
end
if rev ~= ARGV[1] then
  return -1
end
local open = redis.call('GET', KEYS[3])
if rev == '0' and open then
  return -2
end
local held = redis.call('HGET', KEYS[8], '*outage') or ''
redis.call('HSET', KEYS[1], 'rev', ARGV[8], 'schema', ARGV[3], 'json', ARGV[2])
-- each prompt's load and commit read this, so that they need not read the record
if held ~= ARGV[9] and (not open or open == ARGV[4]) then
  if ARGV[9] ~= '' then
    redis.call('HSET', KEYS[8], '*outage', ARGV[9])
  else
    redis.call('HDEL', KEYS[8], '*outage')
  end
end
local at = 10
for i = 1, tonumber(ARGV[at]) do
  redis.call('HSET', KEYS[2], ARGV[at + 2 * i - 1], ARGV[at + 2 * i])
end
at = at + 2 * tonumber(ARGV[at]) + 1
if ARGV[at] ~= '' then
  redis.call('ZADD', KEYS[7], 'LT', ARGV[6], ARGV[at])
end
local last = 8 + 2 * tonumber(ARGV[at + 1])
at = at + 2
for i = 1, tonumber(ARGV[at]) do
  local due, member = 7 + 2 * ARGV[at + 3 * i - 2], ARGV[at + 3 * i - 1]
  redis.call('ZADD', KEYS[due], 'LT', ARGV[at + 3 * i], member)
  redis.call('ZADD', KEYS[due + 1], 'NX', ARGV[6], member)
end
at = at + 3 * tonumber(ARGV[at]) + 1
for i = 1, tonumber(ARGV[at]) do
  redis.call('SET', KEYS[last + i], ARGV[at + 2 * i - 1], 'PX', ARGV[at + 2 * i])
end
redis.call('ZADD', KEYS[4], '0', ARGV[4])
if ARGV[5] == 'open' then
  redis.call('SET', KEYS[3], ARGV[4])
  redis.call('ZADD', KEYS[5], '0', ARGV[4])
else
  if open == ARGV[4] then
    redis.call('DEL', KEYS[3])
  end
  redis.call('ZREM', KEYS[5], ARGV[4])
  redis.call('ZADD', KEYS[6], ARGV[6], ARGV[4])
  redis.call('PEXPIRE', KEYS[1], ARGV[7])
  redis.call('PEXPIRE', KEYS[2], ARGV[7])
end
return 1
