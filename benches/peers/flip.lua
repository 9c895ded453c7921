-- A minimal flip, in six commands: whatever more a receiver does is the price of its guarantees.
-- KEYS  1 active  2 state  3 log  4 flips
-- ARGV  1 expected active ("" = none)  2 new active  3 prompt  4 reason  5 now (ms)  6 channel  7 message
-- Returns 1 flipped · 0 the world moved
if (redis.call('GET', KEYS[1]) or '') ~= ARGV[1] then
  return 0
end
redis.call('SET', KEYS[1], ARGV[2])
redis.call('HSET', KEYS[2], 'from', ARGV[1], 'to', ARGV[2], 'at', ARGV[5])
redis.call('XADD', KEYS[3], '*', 'event', 'rollback', 'from', ARGV[1], 'to', ARGV[2], 'reason', ARGV[4], 'at', ARGV[5])
redis.call('ZADD', KEYS[4], ARGV[5], ARGV[3])
redis.call('PUBLISH', ARGV[6], ARGV[7])
return 1
