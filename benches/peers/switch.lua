-- A minimal switch of the active version, in six commands, as the baseline for the cost of the receiver's guarantees.
-- KEYS  1 active  2 state  3 log  4 switches
-- ARGV  1 expected active ("" = none)  2 new active  3 prompt  4 reason  5 now (ms)  6 channel  7 message
-- Returns 1 switched · 0 the active version has changed
if (redis.call('GET', KEYS[1]) or '') ~= ARGV[1] then
  return 0
end
redis.call('SET', KEYS[1], ARGV[2])
redis.call('HSET', KEYS[2], 'from', ARGV[1], 'to', ARGV[2], 'at', ARGV[5])
redis.call('XADD', KEYS[3], '*', 'event', 'rollback', 'from', ARGV[1], 'to', ARGV[2], 'reason', ARGV[4], 'at', ARGV[5])
redis.call('ZADD', KEYS[4], ARGV[5], ARGV[3])
redis.call('PUBLISH', ARGV[6], ARGV[7])
return 1
