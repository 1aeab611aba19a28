-- Record how claimed jobs ended, and what that means for their lanes.
--
-- ARGV[1]    how long a sent job is kept (s)
-- ARGV[2]    failures in a row that pause a lane
-- ARGV[3..]  one JSON array a job:
--            [id, claim token, state, delay_ms, error_code, error_message, http_status,
--             attempt (its JSON text, or "" where none is spent),
--             [effect, reason, pause_ms, level at the claim, token_fingerprint]]
--            state is sent, failed, retrying (due after delay_ms) or queued (given back unsent);
--            effect is none, clear, pause or count
-- returns    for each job 1, or 0 where the claim no longer holds: then nothing was changed,
--            since only the holder of the current claim may record an outcome (design promise 6)

local sent_ttl_s, failures_in_a_row = ARGV[1], tonumber(ARGV[2])

local function affect_lane(page_id, effect, reason, pause_ms, level, fingerprint, error_code)
  if effect == 'none' then return end
  local pause = pause_of(page_id)
  if effect == 'clear' then
    -- Only the probe of the current pause ends it: calls that began before know nothing of it.
    if pause and pause.level == level then
      redis.call('HDEL', key('pauses'), page_id)
      if level > 0 then redis.call('ZADD', key('lanes'), 'XX', int(NOW), page_id) end
    end
    return
  end
  pause = pause or { level = 0, failures = 0, until_ms = 0 }
  if effect == 'count' then
    pause.failures = pause.failures + 1
    local probe_failed = pause.level > 0 and pause.level == level
    local too_many = pause.level == 0 and pause.failures >= failures_in_a_row
    if not (probe_failed or too_many) then
      if pause.level == 0 then write_pause(page_id, pause) end
      return
    end
  end
  pause.level = math.max(pause.level, level + 1)
  if NOW + pause_ms >= pause.until_ms then
    pause.until_ms = NOW + pause_ms
    pause.reason, pause.error_code, pause.token_fingerprint = reason, error_code, fingerprint
  end
  write_pause(page_id, pause)
  redis.call('ZADD', key('lanes'), 'XX', int(pause.until_ms), page_id)
end

local function record(id, token, state, delay_ms, error_code, error_message, http_status, attempt,
    lane)
  local job = key('job:' .. id)
  local found = redis.call('HMGET', job, 'state', 'claim', 'page_id', 'attempts', 'urgent',
    'idempotency_key')
  if found[1] ~= 'sending' or found[2] ~= token or not found[3] then return 0 end
  local page_id, urgent, idempotency_key = found[3], found[5] == '1', found[6]

  if attempt ~= '' then add_attempt(id, number(found[4]) + 1, attempt) end

  moved('sending', nil)
  if state == 'failed' then
    fail(id, page_id, error_code, error_message, http_status)
  else
    redis.call('HDEL', job, 'claim', 'error_code', 'error_message', 'http_status')
    local fields = { 'state', state }
    if error_code ~= '' then fields[3], fields[4] = 'error_code', error_code end
    if error_message ~= '' then
      fields[#fields + 1] = 'error_message'
      fields[#fields + 1] = error_message
    end
    if http_status ~= '' then
      fields[#fields + 1] = 'http_status'
      fields[#fields + 1] = http_status
    end
    if state == 'sent' then
      fields[#fields + 1] = 'finished_at'
      fields[#fields + 1] = int(NOW)
    end
    redis.call('HSET', job, unpack(fields))
    if state == 'sent' then
      redis.call('EXPIRE', job, sent_ttl_s)
      if idempotency_key then redis.call('EXPIRE', key('idem:' .. idempotency_key), sent_ttl_s) end
      redis.call('ZREM', key('due'), id)
      redis.call('LPUSH', key('sent'), id)
    elseif state == 'retrying' then
      moved(nil, state)
      redis.call('ZADD', key('due'), int(NOW + delay_ms), id)
    else
      moved(nil, state)
      redis.call('ZREM', key('due'), id)
      to_lane({ id }, page_id, urgent, true)
    end
  end

  local effect, reason, pause_ms, level, fingerprint = unpack(lane)
  affect_lane(page_id, effect, reason, pause_ms, level, fingerprint, error_code)
  return 1
end

local held = {}
for i = 3, #ARGV do
  held[#held + 1] = record(unpack(cjson.decode(ARGV[i])))
end
write_counts()
return held
