-- Shared by all scripts: time, keys, and the functions that move a job from state to state. This
-- file is loaded in front of each script. On its own it only checks the version of the keys.
--
-- Other clients may write anything into these keys. A key of the wrong type never stops a script:
-- redis.call, as defined below, renames the key to broken:<name> and runs the command again as if
-- the key did not exist. Its content is rebuilt from the jobs: see rebuild.lua.
--
-- KEYS[1]  the prefix "{namespace}:" of every key. All keys have this hash tag, so that one script
--          may access them, also in a cluster. Which jobs and lanes a script needs is known only
--          while it runs, so the prefix is passed instead of their keys.
--
--   job:<id>             hash    the job; for its fields see ledger/job_hash.py
--   urgent:<page_id>     list    ids of the page's urgent jobs, served first; oldest first
--   ready:<page_id>      list    ids of its other jobs without a campaign that have not failed
--   again:<page_id>      list    ids of its other jobs without a campaign that have failed at least
--                                once
--   campaign_lanes:<page_id>  zset  campaign -> turn: the page's campaigns that have jobs in
--                                ready:<page_id>/<campaign> or again:<page_id>/<campaign>. They are
--                                served last, in turn. claim.lua removes held campaigns
--   again_turns          hash    <page_id> or <page_id>/<campaign> -> jobs taken from ready since
--                                the last one from again; only while both have jobs
--   lanes                zset    page_id -> earliest time (ms) its lane may send; lanes with jobs
--                                only
--   pauses               hash    page_id -> JSON: lanes that failed recently or are paused; see
--                                pause_of
--   paused_all           string  JSON {reason, by, at_ms, until_ms or none}: no page sends
--   rates                hash    page_id -> JSON {rate (messages per second; 0 means no limit),
--                                burst, by, at_ms}: pages with their own rate
--   spent:<page_id>      string  "<messages> <at_ms>": level of the bucket of a page's rate
--   page_tokens          hash    page_id -> fingerprint of its token, if it has its own token
--   tokens               hash    fingerprint of a token -> JSON: its rate and pause; see token_of
--   due                  zset    id -> due time (ms): send_at, a retry, or the end of a lease
--   failed               zset    id -> when it failed (ms); also failed:<error_code>,
--                                failed_on:<page_id> and failed_of:<campaign>
--   failed_codes         zset    error_code -> when a job last failed with it; also failed_pages
--                                and failed_campaigns, by page_id and campaign
--   sent, cancelled      list    ids, latest first
--   canceled_in_lane     set     ids of canceled jobs that are still in their lane
--   counts               hash    state -> jobs now in it (scheduled, queued, sending, retrying)
--   idem:<key>           string  idempotency key -> job id. For a job of a campaign, the id is
--                                followed by the fingerprint of its body, because the key outlives
--                                the job
--   campaigns            zset    campaign -> when its jobs last changed (ms)
--   campaign:<campaign>  hash    state -> jobs now in it, or that ended in it (including deleted
--                                jobs); rows (announced); created_at, started_at and ended_at
--                                (latest) in ms
--   campaign_pages:<campaign>   hash  "<page_id>|<state>" -> the same by page
--   campaign_errors:<campaign>  hash  "<error_code>" and "<page_id>|<error_code>" -> jobs that
--                                failed with this code
--   held_campaigns       hash    campaign -> JSON {reason, by, at_ms}: its jobs are not claimed
--   canceled_campaigns   hash    campaign -> JSON {by, at_ms}: its jobs are never sent
--   canaries             hash    campaign -> jobs that may still be claimed for the first time; the
--                                others wait until the campaign is released
--   campaign_rules       hash    campaign -> JSON {canary, canary_max_failures, hold_at}: see
--                                worker/campaign_guard.py
--   recent:<campaign>    list    outcomes of its latest jobs, 1 if failed, else 0; only if the
--                                campaign has hold_at
--   campaign_work        hash    campaign -> cursor: lanes to reopen after a release, or jobs to
--                                cancel after a cancellation; see campaign_work.lua
--   minute:<minute>      hash    state -> jobs that ended in it; minutes since the epoch
--   campaign_rate:<campaign>    hash  number of a period of RATE_PERIOD_MS -> jobs sent or failed
--                                in it
--   last_claim:<holder>  string  JSON [token, id, …]: the latest claim of a process
--   revoked_claims:<holder>  string  claims of this process up to this number are revoked
--   audit                zset    operation id -> when it began (ms, with a fraction): operators'
--                                changes, see ledger/audit.py
--   audit_entries        hash    operation id -> JSON {at_ms, action, by, via, count, …}
--   replays              zset    replay id -> when it was requested (ms). This key and the next two
--                                are used by ledger/replay_store.py only
--   replay:<id>          hash    its state, and whether a stop is requested
--   replay_owner:<id>    string  the process that works on it; expires if that process dies
--   clock                string  time (ms) of the latest sweep; a time in the future means that the
--                                clock was set back
--   bell                 string  unanswered doorbells ("<time of the latest> <how many>"), or
--                                "attentive" if a pump will claim again soon
--   wake                 list    one entry if an attentive pump should claim at once
--   version              string  version of this layout of keys: VERSION, from scripts.py
--   repairs              list    repairs, as text for the log; the sweep removes them
--   rebuild              hash    the rebuild in progress: cursor, started_ms, found, and
--                                <key's name> -> when (ms) the content of that key was lost
--   broken:<name>        any     the former value of <name>, which had the wrong type

