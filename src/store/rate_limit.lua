#!lua
-- Takes a slot, or returns how long until one is free. The expiry of a key is not trusted: a new master's clock may be behind,
-- and anyone may have used EXPIRE or PERSIST. A wait that is longer than intended is shortened here.
-- KEYS  1 the slot  2 (optional) something else that may be on hold
-- ARGV  1 ms until the next slot ("0": do not take one)  2 ms of the longest hold
-- Returns {ms to wait (0: taken), number of expiries that were shortened}
local every, longest = tonumber(ARGV[1]), tonumber(ARGV[2])
local shortened = 0
local function left(key)
  local ms = redis.call('PTTL', key)
  if ms == -2 then
    return 0
  end
  local meant = tonumber(redis.pcall('GET', key)) or 0 -- the value is the intended time
  local most = math.max(every, math.min(meant, longest), 1)
  if ms < 0 or ms > most then
    redis.call('PEXPIRE', key, most)
    shortened = shortened + 1
    ms = most
  end
  return math.max(ms, 1)
end
local wait = 0
for _, key in ipairs(KEYS) do
  wait = math.max(wait, left(key))
end
if wait == 0 and every > 0 then
  redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[1])
end
return { wait, shortened }
