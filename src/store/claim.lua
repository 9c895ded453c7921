#!lua
-- Claims due wake-ups under a lease. Expired leases are due again first: their worker died.
-- KEYS  1 due  2 leased  3 tokens
-- ARGV  1 suffix of the kind of work ("|act")  2 how many at most  3 lease (ms)  4 token  5 ms by which the clock is ahead
-- Returns {ms until the next wake-up is due or a lease expires, or -1; member, member, …}
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000) + tonumber(ARGV[5])
for _, member in ipairs(redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', now, 'LIMIT', 0, 100)) do
  redis.call('ZREM', KEYS[2], member)
  redis.call('HDEL', KEYS[3], member)
  redis.call('ZADD', KEYS[1], 'LT', now, member)
end
local reply = { -1 }
local suffix, most = ARGV[1], tonumber(ARGV[2])
-- page by page: wake-ups of another kind, or held by another worker, must not hide ours; bounded all the same
local found = {}
for offset = 0, 1900, 100 do
  local page = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now, 'LIMIT', offset, 100)
  for _, member in ipairs(page) do
    if #found < most and string.sub(member, -#suffix) == suffix and not redis.call('ZSCORE', KEYS[2], member) then
      found[#found + 1] = member
    end
  end
  if #page < 100 or #found >= most then
    break
  end
end
for _, member in ipairs(found) do
  redis.call('ZREM', KEYS[1], member)
  redis.call('ZADD', KEYS[2], now + tonumber(ARGV[3]), member)
  redis.call('HSET', KEYS[3], member, ARGV[4])
  reply[#reply + 1] = member
end
local next_due = redis.call('ZRANGEBYSCORE', KEYS[1], '(' .. now, '+inf', 'WITHSCORES', 'LIMIT', 0, 1)[2]
local next_lease = redis.call('ZRANGE', KEYS[2], 0, 0, 'WITHSCORES')[2]
for _, at in ipairs({ next_due or false, next_lease or false }) do
  local wait = at and math.max(0, tonumber(at) - now)
  if wait and (reply[1] < 0 or wait < reply[1]) then
    reply[1] = wait
  end
end
return reply