local PREFIX = KEYS[1]

-- The end of the year 9999 (ms). Only another client writes a later time.
local LATEST_MS = 253402300799999

-- The maximum rate (messages per second) and burst of a page.
local MAX_RATE, MAX_BURST = 100000, 100000

-- A doorbell that is not answered within this time (ms) counts as lost. If several are unanswered,
-- the pumps are probably busy: a longer time keeps doorbells from accumulating.
local BELL_LOST_AFTER_MS, ONE_OF_MANY_LOST_AFTER_MS, MANY_BELLS = 2000, 4500, 4

local clock = redis.call('TIME')
-- Leases, retries and rates use only the server's clock, because the clocks of hosts differ.
local NOW = clock[1] * 1000 + math.floor(clock[2] / 1000)

local function key(name)
  return PREFIX .. name
end

local function int(ms)
  return string.format('%.0f', ms)
end

-- A number from a hash or from JSON; 0 if another client wrote something else or a number that is
-- too large.
local function number(value)
  local n = tonumber(value)
  if n and n >= -2 ^ 53 and n <= 2 ^ 53 then return n end
  return 0
end

-- A table from JSON; nil if another client wrote something else.
local function decode(text)
  if not text then return nil end
  local fine, found = pcall(cjson.decode, text)
  if fine and type(found) == 'table' then return found end
end

-- How long a key of the wrong type is kept as broken:<name>.
local BROKEN_KEPT_SECONDS = 7 * 86400
-- Maximum number of repairs that are kept until a worker logs them.
local REPAIRS_KEPT = 100
-- Keys whose content is rebuilt from the jobs, by the part of the name before the first colon.
local REBUILT = {
  lanes = true, ready = true, urgent = true, again = true, campaign_lanes = true, due = true,
  counts = true, sent = true, cancelled = true, failed = true, failed_on = true,
  failed_codes = true, failed_pages = true, failed_of = true, failed_campaigns = true, idem = true,
  rebuild = true,
}

local server, redis = redis, { error_reply = redis.error_reply }

local function note_repair(text)
  redis.call('RPUSH', key('repairs'), text)
  redis.call('LTRIM', key('repairs'), -REPAIRS_KEPT, -1)
end

local rebuild_started = false

-- Start to scan all jobs, or start again, for the content of the key `name`.
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

