#!lua flags=no-writes
-- Finds prompts that may serve nothing: `active` was deleted or holds no version, or the state cannot be read.
-- KEYS  pairs: active, state
-- ARGV  1 the newest schema that can be read
-- Returns the indexes (from 0) of such pairs. It does not parse the state, so some of them may be fine.
local broken = {}
for i = 1, #KEYS, 2 do
  local active = redis.pcall('GET', KEYS[i])
  local state = redis.pcall('HMGET', KEYS[i + 1], 'serving', 'schema')
  local is_broken
  if type(active) == 'table' or state.err then
    is_broken = true -- a key of the wrong type
  elseif state[2] and (tonumber(state[2]) or math.huge) > tonumber(ARGV[1]) then
    is_broken = true
  elseif state[2] and active ~= state[1] then
    local json = redis.call('HGET', KEYS[i + 1], 'json') or '{}'
    is_broken = string.find(json, '"lapsed":', 1, true) or not string.find(json, '^{.*}$')
  end
  if is_broken then
    broken[#broken + 1] = (i - 1) / 2
  end
end
return broken
