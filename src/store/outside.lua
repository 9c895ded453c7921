#!lua flags=no-writes
-- Finds prompts whose `active` differs from their state: someone SET it.
-- KEYS  pairs: active, state
-- Returns the indexes (from 0) of such pairs. A key of the wrong type counts: a later check reports it.
local changed = {}
for i = 1, #KEYS, 2 do
  local active = redis.pcall('GET', KEYS[i])
  local serving = redis.pcall('HGET', KEYS[i + 1], 'serving')
  if (active or '') ~= (serving or '') then
    changed[#changed + 1] = (i - 1) / 2
  end
end
return changed
