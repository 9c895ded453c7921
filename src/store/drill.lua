#!lua
-- Notes what is known of a drill, each with the time.
-- KEYS  1 drill  2 due, of the wake-up's kind  3 unsent
-- ARGV  1 "start" · "first": what is noted stays · "last": it is replaced  2 ms by which the clock is ahead
--       3 retention (ms)  4 wake-up that is due now ("" = none)  then field, text, …
-- Returns 1 noted · 0 there is no such drill
local starts = ARGV[1] == 'start'
if not starts and not redis.call('HGET', KEYS[1], 'started') then
  return 0
end
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000) + tonumber(ARGV[2])
for i = 5, #ARGV, 2 do
  if ARGV[1] ~= 'first' or not redis.call('HGET', KEYS[1], ARGV[i]) then
    redis.call('HSET', KEYS[1], ARGV[i], string.format('%.0f ', now) .. ARGV[i + 1])
  end
end
if starts then
  redis.call('PEXPIRE', KEYS[1], ARGV[3])
end
if ARGV[4] ~= '' then
  redis.call('ZADD', KEYS[2], 'LT', now, ARGV[4])
  if string.sub(ARGV[4], -6) == '|slack' then
    redis.call('ZADD', KEYS[3], 'NX', now, ARGV[4])
  end
end
return 1
