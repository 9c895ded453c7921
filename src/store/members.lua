#!lua flags=no-writes
-- Reads a coordinating incident and its members at one moment, so that members never belong to an older record.
-- KEYS  1 record  2 members
-- Returns {rev, schema, json} of the record and {member, json, member, json, …}.
return {
  redis.call('HMGET', KEYS[1], 'rev', 'schema', 'json'),
  redis.call('HGETALL', KEYS[2]),
}
