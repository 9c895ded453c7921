#!lua
-- Stores the progress of a drill, with times.
-- KEYS  1 drill  2 due pages  then the due and the unsent set of each target to wake
-- ARGV  1 "start" · "first": existing fields stay · "last": they are replaced  2 ms by which the clock is ahead
--       3 retention (ms)  4 wake-up that posts its alert once it is started  5 number of targets to wake
--       then the wake-up of each target, then field, text, …
-- Returns 1 stored · 0 there is no such drill
local starts = ARGV[1] == 'start'
if not starts and not redis.call('HGET', KEYS[1], 'started') then
  return 0
end
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000) + tonumber(ARGV[2])
for i = 6 + ARGV[5], #ARGV, 2 do
  if ARGV[1] ~= 'first' or not redis.call('HGET', KEYS[1], ARGV[i]) then
    redis.call('HSET', KEYS[1], ARGV[i], string.format('%.0f ', now) .. ARGV[i + 1])
  end
end
if starts then
  redis.call('PEXPIRE', KEYS[1], ARGV[3])
  redis.call('ZADD', KEYS[2], 'LT', now, ARGV[4])
end
for i = 1, tonumber(ARGV[5]) do
  redis.call('ZADD', KEYS[1 + 2 * i], 'LT', now, ARGV[5 + i])
  redis.call('ZADD', KEYS[2 + 2 * i], 'NX', now, ARGV[5 + i])
end
return 1