-- Repair the key that made a command fail, and run the command again.
local function call_again(problem, ...)
  local _, full_name, field = ...
  local name = string.sub(full_name, #PREFIX + 1)
  if string.find(problem, 'WRONGTYPE', 1, true) then
    set_aside(name)
  elseif string.find(problem, 'not an integer', 1, true)
      or string.find(problem, 'would overflow', 1, true) then
    -- An error of HINCRBY, the only command that reads a number.
    note_repair(name .. ': ' .. field .. ' was not a whole number in range')
    server.call('HDEL', full_name, field)
  end
  -- If nothing was repaired, this raises the server's error.
  return server.call(...)
end

local try, type = server.pcall, type

-- All commands of all scripts use this function, so that no script fails after its first write.
function redis.call(...)
  local answer = try(...)
  if type(answer) == 'table' and answer.err then return call_again(tostring(answer.err), ...) end
  return answer
end

-- A later version of this program may use the same keys differently, and an earlier version must
-- stop once this one has run. A value that is not a version was written by another client.
local version = redis.call('GET', key('version'))
if version ~= int(VERSION) then
  if version and #version < 10 and string.match(version, '^%d+$')
      and tonumber(version) > VERSION then
    return redis.error_reply('ERR ' .. string.format(OTHER_VERSION, version))
  end
  -- This fails for a client that may only read and on a full Redis. Another call stores it later.
  server.pcall('SET', key('version'), int(VERSION))
end

-- The states whose jobs are counted.
local COUNTED = { scheduled = true, queued = true, sending = true, retrying = true }

local ENDED = { sent = true, failed = true, cancelled = true }

-- Changes that a call collects, so that a batch of jobs needs few commands; write_collected writes
-- them.
local count_changes, campaign_changes, minute_changes = {}, {}, {}
local new_due, no_longer_due = {}, {} -- {time (ms), id, time, id, …} and {id, …}
local newly_ended = { sent = {}, cancelled = {} } -- state -> {id, …}

-- Maximum number of arguments of one command, an even number. unpack() fails for several thousand.
local ARGUMENTS_PER_CALL = 1000

local function call_with_all(command, name, arguments)
  for first = 1, #arguments, ARGUMENTS_PER_CALL do
    local last = math.min(first + ARGUMENTS_PER_CALL - 1, #arguments)
    redis.call(command, key(name), unpack(arguments, first, last))
  end
end

local function add(counts, name, by)
  counts[name] = (counts[name] or 0) + by
end

local function count_in_campaign(job, state, by)
  local change = campaign_changes[job.campaign]
  if not change then
    change = { states = {}, pages = {}, errors = {} }
    campaign_changes[job.campaign] = change
  end
  local page = (job.page_id or '') .. '|'
  add(change.states, state, by)
  add(change.pages, page .. state, by)
  if state == 'failed' then
    local error_code = job.error_code or 'invalid_job'
    add(change.errors, error_code, by)
    add(change.errors, page .. error_code, by)
  end
end

-- Count the change of a job's state. `job` has page_id, campaign and error_code; `from` is nil for
-- a new job.
local function moved(job, from, to)
  if from == 'sending' and ENDED[to] then add(minute_changes, to, 1) end
  if COUNTED[from] then add(count_changes, from, -1) end
  if COUNTED[to] then add(count_changes, to, 1) end
  if not job.campaign or from == to then return end
  if COUNTED[from] or ENDED[from] then count_in_campaign(job, from, -1) end
  count_in_campaign(job, to, 1)
end

local function write_changes(name, changes)
  for field, by in pairs(changes) do
    -- Only a job that another client created, and that was never counted, makes this negative.
    if by ~= 0 and redis.call('HINCRBY', key(name), field, by) < 0 then
      redis.call('HSET', key(name), field, '0')
    end
  end
end

-- The value of a campaign in a hash of marks. Marks are rare, so each script call first checks once
-- whether the hash exists.
local marked = {}
local function mark_of(hash, campaign)
  if marked[hash] == nil then marked[hash] = redis.call('EXISTS', key(hash)) == 1 end
  return marked[hash] and redis.call('HGET', key(hash), campaign) or nil
end

local function is_canceled(campaign)
  return campaign ~= nil and mark_of('canceled_campaigns', campaign) ~= nil
end

-- Campaigns whose jobs may wait in lanes that are closed.
local function marked_campaigns()
  local campaigns = {}
  for _, hash in ipairs({ 'held_campaigns', 'canaries', 'campaign_work' }) do
    for _, campaign in ipairs(redis.call('HKEYS', key(hash))) do campaigns[campaign] = true end
  end
  return campaigns
end

-- Number of outcomes that are kept for a campaign with hold_at.
local RECENT_OUTCOMES = 500

local function keep_outcomes(campaign, sent, failed)
  local rules = decode(mark_of('campaign_rules', campaign))
  if not (rules and tonumber(rules.hold_at)) then return end
  local name = key('recent:' .. campaign)
  local outcomes = {}
  for i = 1, math.min(sent + failed, RECENT_OUTCOMES) do
    outcomes[i] = i <= failed and '1' or '0'
  end
  redis.call('LPUSH', name, unpack(outcomes))
  redis.call('LTRIM', name, 0, RECENT_OUTCOMES - 1)
end

-- A campaign's rate is counted in periods of this length; this many are kept.
local RATE_PERIOD_MS, RATE_PERIODS = 10000, 6

local function count_rate(campaign, jobs)
  local name, period = key('campaign_rate:' .. campaign), math.floor(NOW / RATE_PERIOD_MS)
  if redis.call('HINCRBY', name, int(period), jobs) > jobs then return end
  for _, other in ipairs(redis.call('HKEYS', name)) do
    -- A period in the future was counted before the clock was set back.
    if math.abs(period - number(other)) >= RATE_PERIODS then redis.call('HDEL', name, other) end
  end
end

-- How long the counts of one minute are kept. Charts show an hour.
local MINUTES_KEPT_SECONDS = 2 * 3600

-- Every script that moves jobs calls this at its end.
local function write_collected()
  call_with_all('ZADD', 'due', new_due)
  call_with_all('ZREM', 'due', no_longer_due)
  for state, ids in pairs(newly_ended) do call_with_all('LPUSH', state, ids) end
  write_changes('counts', count_changes)
  if next(minute_changes) then
    local name = 'minute:' .. int(math.floor(NOW / 60000))
    write_changes(name, minute_changes)
    redis.call('EXPIRE', key(name), MINUTES_KEPT_SECONDS)
  end
  for campaign, change in pairs(campaign_changes) do
    local name, states = 'campaign:' .. campaign, change.states
    write_changes(name, states)
    write_changes('campaign_pages:' .. campaign, change.pages)
    write_changes('campaign_errors:' .. campaign, change.errors)
    redis.call('HSETNX', key(name), 'created_at', int(NOW))
    if (states.sending or 0) > 0 then redis.call('HSETNX', key(name), 'started_at', int(NOW)) end
    local sent, failed = math.max(0, states.sent or 0), math.max(0, states.failed or 0)
    local called = sent + failed
    if called > 0 then
      count_rate(campaign, called)
      keep_outcomes(campaign, sent, failed)
    end
    if called > 0 or (states.cancelled or 0) > 0 then
      redis.call('HSET', key(name), 'ended_at', int(NOW))
    end
    redis.call('ZADD', key('campaigns'), int(NOW), campaign)
  end
end

-- A turn after those of all other campaigns of the page.
local function last_turn(page_id)
  local last = redis.call('ZRANGE', key('campaign_lanes:' .. page_id), -1, -1, 'WITHSCORES')
  return number(last[2]) + 1
end

local function open_lane(page_id, campaign)
  local campaigns = key('campaign_lanes:' .. page_id)
  if campaign and not redis.call('ZSCORE', campaigns, campaign) then
    redis.call('ZADD', campaigns, int(last_turn(page_id)), campaign)
  end
  redis.call('ZADD', key('lanes'), 'NX', int(NOW), page_id)
end

-- The name of a lane within a page: that of jobs without a campaign, or that of one campaign.
local function lane_name(page_id, campaign)
  return campaign and page_id .. '/' .. campaign or page_id
end

-- Whether a job has failed since it was enqueued or replayed. A throttled call is not a failure.
local function has_failed(job)
  return number(job.attempts) > number(job.attempts_before_replay)
end

-- The list in which a job waits.
local function list_of(job)
  if job.urgent == '1' and not job.campaign then return 'urgent:' .. job.page_id end
  return (has_failed(job) and 'again:' or 'ready:') .. lane_name(job.page_id, job.campaign)
end

-- Add ids to the list in which `job` waits, at the end or (if released unsent) at the front. `job`
-- has page_id, campaign, urgent, attempts and attempts_before_replay.
local function to_lane(ids, job, at_front)
  call_with_all(at_front and 'LPUSH' or 'RPUSH', list_of(job), ids)
  if at_front and job.campaign and not has_failed(job) and mark_of('canaries', job.campaign) then
    redis.call('HINCRBY', key('canaries'), job.campaign, #ids)
  end
  open_lane(job.page_id, job.campaign)
end

-- Add a job to the indexes of failed jobs. Returns 1 if it was not in the index of all failed jobs,
-- else 0.
local function index_failed(id, job, failed_ms)
  local function add_to(index, names, name)
    redis.call('ZADD', key(index .. name), int(failed_ms), id)
    redis.call('ZADD', key(names), 'GT', int(failed_ms), name)
  end
  local added = redis.call('ZADD', key('failed'), int(failed_ms), id)
  add_to('failed:', 'failed_codes', job.error_code or 'invalid_job')
  if job.page_id then add_to('failed_on:', 'failed_pages', job.page_id) end
  if job.campaign then add_to('failed_of:', 'failed_campaigns', job.campaign) end
  return added
end

-- A job's hash as a table, and as {field, value, …}; or nil if there is no such job.
local function read_job(id)
  local flat = redis.call('HGETALL', key('job:' .. id))
  if #flat == 0 then return nil end
  local job = {}
  for i = 1, #flat, 2 do job[flat[i]] = flat[i + 1] end
  return job, flat
end

-- Some fields of a job as a table, without missing fields.
local function read_fields(id, names)
  local job, values = {}, redis.call('HMGET', key('job:' .. id), unpack(names))
  for i = 1, #names do job[names[i]] = values[i] or nil end
  return job
end

-- A text of a job that may be split into several fields; see ledger/job_hash.py.
local function long_text(job, name)
  local text, part = job[name], 1
  while text and job[name .. '+' .. part] do
    text, part = text .. job[name .. '+' .. part], part + 1
  end
  return text
end

-- The idempotency key of a complete job, or nil. An empty one means the default key of a campaign's
-- job.
local function idempotency_key_of(job)
  if job.idempotency_key ~= '' then return job.idempotency_key end
  return table.concat({ job.campaign or '', job.page_id or '', job.recipient_id or '',
    long_text(job, 'payload_id') or '' }, '/')
end

local KEY_PARTS = { 'recipient_id', 'payload_id', 'payload_id+1', 'payload_id+2', 'payload_id+3' }

-- The fields of a campaign's job that idempotency_key_of needs; all fields if its payload_id is
-- longer.
local function read_key_parts(id, job)
  local parts = read_fields(id, KEY_PARTS)
  if parts['payload_id+3'] then return read_job(id) end
  parts.idempotency_key, parts.campaign, parts.page_id = '', job.campaign, job.page_id
  return parts
end

-- Matches the fingerprint of any body.
local ANY_FINGERPRINT = string.rep('?', 12)

-- End a job. `job` has `state`, `page_id`, `campaign`, `idempotency_key` and `error_code`. A sent
-- or canceled job is kept for `ttl_s` seconds; a failed job until the sweep deletes it. `fields`
-- are more fields and values to set.
local function end_job(id, job, state, ttl_s, fields)
  redis.call('HSET', key('job:' .. id), 'state', state, 'finished_at', int(NOW), unpack(fields))
  no_longer_due[#no_longer_due + 1] = id
  moved(job, job.state, state)
  if state == 'failed' then
    index_failed(id, job, NOW)
    return
  end
  redis.call('EXPIRE', key('job:' .. id), ttl_s)
  if job.idempotency_key then
    local whole = job.idempotency_key == '' and read_key_parts(id, job) or job
    -- The key of a campaign's job outlives the job, so that the same file is never sent twice.
    local key_ttl_s = job.campaign and math.max(tonumber(ttl_s), CAMPAIGN_TTL_S) or tonumber(ttl_s)
    redis.call('EXPIRE', key('idem:' .. idempotency_key_of(whole)), int(key_ttl_s))
  end
  local ended = newly_ended[state]
  ended[#ended + 1] = id
end

-- The states in which a job can be canceled.
local CANCELABLE = { scheduled = true, queued = true, retrying = true }

-- Cancel a complete job in one of these states. The caller removes the id of a queued job from its
-- lane, or adds it to `canceled_in_lane`.
local function cancel_job(id, job)
  end_job(id, job, 'cancelled', CANCELED_TTL_S, {})
end

local function unindex_failed(id, job)
  local function remove_from(index, names, name)
    if not name then return end
    redis.call('ZREM', key(index .. name), id)
    if redis.call('EXISTS', key(index .. name)) == 0 then redis.call('ZREM', key(names), name) end
  end
  redis.call('ZREM', key('failed'), id)
  remove_from('failed:', 'failed_codes', job.error_code)
  remove_from('failed_on:', 'failed_pages', job.page_id)
  remove_from('failed_of:', 'failed_campaigns', job.campaign)
end

-- Jobs that this call claimed, as claim.lua and sweep.lua return them:
--   {id, consecutive pauses of its lane, and of its token, lease_ended (0 or 1), defect or "",
--    whether its page has a rate (0 or 1), {field, value, …}}, …
local claimed = {}

local INCOMPLETE = 'no complete job was stored under this id'

-- Claim a job: until `lease` {token, ms} ends, only the holder of the token may record its result.
--
-- `job` and `flat` are the results of read_job for `id`. `how` is {page_id: of the job's lane;
-- level, token_level: consecutive pauses; is_paced}; each is optional. `defect` is nil, or the
-- reason why the job cannot be sent. The holder records it. It is also stored in the job, in case
-- the holder dies first, and required fields that are missing are added.
local function claim_job(id, job, flat, lease, how, defect)
  local name = key('job:' .. id)
  if defect then
    redis.call('HSETNX', name, 'attempts', '0')
    redis.call('HSETNX', name, 'enqueued_at', int(NOW))
    if how.page_id then redis.call('HSETNX', name, 'page_id', how.page_id) end
    redis.call('HSET', name, 'defect', defect)
  end
  moved(job or {}, job and job.state, 'sending')
  redis.call('HSET', name, 'state', 'sending', 'claim', lease.token)
  local last = #new_due
  new_due[last + 1], new_due[last + 2] = int(NOW + lease.ms), id
  local lease_ended = not defect and job.state == 'sending'
  if defect then job, flat = read_job(id) end
  claimed[#claimed + 1] = {
    id, how.level or 0, how.token_level or 0, lease_ended and 1 or 0, defect or '',
    how.is_paced and 1 or 0, flat
  }
end

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

-- When the latest doorbell was rung (ms), and the number of unanswered doorbells.
local function bells_out(bell)
  local rung_ms, unanswered = string.match(bell or '', '^(%d+) (%d+)$')
  return number(rung_ms), number(unanswered)
end

-- Whether to ring a doorbell for jobs that are ready now. True only once, until that doorbell is
-- answered or counts as lost. An attentive pump needs no doorbell; this function wakes it.
local function should_ring()
  if redis.call('GET', key('paused_all')) then return false end
  local bell = redis.call('GET', key('bell'))
  -- A bell without a lifetime was written by another client, and would block all doorbells.
  if bell == 'attentive' and redis.call('PTTL', key('bell')) >= 0 then
    -- One entry is enough: the pump that takes it wakes another if it cannot take all jobs.
    if redis.call('LLEN', key('wake')) == 0 then redis.call('LPUSH', key('wake'), '1') end
    return false
  end
  local rung_ms, unanswered = bells_out(bell)
  -- A time in the future was written before the clock was set back, and is ignored.
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

-- Store a pause, or delete it if it is empty.
local function write_pause(page_id, pause)
  if is_empty(pause) then
    redis.call('HDEL', key('pauses'), page_id)
  else
    pause.written_ms = NOW
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

-- The JSON value of a token in the hash `tokens`, by its fingerprint. A token without a limit that
-- is not paused has no entry.
--
--   spent, at_ms     level of the bucket of its calls, and when it was computed
--   limit, limit_ms  size of the API's own bucket according to a reply, and when it was received
--   level, reason, error_code, since_ms, until_ms, probe   as for a page's pause; probe is 1 until
--                    the outcome of the probe is recorded
local TOKEN_NUMBERS = {
  'spent', 'at_ms', 'limit', 'limit_ms', 'level', 'since_ms', 'until_ms', 'length_ms', 'probe',
  'recovered_ms', 'recovered_level'
}
-- The limit from a reply is ignored after this time (ms).
local LIMIT_KNOWN_MS = 600000
-- Haravan's bucket leaks a twentieth of its size per second. Only four fifths of it are used,
-- because other programs use the token as well.
local LEAK_PART, FILLED_PART = 1 / 20, 0.8

local tokens_read = {}

local function token_of(fingerprint)
  local known = tokens_read[fingerprint]
  if known then return known end
  local found = decode(redis.call('HGET', key('tokens'), fingerprint)) or {}
  local api_token = texts_and_numbers(found, PAUSE_TEXTS, TOKEN_NUMBERS)
  tokens_read[fingerprint] = api_token
  if api_token.at_ms > NOW then
    -- The clock was set back.
    api_token.until_ms = api_token.until_ms - (api_token.at_ms - NOW)
    api_token.at_ms = NOW
  end
  if math.abs(NOW - api_token.limit_ms) > LIMIT_KNOWN_MS then api_token.limit = 0 end
  return api_token
end

-- Calls per second and burst of a token, from the settings and the replies. A rate of 0 means
-- no limit.
local function limits_of(api_token, rate, burst)
  local limit = api_token.limit
  if limit <= 0 then return rate, burst end
  if rate <= 0 then return limit * LEAK_PART, limit * FILLED_PART end
  return math.min(rate, limit * LEAK_PART), math.min(burst, limit * FILLED_PART)
end

-- Reduce the level of a token's bucket by what has leaked until now.
local function leak(api_token, rate)
  api_token.spent = math.max(0, api_token.spent - (NOW - api_token.at_ms) * rate / 1000)
  api_token.at_ms = NOW
end

local function write_tokens()
  for fingerprint, api_token in pairs(tokens_read) do
    if api_token.changed then
      api_token.changed = nil
      if api_token.level > 0 or api_token.limit > 0 or api_token.spent > 0 then
        redis.call('HSET', key('tokens'), fingerprint, cjson.encode(api_token))
      else
        redis.call('HDEL', key('tokens'), fingerprint)
      end
    end
  end
end
