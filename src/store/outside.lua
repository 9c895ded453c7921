#!lua flags=no-writes
-- Which prompts' `active` is not what their state says: somebody else SET it.
-- KEYS  pairs: active, state
-- Returns the indexes (from 0) of such pairs. A key of the wrong type counts: a closer look will say so.
local changed = {}
for i = 1, #KEYS, 2 do
  local active = redis.pcall('GET', KEYS[i])
  local serving = redis.pcall('HGET', KEYS[i + 1], 'serving')
  if (active or '') ~= (serving or '') then
    changed[#changed + 1] = (i - 1) / 2
  end
end
return changed
