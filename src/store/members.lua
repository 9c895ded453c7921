#!lua flags=no-writes
-- Reads a coordinating incident and its members at one moment, so that members never belong to an older record.
-- KEYS  1 record  2 members  3 paused
-- Returns {rev, schema, json} of the record, {member, json, member, json, …}, and who holds all prompts, as `paused` says.
return {
  redis.call('HMGET', KEYS[1], 'rev', 'schema', 'json'),
  redis.call('HGETALL', KEYS[2]),
  redis.call('HGET', KEYS[3], '*outage'),
}
