-- Record how claimed jobs ended, and what that means for their lanes.
--
-- ARGV[1]    how long a sent job is kept (s)
-- ARGV[2]    failures, or refusals with one code, in a row that pause a lane
-- ARGV[3..]  one JSON array a job:
--            [id, claim token, state, delay_ms, error_code, error_message, http_status,
--             attempt (its JSON text, or "" where none is spent),
--             [effect, reason, pause_ms, pauses in a row at the claim, token_fingerprint],
--             [] or what the result means for its token: see affect_token]
--            state is sent, failed, retrying (due after delay_ms) or queued (back to its lane, unsent);
--            effect is none, success, answer, count or pause: see LaneVerdict. A job of a canceled
--            campaign is canceled in place of retrying or queued
-- returns    {{page change, …} (see note_page_change in transitions.lua), and for each job 1, or 0 where
--            the claim no longer holds: then nothing was changed, since only the holder of the current
--            claim may record an outcome (design promise 6)}

local sent_ttl_s, too_many = ARGV[1], tonumber(ARGV[2])

-- What the results mean for their pages: page_id -> {effect, …}.
local effects = {}

local function begin_pause(pause, effect)
  if pause.level == 0 then pause.since_ms = NOW end
  -- The probe's own outcome decides how long the next pause is; of calls under way together, the one
  -- that was asked to wait longest.
  if effect.level == pause.level or pause.level == 0 then pause.until_ms = 0 end
  pause.level = math.max(pause.level, effect.level + 1)
  pause.recovered_ms, pause.recovered_level = 0, 0
  if NOW + effect.pause_ms >= pause.until_ms then
    pause.until_ms, pause.length_ms = NOW + effect.pause_ms, effect.pause_ms
    pause.reason, pause.error_code = effect.reason, effect.error_code
    pause.token_fingerprint = effect.token_fingerprint
  end
end

-- What results mean for their token: [fingerprint, pauses of the token in a row at the claim, calls
-- used and limit as the reply said (0 if it did not)].
local function affect_token(effect, fingerprint, level, used, limit)
  local api_token = token_of(fingerprint)
  if limit > 0 then
    -- How many calls are under way is not known when the first reply says it, so the bucket starts full.
    local is_new = api_token.limit == 0
    api_token.limit, api_token.limit_ms, api_token.changed = limit, NOW, true
    leak(api_token, limit * LEAK_PART)
    api_token.spent = math.max(api_token.spent, is_new and limit * FILLED_PART or used)
  end
  if effect.name == 'pause_token' then
    local level_before = api_token.level
    effect.level = level
    begin_pause(api_token, effect)
    api_token.at_ms, api_token.probe, api_token.changed = NOW, 0, true
    if api_token.level > level_before then
      note_page_change('token:' .. fingerprint, 'paused', api_token)
    end
  elseif api_token.level > 0 and api_token.level == level
      and (effect.name == 'success' or effect.name == 'answer' or effect.reason == 'refused') then
    api_token.level, api_token.probe, api_token.changed = 0, 0, true
    note_page_change('token:' .. fingerprint, 'resumed', api_token)
  end
end

local function end_pause(pause)
  pause.recovered_ms, pause.recovered_level = NOW, pause.level
  pause.level, pause.failures, pause.refusals = 0, 0, 0
end

local function note_failed_payload(pause, payload_id)
  if not payload_id then return end
  local kept = { payload_id }
  for _, other in ipairs(pause.failed_payloads or {}) do
    if other ~= payload_id and #kept < FAILED_PAYLOADS_KEPT then kept[#kept + 1] = other end
  end
  pause.failed_payloads = kept
end

-- An outcome of a paused page. Only that of its probe counts: calls that began before the pause know
-- nothing of it.
local function affect_paused(pause, effect)
  if effect.level ~= pause.level then return end
  if effect.name == 'count' then
    if effect.reason == 'failing' then note_failed_payload(pause, effect.payload_id) end
    begin_pause(pause, effect)
  elseif effect.name == 'answer' and IS_STUBBORN[pause.reason] then
    -- The probe was refused for what concerns its person: the next one decides.
    pause.until_ms = NOW + pause.length_ms
  else
    end_pause(pause)
  end
