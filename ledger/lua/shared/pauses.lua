-- The pauses of pages: automatic, and by an operator.
--
-- needs lanes

-- The JSON value of a page in the hash `pauses`. A page without failures has no entry.
--
--   level            consecutive automatic pauses; 0: not paused automatically
--   reason, error_code, token_fingerprint, since_ms, until_ms, length_ms   of the automatic pause.
--                    At until_ms one job is sent, the probe, and until_ms is set to a later time
--   failures         consecutive failures
--   failed_payloads  payloads of the latest failures, so that a probe has another payload
--   refusals, refused_code   consecutive permanent refusals with one code
--   recovered_ms, recovered_level   when a probe succeeded, and the level of its pause. The page's
--                    rate grows from then on
--   manual           {reason, by, at_ms, until_ms or none}: paused by an operator
--   written_ms       when this was written
local PAUSE_NUMBERS = {
  'level', 'since_ms', 'until_ms', 'length_ms', 'failures', 'refusals', 'recovered_ms',
  'recovered_level', 'written_ms'
}
local PAUSE_TEXTS = { 'reason', 'error_code', 'token_fingerprint', 'refused_code' }
local FAILED_PAYLOADS_KEPT = 10

-- Pauses that only a success ends, because messages to a restricted page prolong the restriction.
-- After such a pause, the page's rate grows slowly.
local IS_STUBBORN = { restricted = true, refused = true }

local function texts_and_numbers(found, texts, numbers)
  local kept = {}
  for _, name in ipairs(numbers) do kept[name] = number(found[name]) end
  for _, name in ipairs(texts) do
    if type(found[name]) == 'string' then kept[name] = found[name] end
  end
  return kept
end

local function is_empty(pause)
  return pause.level == 0 and pause.failures == 0 and pause.refusals == 0
    and pause.recovered_ms == 0 and not pause.manual
end

-- Whether any page has a pause; nil if that was not checked yet.
local has_pauses

-- Store a pause, or delete it if it is empty.
local function write_pause(page_id, pause)
  if is_empty(pause) then
    redis.call('HDEL', key('pauses'), page_id)
  else
    pause.written_ms, has_pauses = NOW, true
    redis.call('HSET', key('pauses'), page_id, cjson.encode(pause))
  end
end

-- A pause by an operator, without invalid values that another client may have written.
local function manual_pause(found)
  if type(found) ~= 'table' then return nil end
  local manual = texts_and_numbers(found, { 'reason', 'by' }, { 'at_ms', 'until_ms' })
  if manual.until_ms <= 0 then manual.until_ms = nil end
  return manual
end

local function new_pause()
  return texts_and_numbers({}, PAUSE_TEXTS, PAUSE_NUMBERS)
end

-- A page's stored pause, or nil.
local function pause_of(page_id)
  if has_pauses == nil then has_pauses = redis.call('EXISTS', key('pauses')) == 1 end
  if not has_pauses then return nil end
  local found = decode(redis.call('HGET', key('pauses'), page_id))
  if not found then return nil end
  local pause = texts_and_numbers(found, PAUSE_TEXTS, PAUSE_NUMBERS)
  pause.manual = manual_pause(found.manual)
  if type(found.failed_payloads) == 'table' then
    pause.failed_payloads = {}
    for i = 1, FAILED_PAYLOADS_KEPT do
      pause.failed_payloads[i] = type(found.failed_payloads[i]) == 'string'
        and found.failed_payloads[i] or nil
    end
  end
  if pause.written_ms > NOW then
    -- The clock was set back. The pause starts again: it must not end early or much later.
    local back_ms = pause.written_ms - NOW
    pause.until_ms = pause.until_ms - back_ms
    if pause.recovered_ms > 0 then
      pause.recovered_ms = math.max(1, pause.recovered_ms - back_ms)
    end
    if pause.manual and pause.manual.until_ms then
      pause.manual.until_ms = pause.manual.until_ms - back_ms
    end
    write_pause(page_id, pause)
  end
  return pause
end

-- After a successful probe, the page's rate (messages per second) starts at RAMP_FROM and doubles
-- with each step. ramp_rate returns it, or nil once it reaches RAMP_TO.
local RAMP_FROM, RAMP_TO, STEP_MS, STUBBORN_STEP_MS = 2, 64, 1000, 60000

local function ramp_rate(pause)
  local step_ms = IS_STUBBORN[pause.reason] and STUBBORN_STEP_MS or STEP_MS
  local rate = RAMP_FROM * 2 ^ math.floor(math.max(0, NOW - pause.recovered_ms) / step_ms)
  return rate < RAMP_TO and rate or nil
end

-- Delete the parts of a page's pause that have ended.
local function tidy_pause(page_id, pause)
  local changed = false
  if pause.manual and pause.manual.until_ms and pause.manual.until_ms <= NOW then
    pause.manual, changed = nil, true
  end
  if pause.recovered_ms > 0 and not ramp_rate(pause) then
    pause.recovered_ms, pause.recovered_level, changed = 0, 0, true
  end
  if changed then write_pause(page_id, pause) end
end

-- When a lane's pause ends (ms): 0 if it is not paused now, LATEST_MS if an operator has to resume
-- it.
local function paused_until(pause)
  if not pause then return 0 end
  local until_ms = pause.level > 0 and pause.until_ms or 0
  if pause.manual then until_ms = math.max(until_ms, pause.manual.until_ms or LATEST_MS) end
  return until_ms > NOW and until_ms or 0
end

-- Set the time of a lane with jobs to the end of its pause, or to now if it is not paused.
local function reschedule_lane(page_id, pause)
  redis.call('ZADD', key('lanes'), 'XX', int(math.max(NOW, paused_until(pause))), page_id)
end

-- Maximum number of a page's campaigns whose waiting jobs are counted for the log.
local CAMPAIGNS_COUNTED = 100

-- Number of jobs that wait in a page's lane, without those of held campaigns.
local function waiting_on(page_id)
  local lanes = { page_id }
  for _, campaign in ipairs(redis.call('ZRANGE', key('campaign_lanes:' .. page_id), 0,
      CAMPAIGNS_COUNTED - 1)) do
    lanes[#lanes + 1] = lane_name(page_id, campaign)
  end
  local jobs = redis.call('LLEN', key('urgent:' .. page_id))
  for _, lane in ipairs(lanes) do
    jobs = jobs + redis.call('LLEN', key('ready:' .. lane))
      + redis.call('LLEN', key('again:' .. lane))
  end
  return jobs
end

-- Changes of pages in this call, for the caller's log. For all pages of a token, page_id is
-- "token:<fingerprint>".
--   {page_id, "paused", "probed" or "resumed", reason, error_code or "", until_ms, waiting jobs}, …
local page_changes = {}

local function note_page_change(page_id, what, pause)
  page_changes[#page_changes + 1] = {
    page_id, what, pause.reason or '', pause.error_code or '', int(pause.until_ms),
    waiting_on(page_id)
  }
end
