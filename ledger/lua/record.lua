-- Record how claimed jobs ended, and what that means for their lanes.
--
-- ARGV[1]    how long a sent job is kept (s)
-- ARGV[2]    failures in a row that pause a lane
-- ARGV[3..]  one JSON array a job:
--            [id, claim token, state, delay_ms, error_code, error_message, http_status,
--             attempt (its JSON text, or "" where none is spent),
--             [effect, reason, pause_ms, pauses in a row at the claim, token_fingerprint]]
--            state is sent, failed, retrying (due after delay_ms) or queued (back to its lane, unsent);
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
  local name = key('job:' .. id)
  local found = redis.call('HMGET', name, 'state', 'claim', 'page_id', 'attempts', 'urgent',
    'idempotency_key')
  if found[1] ~= 'sending' or found[2] ~= token then return 0 end
  local page_id = found[3] or nil
  -- A job that lost its page: when its lease ends, the sweep claims it.
  if not page_id and state ~= 'failed' then return 0 end

  if attempt ~= '' then add_attempt(id, number(found[4]) + 1, attempt) end
  if state == 'queued' and error_code == '' then
    -- Released unsent: the latest attempt is still the same.
    redis.call('HDEL', name, 'claim', 'defect')
  else
    redis.call('HDEL', name, 'claim', 'defect', 'error_code', 'error_message', 'http_status')
  end
  local fields = {}
  for field, value in pairs({
    error_code = error_code, error_message = error_message, http_status = http_status
  }) do
    if value ~= '' then
      fields[#fields + 1] = field
      fields[#fields + 1] = value
    end
  end
  if state == 'retrying' or state == 'queued' then
    redis.call('HSET', name, 'state', state, unpack(fields))
    moved('sending', state)
    if state == 'retrying' then
      redis.call('ZADD', key('due'), int(NOW + delay_ms), id)
    else
      redis.call('ZREM', key('due'), id)
      to_lane({ id }, page_id, found[5] == '1', true)
    end
  else
    local job = {
      state = 'sending', page_id = page_id, idempotency_key = found[6], error_code = error_code
    }
    end_job(id, job, state, sent_ttl_s, fields)
  end

  if page_id then
    local effect, reason, pause_ms, level, fingerprint = unpack(lane)
    affect_lane(page_id, effect, reason, pause_ms, level, fingerprint, error_code)
  end
  return 1
end

local held = {}
for i = 3, #ARGV do
  held[#held + 1] = record(unpack(cjson.decode(ARGV[i])))
end
write_counts()
return held
