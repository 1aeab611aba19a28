-- What every script shares: time, keys, and the ways a job moves from state to state. It is put in
-- front of each script when that is loaded. By itself it only checks the version of the keys.
--
-- Other clients may write anything into these keys. A key of the wrong type never stops a script:
-- redis.call, as defined below, renames the key to broken:<name> and runs the command again as if
-- the key had not existed. What was lost with it is rebuilt from the jobs: see rebuild.lua.
--
-- KEYS[1]  the prefix "{namespace}:" of every key. All keys have this one hash tag, so that one
--          script may touch them, also in a cluster; which job and lane keys a script touches is
--          known only once it has read the lanes, so the prefix stands for them.
--
--   job:<id>             hash    the job; see ledger/job_hash.py for its fields
--   ready:<page_id>      list    ids that wait in the page's lane, oldest first
--   urgent:<page_id>     list    the same for urgent jobs; served before ready
--   lanes                zset    page_id -> earliest time (ms) its lane may send; lanes with jobs only
--   pauses               hash    page_id -> JSON: lanes that failed recently, or are paused; see pause_of
--   paused_all           string  JSON {reason, by, at_ms, until_ms or none}: no page sends
--   rates                hash    page_id -> JSON {rate (messages a second; 0 is no limit), burst, by,
--                                at_ms}: pages with a rate of their own
--   spent:<page_id>      string  "<messages> <at_ms>": how full the bucket of a page's rate is
--   due                  zset    id -> when to look again (ms): send_at, a retry, or a lease's end
--   failed               zset    id -> when it failed (ms); also failed:<error_code>, failed_on:<page_id>
--   failed_codes         zset    error_code -> when it last failed; also failed_pages, by page_id
--   sent, cancelled      list    ids, latest first
--   canceled_in_lane     set     ids canceled in their lane, until their turn there comes
--   counts               hash    state -> jobs now in it (scheduled, queued, sending, retrying)
--   idem:<key>           string  idempotency key -> job id
--   last_claim:<holder>  string  JSON [token, id, …]: what a process claimed last
--   revoked_claims:<holder>  string  claims of this process up to this number are revoked
--   audit                zset    operation id -> when (ms) it began: what operators did, see ledger/audit.py
--   audit_entries        hash    operation id -> JSON {at_ms, action, by, via, count, …}
--   clock                string  time (ms) of the latest sweep; one to come shows that the clock was set back
--   bell                 string  doorbells are out ("<time of the latest> <how many unanswered>"), or
--                                a pump is looking ("attentive")
--   wake                 list    one entry if an attentive pump should look at once
--   version              string  version of this layout of keys: VERSION, from scripts.py
--   repairs              list    what was repaired, as text for the log; the sweep takes it out
--   rebuild              hash    the rebuild in progress: cursor, started_ms, found, and
--                                <key's name> -> when (ms) the content of that key was lost
--   broken:<name>        any     what was found under <name> and was of the wrong type

local PREFIX = KEYS[1]

-- The end of the year 9999 (ms): a later time was written by another client.
local LATEST_MS = 253402300799999

-- The highest rate (messages a second) and burst of a page.
local MAX_RATE, MAX_BURST = 100000, 100000

-- A doorbell not answered within this time (ms) is taken for lost. Once several are unanswered,
-- it is more likely that all pumps are busy: doorbells must not heap up while they are.
local BELL_LOST_AFTER_MS, ONE_OF_MANY_LOST_AFTER_MS, MANY_BELLS = 2000, 4500, 4

local clock = redis.call('TIME')
-- The server's clock is the only one that leases, retries and rates go by: hosts' clocks differ.
local NOW = clock[1] * 1000 + math.floor(clock[2] / 1000)

local function key(name)
  return PREFIX .. name
end

local function int(ms)
  return string.format('%.0f', ms)
end

-- A number out of a hash or of JSON; 0 where other hands left something else, or none that is
-- finite, which could not be written again.
local function number(value)
  local n = tonumber(value)
  if n and n >= -2 ^ 53 and n <= 2 ^ 53 then return n end
  return 0
