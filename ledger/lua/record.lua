-- Record the results of claimed jobs, and their effects on lanes and tokens.
--
-- ARGV[1]    how long a sent job is kept (s)
-- ARGV[2]    consecutive failures, or refusals with one code, that pause a lane
-- ARGV[3..]  one JSON array per job:
--            [id, claim token, state, delay_ms, error_code, error_message, http_status,
--             attempt (its JSON text, or "" if none is spent),
--             [effect, reason, pause_ms, consecutive pauses at the claim, token_fingerprint],
--             [] or the effect of the result on its token: see affect_token]
--            state is sent, failed, retrying (due after delay_ms) or queued (returned to its lane
--            unsent); effect is none, success, answer, count or pause: see LaneVerdict. A job of a
--            canceled campaign is canceled instead of retrying or queued
-- returns    {{page change, …} (see note_page_change), then 1 for each job, or 0 if the claim is no
--            longer valid. Then nothing was changed, because only the holder of the current claim
--            may record an outcome (design promise 6)}
--
-- needs counts, lanes, jobs, endings, pauses, tokens

local sent_ttl_s, too_many = ARGV[1], tonumber(ARGV[2])

-- The effects of the results on pages: page_id -> {effect, …}.
local effects = {}

local function begin_pause(pause, effect)
  if pause.level == 0 then pause.since_ms = NOW end
  -- The probe's outcome sets the length of the next pause. For calls that were in flight together,
  -- the longest pause applies.
  if effect.level == pause.level or pause.level == 0 then pause.until_ms = 0 end
  pause.level = math.max(pause.level, effect.level + 1)
  pause.recovered_ms, pause.recovered_level = 0, 0
  if NOW + effect.pause_ms >= pause.until_ms then
    pause.until_ms, pause.length_ms = NOW + effect.pause_ms, effect.pause_ms
    pause.reason, pause.error_code = effect.reason, effect.error_code
    pause.token_fingerprint = effect.token_fingerprint
  end
end

-- The effect of a result on its token: [fingerprint, consecutive pauses of the token at the claim,
-- number of used calls and limit, both from the reply (0 if absent)].
local function affect_token(effect, fingerprint, level, used, limit)
  local api_token = token_of(fingerprint)
  if limit > 0 then
    -- The number of calls in flight is unknown at the first reply with a limit, so the bucket
    -- starts full.
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

-- Apply an outcome to a paused page. Only the outcome of its probe counts, not those of calls that
-- began before the pause.
local function affect_paused(pause, effect)
  if effect.level ~= pause.level then return end
  if effect.name == 'count' then
    if effect.reason == 'failing' then note_failed_payload(pause, effect.payload_id) end
    begin_pause(pause, effect)
  elseif effect.name == 'answer' and IS_STUBBORN[pause.reason] then
    -- The refusal concerns the recipient, not the page. The next probe decides.
    pause.until_ms = NOW + pause.length_ms
  else
    end_pause(pause)
  end
end

-- Apply an outcome to a page that is not paused. Failures and refusals count only if no call of the
-- same batch succeeded.
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

-- Apply the outcomes of one batch to a page. Their calls were in flight together, so their order
-- does not matter.
local function affect_lane(page_id, of_page)
  local stored, has_success, has_other = pause_of(page_id), false, false
  for _, effect in ipairs(of_page) do
    has_success = has_success or effect.name == 'success'
    has_other = has_other or effect.name ~= 'success'
  end
  if not stored and not has_other then return end
  local pause = stored or new_pause()
  local level = pause.level
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

-- Maximum number of attempts kept in a job's record.
local ATTEMPTS_KEPT = 50

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
  -- The job's page_id is missing: when its lease ends, the sweep claims it.
  if not page_id and state ~= 'failed' then return 0 end

  if state == 'queued' and error_code == '' then
    -- Released unsent: the fields of the latest attempt stay.
    redis.call('HDEL', name, 'claim', 'defect')
  else
    redis.call('HDEL', name, 'claim', 'defect', 'error_code', 'error_message', 'http_status')
  end
  local fields = {}
  if attempt ~= '' then
    job.attempts = number(job.attempts) + 1
    fields = { 'attempts', int(job.attempts), 'attempt:' .. int(job.attempts), attempt }
    if job.attempts > ATTEMPTS_KEPT then
      redis.call('HDEL', name, 'attempt:' .. int(job.attempts - ATTEMPTS_KEPT))
    end
  end
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
      local last = #new_due
      new_due[last + 1], new_due[last + 2] = int(NOW + delay_ms), id
    else
      no_longer_due[#no_longer_due + 1] = id
      -- A probe goes to the end of the lane, so that the next probe is another job.
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
write_collected()
return answer