end

-- An outcome of a page that is not paused. Failures and refusals count only while nothing succeeds.
local function affect_open(pause, effect, has_success)
  if effect.name == 'success' then
    pause.failures, pause.refusals, pause.failed_payloads = 0, 0, nil
  elseif effect.name == 'answer' then
    pause.failures = 0
  elseif effect.reason == 'failing' then
    note_failed_payload(pause, effect.payload_id)
    if not has_success then pause.failures = pause.failures + 1 end
    if pause.failures >= too_many then begin_pause(pause, effect) end
  else
    pause.failures = 0
    if pause.refused_code ~= effect.error_code then pause.refusals = 0 end
    pause.refused_code = effect.error_code
    if not has_success then pause.refusals = pause.refusals + 1 end
    if pause.refusals >= too_many then begin_pause(pause, effect) end
  end
end

-- Calls whose outcomes are recorded together were under way together: their order means nothing.
local function affect_lane(page_id, of_page)
  local stored = pause_of(page_id)
  local pause = stored or new_pause()
  local level, has_success = pause.level, false
  for _, effect in ipairs(of_page) do has_success = has_success or effect.name == 'success' end
  for _, effect in ipairs(of_page) do
    if effect.name == 'pause' then
      begin_pause(pause, effect)
    elseif pause.level > 0 then
      affect_paused(pause, effect)
    else
      affect_open(pause, effect, has_success)
    end
  end
  if has_success and pause.level == 0 then pause.failed_payloads = nil end
  if not stored and is_empty(pause) then return end
  write_pause(page_id, pause)
  if level > 0 or pause.level > 0 then reschedule_lane(page_id, pause) end
  if pause.level > level then
    note_page_change(page_id, 'paused', pause)
  elseif level > 0 and pause.level == 0 then
    note_page_change(page_id, 'resumed', pause)
  end
end

local FIELDS = {
  'state', 'claim', 'page_id', 'campaign', 'urgent', 'attempts', 'attempts_before_replay',
  'idempotency_key', 'payload_id'
}

local function record(id, token, state, delay_ms, error_code, error_message, http_status, attempt,
    lane, of_token)
  local name = key('job:' .. id)
  local job = read_fields(id, FIELDS)
  if job.state ~= 'sending' or job.claim ~= token then return 0 end
  local page_id = job.page_id
  -- A job that lost its page: when its lease ends, the sweep claims it.
  if not page_id and state ~= 'failed' then return 0 end

  if attempt ~= '' then
    job.attempts = number(job.attempts) + 1
    add_attempt(id, job.attempts, attempt)
  end
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
  if (state == 'retrying' or state == 'queued') and is_canceled(job.campaign) then
    end_job(id, job, 'cancelled', CANCELED_TTL_S, fields)
  elseif state == 'retrying' or state == 'queued' then
    redis.call('HSET', name, 'state', state, unpack(fields))
    moved(job, 'sending', state)
    if state == 'retrying' then
      redis.call('ZADD', key('due'), int(NOW + delay_ms), id)
    else
      redis.call('ZREM', key('due'), id)
      -- A probe goes behind the others: the next one is another job.
      to_lane({ id }, job, not (lane[1] == 'pause' and lane[4] > 0))
    end
  else
    job.error_code = error_code
    end_job(id, job, state, sent_ttl_s, fields)
  end

  local effect, reason, pause_ms, level, fingerprint = unpack(lane)
  local affects = {
    name = effect, reason = reason, pause_ms = pause_ms, level = level,
    token_fingerprint = fingerprint, error_code = error_code, payload_id = job.payload_id
  }
  if of_token[1] then affect_token(affects, unpack(of_token)) end
  if page_id and effect ~= 'none' and effect ~= 'pause_token' then
    local of_page = effects[page_id] or {}
    effects[page_id] = of_page
    of_page[#of_page + 1] = affects
  end
  return 1
end

local answer = { page_changes }
for i = 3, #ARGV do
  answer[#answer + 1] = record(unpack(cjson.decode(ARGV[i])))
end
for page_id, of_page in pairs(effects) do affect_lane(page_id, of_page) end
write_tokens()
write_counts()
return answer
