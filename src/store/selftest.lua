#!lua
-- Tests on scratch keys, which it deletes, that every command of the other scripts is permitted. Each write changes
-- something, so that it is written to the append-only file (tests/store/replay.rs).
-- KEYS  1 string  2 hash  3 sorted set  4 stream
-- ARGV  1 channel
-- Returns {command, error, command, error, …} for commands that are not permitted.
local tries = {
  { 'DEL', KEYS[1], KEYS[2], KEYS[3], KEYS[4] },
  { 'TIME' },
  { 'TYPE', KEYS[1] },
  { 'SET', KEYS[1], '1', 'PX', '60000' },
  { 'PEXPIRE', KEYS[1], '60000' },
  { 'PTTL', KEYS[1] },
  { 'GET', KEYS[1] },
  { 'HSET', KEYS[2], 'a', '1' },
  { 'HGET', KEYS[2], 'a' },
  { 'HMGET', KEYS[2], 'a', 'b' },
  { 'HGETALL', KEYS[2] },
  { 'HLEN', KEYS[2] },
  { 'HINCRBY', KEYS[2], 'a', '1' },
  { 'HDEL', KEYS[2], 'a' },
  { 'ZADD', KEYS[3], 'LT', '1', 'a', '0', 'b' },
  { 'ZSCORE', KEYS[3], 'a' },
  { 'ZCOUNT', KEYS[3], '-inf', '+inf' },
  { 'ZRANGE', KEYS[3], '0', '0' },
  { 'ZRANGEBYSCORE', KEYS[3], '-inf', '+inf' },
  { 'ZREMRANGEBYSCORE', KEYS[3], '-inf', '0' },
  { 'ZREM', KEYS[3], 'a' },
  { 'XADD', KEYS[4], 'MAXLEN', '~', '10', '*', 'a', '1' },
  { 'PUBLISH', ARGV[1], '' },
  { 'DEL', KEYS[1], KEYS[2], KEYS[3], KEYS[4] },
}
local denied = {}
for _, try in ipairs(tries) do
  local reply = redis.pcall(unpack(try))
  if type(reply) == 'table' and reply.err then
    denied[#denied + 1] = try[1]
    denied[#denied + 1] = reply.err
  end
end
return denied