end

-- A table out of JSON; nil where other clients left something else.
local function decode(text)
  if not text then return nil end
  local fine, found = pcall(cjson.decode, text)
  if fine and type(found) == 'table' then return found end
end

-- How long a key of the wrong type is kept under broken:<name>.
local BROKEN_KEPT_SECONDS = 7 * 86400
-- Repairs that are kept until a worker logs them.
local REPAIRS_KEPT = 100
-- Keys whose content is rebuilt from the jobs, by their name up to the first colon.
local REBUILT = {
  lanes = true, ready = true, urgent = true, due = true, counts = true, sent = true,
  cancelled = true, failed = true, failed_on = true, failed_codes = true, failed_pages = true,
  idem = true, rebuild = true,
}

local server, redis = redis, { error_reply = redis.error_reply }

local function note_repair(text)
  redis.call('RPUSH', key('repairs'), text)
  redis.call('LTRIM', key('repairs'), -REPAIRS_KEPT, -1)
end

local rebuild_started = false

-- Begin to look through all jobs (again), for what stood under `name` until now.
local function start_rebuild(name)
  rebuild_started = true
  redis.call('HSET', key('rebuild'), 'cursor', '0')
  if name then redis.call('HSET', key('rebuild'), name, int(NOW)) end
end

local function set_aside(name)
  local found = server.call('TYPE', key(name)).ok
  server.call('RENAME', key(name), key('broken:' .. name))
  server.call('EXPIRE', key('broken:' .. name), BROKEN_KEPT_SECONDS)
  note_repair(name .. ' was a ' .. found .. '; it is kept as broken:' .. name)
  if REBUILT[string.match(name, '^[^:]*')] then start_rebuild(name) end
end

