-- The audit: a record of operators' changes. See ledger/audit.py.

-- Maximum number of audit entries, how long each is kept (ms), and how many old ones a call
-- deletes.
local AUDIT_KEPT, AUDIT_KEPT_MS, AUDIT_TRIMMED = 10000, 90 * 86400000, 100

-- The score of a new audit entry: the time (ms), plus a fraction that keeps the order of the
-- entries of one millisecond.
local function audit_score()
  local latest = redis.call('ZRANGE', key('audit'), -1, -1, 'WITHSCORES')
  local ms = number(latest[2])
  return string.format('%.3f', ms >= NOW and ms < NOW + 0.998 and ms + 0.001 or NOW)
end

-- Record that `count` jobs or pages were changed, in the same call that changes them. All calls of
-- one operation share an entry, and their counts are added. `text` is the entry as JSON, without
-- `at_ms` and `count`.
local function write_audit(operation_id, text, count)
  local entry = decode(redis.call('HGET', key('audit_entries'), operation_id))
  if not entry then
    entry = cjson.decode(text)
    entry.at_ms, entry.count = NOW, 0
    redis.call('ZADD', key('audit'), audit_score(), operation_id)
    local old = redis.call('ZRANGEBYSCORE', key('audit'), '-inf', int(NOW - AUDIT_KEPT_MS),
      'LIMIT', 0, AUDIT_TRIMMED)
    if #old == 0 then
      local excess = math.min(AUDIT_TRIMMED, redis.call('ZCARD', key('audit')) - AUDIT_KEPT)
      if excess > 0 then old = redis.call('ZRANGE', key('audit'), 0, excess - 1) end
    end
    if #old > 0 then
      redis.call('ZREM', key('audit'), unpack(old))
      redis.call('HDEL', key('audit_entries'), unpack(old))
    end
  end
  entry.count = number(entry.count) + count
  redis.call('HSET', key('audit_entries'), operation_id, cjson.encode(entry))
end
