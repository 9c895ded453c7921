#!lua
-- Stores a worker's progress if it still has the lease, and renews the lease.
-- KEYS  1 tokens  2 sync record of the incident  3 leased
-- ARGV  1 member  2 token  3 retention (ms)  4 lease (ms)  5 ms by which the clock is ahead  then field, value, … ("" removes the field)
-- Returns 1 stored · 0 refused: the lease was lost to another worker
if redis.call('HGET', KEYS[1], ARGV[1]) ~= ARGV[2] then
  return 0
end
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000) + tonumber(ARGV[5])
redis.call('ZADD', KEYS[3], 'XX', now + tonumber(ARGV[4]), ARGV[1])
for i = 6, #ARGV, 2 do
  if ARGV[i + 1] == '' then
    redis.call('HDEL', KEYS[2], ARGV[i])
  else
    redis.call('HSET', KEYS[2], ARGV[i], ARGV[i + 1])
  end
end
redis.call('PEXPIRE', KEYS[2], ARGV[3])
return 1
