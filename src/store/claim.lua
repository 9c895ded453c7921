#!lua
-- Claims due wake-ups of one kind under a lease. First, expired leases become due again: their worker died.
-- KEYS  1 due  2 leased  3 tokens  4 unsent  5, 6 the due and the leased set that earlier receivers used for all kinds, which
--       are those of "act" now  then, for "act" only, the due sets of the other kinds that may have members there
-- ARGV  1 suffix of the kind of work ("|act")  2 maximal number  3 lease (ms)  4 token  5 ms by which the clock is ahead
--       6 ms that a wake-up of this kind may be in the future, for kinds with a set "unsent" ("" = as the config says)
--       7 ms that the sets of this kind are kept after the last claim ("" = for ever)
--       then the suffix of each of these other kinds
-- Returns {now (ms); number of waits that were shortened; ms until the next wake-up is due or a lease expires, or -1;
--          member, member, …}
local call = redis.call
local time = call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000) + tonumber(ARGV[5])
local lease = tonumber(ARGV[3])
for _, member in ipairs(call('ZRANGEBYSCORE', KEYS[2], '-inf', now, 'LIMIT', 0, 100)) do
  -- in this order, because a script is not rolled back: a key of the wrong type loses no wake-up
  call('ZADD', KEYS[1], 'LT', now, member)
  call('HDEL', KEYS[3], member)
  call('ZREM', KEYS[2], member)
end
local shortened = 0
-- no lease is this long: the clock went back
for _, member in ipairs(call('ZRANGEBYSCORE', KEYS[2], '(' .. (now + lease), '+inf', 'LIMIT', 0, 100)) do
  call('ZADD', KEYS[2], now + lease, member)
  shortened = shortened + 1
end
if ARGV[6] ~= '' then
  for _, member in ipairs(call('ZRANGEBYSCORE', KEYS[4], '(' .. now, '+inf', 'LIMIT', 0, 100)) do
    call('ZADD', KEYS[4], now, member)
  end
  -- every unsent member is due soon or leased; check a random page, so that a backlog hides nothing for long
  local pages = math.ceil(call('ZCARD', KEYS[4]) / 100)
  local from = time[2] % math.max(pages, 1) * 100
  for _, member in ipairs(call('ZRANGE', KEYS[4], from, from + 99)) do
    local at = call('ZSCORE', KEYS[1], member)
    local lost = not at and not call('ZSCORE', KEYS[2], member) and not call('ZSCORE', KEYS[5], member)
    lost = lost and not call('ZSCORE', KEYS[6], member)
    if lost or at and tonumber(at) > now + tonumber(ARGV[6]) then
      call('ZADD', KEYS[1], now, member)
      shortened = shortened + 1
    end
  end
end
local reply = { now, shortened, -1 }
local suffix, most = ARGV[1], tonumber(ARGV[2])
local other = {}
for at = 8, #ARGV do
  other[ARGV[at]] = KEYS[at - 1]
end
-- page by page: members that another worker holds, or that earlier receivers left here, must not hide others; bounded
local found, moved = {}, {}
for offset = 0, 1900, 100 do
  local page = call('ZRANGEBYSCORE', KEYS[1], '-inf', now, 'LIMIT', offset, 100)
  for _, member in ipairs(page) do
    local free = not call('ZSCORE', KEYS[2], member) and not call('ZSCORE', KEYS[6], member)
    if free and string.sub(member, -#suffix) ~= suffix then
      moved[#moved + 1] = member
    elseif free and #found < most then
      found[#found + 1] = member
    end
  end
  if #page < 100 or #found >= most then
    break
  end
end
for _, member in ipairs(found) do
  call('HSET', KEYS[3], member, ARGV[4])
  call('ZADD', KEYS[2], now + lease, member)
  call('ZREM', KEYS[1], member)
  reply[#reply + 1] = member
end
for _, member in ipairs(moved) do
  local due = other[string.match(member, '|%a+$') or '']
  if due then
    call('ZADD', due, 'LT', call('ZSCORE', KEYS[1], member), member)
    call('ZREM', KEYS[1], member)
    reply[3] = 0 -- there may be more
  end
end
local next_due = call('ZRANGEBYSCORE', KEYS[1], '(' .. now, '+inf', 'WITHSCORES', 'LIMIT', 0, 1)[2]
local next_lease = call('ZRANGE', KEYS[2], 0, 0, 'WITHSCORES')[2]
for _, at in ipairs({ next_due or false, next_lease or false }) do
  local wait = at and math.max(0, tonumber(at) - now)
  if wait and (reply[3] < 0 or wait < reply[3]) then
    reply[3] = wait
  end
end
if ARGV[7] ~= '' then
  for at = 1, 4 do
    if at ~= 3 then
      call('PEXPIRE', KEYS[at], ARGV[7])
    end
  end
end
return reply