-- Run a command again whose error another client has caused.
local function call_again(problem, ...)
  local _, full_name, field = ...
  local name = string.sub(full_name, #PREFIX + 1)
  if string.find(problem, 'WRONGTYPE', 1, true) then
    set_aside(name)
  elseif string.find(problem, 'not an integer', 1, true)
      or string.find(problem, 'would overflow', 1, true) then
    -- Of HINCRBY, the only command that reads a number.
    note_repair(name .. ': ' .. field .. ' was not a whole number in range')
    server.call('HDEL', full_name, field)
  end
  -- Where nothing was repaired, this fails again, with the server's own error.
  return server.call(...)
end

local try, type = server.pcall, type

-- Every command of every script goes through here, so that none fails after earlier writes.
function redis.call(...)
  local answer = try(...)
  if type(answer) == 'table' and answer.err then return call_again(tostring(answer.err), ...) end
  return answer
end

-- A later version of this program may mean something else by the same keys; an earlier one must not
-- continue beside this one. What is not a version was written by another client.
local version = redis.call('GET', key('version'))
if version ~= int(VERSION) then
  if version and #version < 10 and string.match(version, '^%d+$') and tonumber(version) > VERSION then
    return redis.error_reply('ERR ' .. string.format(OTHER_VERSION, version))
  end
  -- A client that may only read, or a full Redis, leaves this to the next.
  server.pcall('SET', key('version'), int(VERSION))
end

-- The states whose jobs are counted.
local COUNTED = { scheduled = true, queued = true, sending = true, retrying = true }

-- Changes to `counts`, gathered, so that a batch costs one command a state.
local count_changes = {}

local function count(state, by)
  count_changes[state] = (count_changes[state] or 0) + by
end

local function moved(from, to)
  if from then count(from, -1) end
  if to then count(to, 1) end
end

local function write_counts()
  for state, by in pairs(count_changes) do
    -- Below 0 comes only what other hands put there: it was never counted in.
    if by ~= 0 and redis.call('HINCRBY', key('counts'), state, by) < 0 then
      redis.call('HSET', key('counts'), state, '0')
    end
  end
end

local function open_lane(page_id)
  redis.call('ZADD', key('lanes'), 'NX', int(NOW), page_id)
end

-- Ids pushed by one command; many thousand are more than unpack() returns.
local IDS_PER_PUSH = 1000

-- Put jobs of one page into its lane: at the end in order, or (released unsent) at the front.
local function to_lane(ids, page_id, urgent, at_front)
  local lane = key((urgent and 'urgent:' or 'ready:') .. page_id)
  local push = at_front and 'LPUSH' or 'RPUSH'
  for first = 1, #ids, IDS_PER_PUSH do
    local last = math.min(first + IDS_PER_PUSH - 1, #ids)
    redis.call(push, lane, unpack(ids, first, last))
  end
  open_lane(page_id)
end

-- Attempts kept in a job's record.
local ATTEMPTS_KEPT = 50

-- Count an attempt, and keep what is told of it (JSON text).
local function add_attempt(id, spent, text)
  local job = key('job:' .. id)
  redis.call('HSET', job, 'attempts', int(spent), 'attempt:' .. int(spent), text)
  if spent > ATTEMPTS_KEPT then
    redis.call('HDEL', job, 'attempt:' .. int(spent - ATTEMPTS_KEPT))
  end
end

-- Returns 1 if it was not in the index of all failed jobs yet, else 0.
local function index_failed(id, page_id, error_code, failed_ms)
  local added = redis.call('ZADD', key('failed'), int(failed_ms), id)
  redis.call('ZADD', key('failed:' .. error_code), int(failed_ms), id)
  redis.call('ZADD', key('failed_codes'), 'GT', int(failed_ms), error_code)
  if page_id then
    redis.call('ZADD', key('failed_on:' .. page_id), int(failed_ms), id)
    redis.call('ZADD', key('failed_pages'), 'GT', int(failed_ms), page_id)
  end
  return added
end

-- End a job, of which the caller has read `state`, `page_id`, `idempotency_key` and `error_code`. A
-- sent or canceled one is kept for `ttl_s` seconds; a failed one until the sweep forgets it.
-- `fields` are further fields and values to set.
local function end_job(id, job, state, ttl_s, fields)
  redis.call('HSET', key('job:' .. id), 'state', state, 'finished_at', int(NOW), unpack(fields))
  redis.call('ZREM', key('due'), id)
  moved(job.state, nil)
  if state == 'failed' then
    index_failed(id, job.page_id, job.error_code, NOW)
    return
  end
  redis.call('EXPIRE', key('job:' .. id), ttl_s)
  if job.idempotency_key then
    redis.call('EXPIRE', key('idem:' .. job.idempotency_key), ttl_s)
  end
  redis.call('LPUSH', key(state), id)
end

-- The states in which a job can be canceled.
local CANCELABLE = { scheduled = true, queued = true, retrying = true }

-- Cancel a job in one of these states. Of a queued one, the caller takes the id out of its lane, or notes
-- it in `canceled_in_lane`.
local function cancel_job(id, job, ttl_s)
  end_job(id, job, 'cancelled', ttl_s, {})
end

local function unindex_failed(id, job)
  redis.call('ZREM', key('failed'), id)
  if job.page_id then
    local same_page = key('failed_on:' .. job.page_id)
    redis.call('ZREM', same_page, id)
    if redis.call('EXISTS', same_page) == 0 then
      redis.call('ZREM', key('failed_pages'), job.page_id)
    end
  end
  if not job.error_code then return end
  local same_code = key('failed:' .. job.error_code)
  redis.call('ZREM', same_code, id)
  if redis.call('EXISTS', same_code) == 0 then
    redis.call('ZREM', key('failed_codes'), job.error_code)
  end
end

-- The hash behind an id as a table, or nil if there is none.
local function read_job(id)
  local flat = redis.call('HGETALL', key('job:' .. id))
  if #flat == 0 then return nil end
  local job = {}
  for i = 1, #flat, 2 do job[flat[i]] = flat[i + 1] end
  return job
end

-- Jobs that this call claimed, as claim.lua and sweep.lua return them:
--   {id, pauses in a row of its lane, lease_ended (0 or 1), defect or "", whether its page has a
--    rate (0 or 1), {field, value, …}}, …
local claimed = {}

local INCOMPLETE = 'no complete job was stored under this id'

-- Claim a job: only who shows `token` may record how it ends, until the lease ends.
--
-- `job` is what read_job returned for `id`. `defect`, if any, is why the job cannot be sent: the
-- holder records that. It is kept in the job, in case the holder dies first; and what the job lacks
-- is added, so that it can be recorded. `page_id` is the page of the lane it was in, if any;
-- `is_paced` is whether that page has a rate.
local function claim_job(id, job, token, lease_ms, consecutive_pauses, defect, page_id,
    is_paced)
  local name = key('job:' .. id)
  if defect then
    redis.call('HSETNX', name, 'attempts', '0')
    redis.call('HSETNX', name, 'enqueued_at', int(NOW))
    if page_id then redis.call('HSETNX', name, 'page_id', page_id) end
    redis.call('HSET', name, 'defect', defect)
  end
  moved(job and COUNTED[job.state] and job.state, 'sending')
  redis.call('HSET', name, 'state', 'sending', 'claim', token)
  redis.call('ZADD', key('due'), int(NOW + lease_ms), id)
  local lease_ended = not defect and job.state == 'sending'
  local flat = {}
  for field, value in pairs(defect and read_job(id) or job) do
    flat[#flat + 1] = field
    flat[#flat + 1] = value
  end
  claimed[#claimed + 1] = {
    id, consecutive_pauses, lease_ended and 1 or 0, defect or '', is_paced and 1 or 0, flat
  }
end

-- The audit keeps so many entries, for so long (ms); a call takes out so many old ones at most.
local AUDIT_KEPT, AUDIT_KEPT_MS, AUDIT_TRIMMED = 10000, 90 * 86400000, 100

-- Record that somebody changed `count` jobs or pages, in the same call that changes them. All calls of
-- one operation add up in one entry. `text` is the entry as JSON, without `at_ms` and `count`.
local function write_audit(operation_id, text, count)
  local entry = decode(redis.call('HGET', key('audit_entries'), operation_id))
  if not entry then
    entry = cjson.decode(text)
    entry.at_ms, entry.count = NOW, 0
    redis.call('ZADD', key('audit'), int(NOW), operation_id)
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

-- When the latest doorbell was rung (ms), and how many are unanswered.
local function bells_out(bell)
  local rung_ms, unanswered = string.match(bell or '', '^(%d+) (%d+)$')
  return number(rung_ms), number(unanswered)
end

-- Whether a doorbell should be rung for work that is ready now: true at most once, until that
-- doorbell is answered or must be taken for lost. An attentive pump needs none and is woken here.
local function should_ring()
  if redis.call('GET', key('paused_all')) then return false end
  local bell = redis.call('GET', key('bell'))
  -- Ours has a lifetime: one without was written by another client, and nobody would ever ring.
  if bell == 'attentive' and redis.call('PTTL', key('bell')) >= 0 then
    -- Whichever attentive pump waits first looks at once. One entry is enough: that pump wakes
    -- another if it cannot take everything.
    if redis.call('LLEN', key('wake')) == 0 then redis.call('LPUSH', key('wake'), '1') end
    return false
  end
  local rung_ms, unanswered = bells_out(bell)
  -- A time to come was written before the clock was set back: nobody would ring until then.
  local age = NOW - rung_ms
  local lost_after = unanswered < MANY_BELLS and BELL_LOST_AFTER_MS or ONE_OF_MANY_LOST_AFTER_MS
  if age >= 0 and age < lost_after then return false end
  redis.call('SET', key('bell'), int(NOW) .. ' ' .. int(unanswered + 1))
  return true
end

local function answer_bell()
  local _, unanswered = bells_out(redis.call('GET', key('bell')))
  if unanswered > 1 then
    redis.call('SET', key('bell'), '0 ' .. int(unanswered - 1))
  else
    redis.call('DEL', key('bell'))
  end
end

-- What the hash `pauses` has for a page, as JSON. A page that works has nothing there.
--
--   level            automatic pauses in a row; 0: not paused automatically
--   reason, error_code, token_fingerprint, since_ms, until_ms, length_ms   of the automatic pause.
--                    From until_ms on, one job is sent, the probe; then until_ms is later
--   failures         failures in a row
--   failed_payloads  payloads of the latest failures, so that a probe takes another one
--   refusals, refused_code   permanent refusals in a row with one code
--   recovered_ms, recovered_level   when a probe succeeded, and the level of its pause: since then the
--                    page sends more and more
--   manual           {reason, by, at_ms, until_ms or none}: paused by an operator
--   written_ms       when this was written
local PAUSE_NUMBERS = {
  'level', 'since_ms', 'until_ms', 'length_ms', 'failures', 'refusals', 'recovered_ms',
  'recovered_level', 'written_ms'
}
local PAUSE_TEXTS = { 'reason', 'error_code', 'token_fingerprint', 'refused_code' }
local FAILED_PAYLOADS_KEPT = 10

-- Pauses that only a success ends: to send into a restriction makes it longer. After one, the page
-- sends more only slowly.
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

-- Store a pause, or remove it if nothing is left in it.
local function write_pause(page_id, pause)
  if is_empty(pause) then
    redis.call('HDEL', key('pauses'), page_id)
  else
    pause.written_ms = NOW
    redis.call('HSET', key('pauses'), page_id, cjson.encode(pause))
  end
end

-- A pause by an operator as stored, without what another client may have written into it.
local function manual_pause(found)
  if type(found) ~= 'table' then return nil end
  local manual = texts_and_numbers(found, { 'reason', 'by' }, { 'at_ms', 'until_ms' })
  if manual.until_ms <= 0 then manual.until_ms = nil end
  return manual
end

local function new_pause()
  return texts_and_numbers({}, PAUSE_TEXTS, PAUSE_NUMBERS)
end

-- What is stored of a page's pause; nil if nothing is.
local function pause_of(page_id)
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
    -- The clock was set back since. The pause starts again, so that it ends neither early nor much
    -- later.
    local back_ms = pause.written_ms - NOW
    pause.until_ms = pause.until_ms - back_ms
    if pause.recovered_ms > 0 then pause.recovered_ms = math.max(1, pause.recovered_ms - back_ms) end
    if pause.manual and pause.manual.until_ms then
      pause.manual.until_ms = pause.manual.until_ms - back_ms
    end
    write_pause(page_id, pause)
  end
  return pause
end

-- After a probe succeeded: messages a second that the page may send, twice as many after each step;
-- nil once that is over.
local RAMP_FROM, RAMP_TO, STEP_MS, STUBBORN_STEP_MS = 2, 64, 1000, 60000

local function ramp_rate(pause)
  local step_ms = IS_STUBBORN[pause.reason] and STUBBORN_STEP_MS or STEP_MS
  local rate = RAMP_FROM * 2 ^ math.floor(math.max(0, NOW - pause.recovered_ms) / step_ms)
  return rate < RAMP_TO and rate or nil
end

-- Forget what is over of a page's pause.
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

-- When a lane may send again according to its pause; 0 if it may now, LATEST_MS if an operator has
-- to resume it.
local function paused_until(pause)
  if not pause then return 0 end
  local until_ms = pause.level > 0 and pause.until_ms or 0
  if pause.manual then until_ms = math.max(until_ms, pause.manual.until_ms or LATEST_MS) end
  return until_ms > NOW and until_ms or 0
end

-- Give a lane that has jobs the time at which its pause ends: now if it is not paused.
local function reschedule_lane(page_id, pause)
  redis.call('ZADD', key('lanes'), 'XX', int(math.max(NOW, paused_until(pause))), page_id)
end
