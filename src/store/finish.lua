#!lua
-- Ends a claim.
-- KEYS  1 due  2 leased  3 tokens  4 attempts  5 dead letters (`parked`)  6 state of the prompt (or any absent key)  7 unsent of the target
-- ARGV  1 member  2 token  3 revision seen ("" = do not compare)
--       4 "done", "failed", "left"; of what "unsent" lists: "sent" (everything) or "unsent" (something is left)
--       5 when next (ms; "" = not again)  6 tries before it becomes a dead letter  7 first back-off (ms)
--       8 ms by which the clock is ahead  9 all from before this moment was sent (ms; "" = not known)
-- Returns 1 done · 2 due now, the revision changed meanwhile · 3 will be tried again, or by another · 4 a dead letter
--         · 0 refused: the lease was lost to another worker
local member = ARGV[1]
if redis.call('HGET', KEYS[3], member) ~= ARGV[2] then
  return 0
end
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000) + tonumber(ARGV[8])
-- A script is not rolled back. The lease ends last: if a key has the wrong type, the wake-up comes back with its end.
local function over(result)
  redis.call('ZREM', KEYS[2], member)
  redis.call('HDEL', KEYS[3], member)
  return result
end
if ARGV[4] == 'failed' then
  local tries = redis.call('HINCRBY', KEYS[4], member, 1)
  if tries >= tonumber(ARGV[6]) then
    redis.call('HDEL', KEYS[4], member)
    redis.call('ZADD', KEYS[5], now, member)
    redis.call('ZREM', KEYS[7], member) -- dead letters have their own gauge and alert; in "unsent" it would hide how far others lag
    return over(4)
  end
  redis.call('ZADD', KEYS[1], 'LT', now + tonumber(ARGV[7]) * 2 ^ (tries - 1), member)
  return over(3)
end
if ARGV[4] == 'left' then
  redis.call('ZADD', KEYS[1], 'LT', now + tonumber(ARGV[7]), member)
  return over(3)
end
redis.call('HDEL', KEYS[4], member)
redis.call('ZREM', KEYS[5], member) -- a new event woke it, and it succeeded
if ARGV[4] == 'sent' and not redis.call('ZSCORE', KEYS[1], member) then
  redis.call('ZREM', KEYS[7], member)
elseif (ARGV[4] == 'sent' or ARGV[4] == 'unsent') and ARGV[9] ~= '' then
  redis.call('ZADD', KEYS[7], 'GT', ARGV[9], member) -- a new event came meanwhile, or only a part was sent
elseif ARGV[4] == 'unsent' then
  redis.call('ZADD', KEYS[7], 'NX', now, member)
end
if ARGV[3] ~= '' and (redis.call('HGET', KEYS[6], 'rev') or '0') ~= ARGV[3] then
  redis.call('ZADD', KEYS[1], 'LT', now, member)
  return over(2)
end
if ARGV[5] ~= '' then
  redis.call('ZADD', KEYS[1], 'LT', ARGV[5], member)
end
return over(1)
