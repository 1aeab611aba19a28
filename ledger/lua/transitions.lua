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
--   urgent:<page_id>     list    ids of the page's urgent jobs, which are served first; oldest first
--   ready:<page_id>      list    ids of its other jobs without campaign that have not failed
--   again:<page_id>      list    the same for those that have failed at least once
--   campaign_lanes:<page_id>  zset  campaign -> turn: the page's campaigns that have jobs in
--                                ready:<page_id>/<campaign> or again:<page_id>/<campaign>, which are
--                                served last, in turn; without those that claim.lua found held
--   again_turns          hash    <page_id> or <page_id>/<campaign> -> jobs taken from ready since the
--                                last one from again; while both have jobs
--   lanes                zset    page_id -> earliest time (ms) its lane may send; lanes with jobs only
--   pauses               hash    page_id -> JSON: lanes that failed recently, or are paused; see pause_of
--   paused_all           string  JSON {reason, by, at_ms, until_ms or none}: no page sends
--   rates                hash    page_id -> JSON {rate (messages a second; 0 is no limit), burst, by,
--                                at_ms}: pages with a rate of their own
--   spent:<page_id>      string  "<messages> <at_ms>": how full the bucket of a page's rate is
--   page_tokens          hash    page_id -> fingerprint of its token, if it has one of its own
--   tokens               hash    fingerprint of a token -> JSON: its rate and its pause; see token_of
--   due                  zset    id -> when to look again (ms): send_at, a retry, or a lease's end
--   failed               zset    id -> when it failed (ms); also failed:<error_code>,
--                                failed_on:<page_id> and failed_of:<campaign>
--   failed_codes         zset    error_code -> when it last failed; also failed_pages and
--                                failed_campaigns, by page_id and campaign
--   sent, cancelled      list    ids, latest first
--   canceled_in_lane     set     ids canceled in their lane, until their turn there comes
--   counts               hash    state -> jobs now in it (scheduled, queued, sending, retrying)
--   idem:<key>           string  idempotency key -> job id; of a job of a campaign followed by the
--                                fingerprint of its body, since the key outlives the job
--   campaigns            zset    campaign -> when its jobs last changed (ms)
--   campaign:<campaign>  hash    state -> jobs now in it, or that ended in it (also those forgotten by
--                                now); rows (announced), created_at, started_at, ended_at (latest), in ms
--   campaign_pages:<campaign>   hash  "<page_id>|<state>" -> the same by page
--   campaign_errors:<campaign>  hash  "<error_code>" and "<page_id>|<error_code>" -> jobs that failed so
--   held_campaigns       hash    campaign -> JSON {reason, by, at_ms}: none of its jobs is claimed
--   canceled_campaigns   hash    campaign -> JSON {by, at_ms}: none of its jobs is sent any more
--   canaries             hash    campaign -> jobs that may still be claimed for the first time: the
--                                others wait until the campaign is released
--   campaign_rules       hash    campaign -> JSON {canary, canary_max_failures, hold_at}: see
--                                worker/campaign_guard.py
--   recent:<campaign>    list    how its latest jobs ended, 1 if failed, else 0; if it has hold_at
--   campaign_work        hash    campaign -> cursor: lanes to reopen after a release, or jobs to end
--                                after a cancel; see campaign_work.lua
--   minute:<minute>      hash    state -> jobs that ended in it; minutes since the epoch
--   campaign_rate:<campaign>    hash  number of a period of RATE_PERIOD_MS -> jobs that it sent or failed
--   last_claim:<holder>  string  JSON [token, id, …]: what a process claimed last
--   revoked_claims:<holder>  string  claims of this process up to this number are revoked
--   audit                zset    operation id -> when (ms) it began: what operators did, see ledger/audit.py
--   audit_entries        hash    operation id -> JSON {at_ms, action, by, via, count, …}
--   replays              zset    replay id -> when (ms) it was asked for; these three are
--                                read and written by ledger/replay_store.py alone
--   replay:<id>          hash    its state, and whether it must stop
--   replay_owner:<id>    string  the process that works on it; expires with it
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

local ENDED = { sent = true, failed = true, cancelled = true }

-- Changes to `counts` and to the counts of campaigns, gathered, so that a batch costs one command a
-- state.
local count_changes, campaign_changes, minute_changes = {}, {}, {}

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

-- Note that a job (page_id, campaign, error_code) moved from a state to another. `from` is nil for a
-- new job.
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
    -- Below 0 comes only what another client put there: it was never counted in.
    if by ~= 0 and redis.call('HINCRBY', key(name), field, by) < 0 then
      redis.call('HSET', key(name), field, '0')
    end
  end
end

-- What a hash of marks on campaigns has for one. That any is marked is rare, and asked once a call.
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

-- Outcomes that are kept of a campaign that has hold_at.
local RECENT_OUTCOMES = 500

local function keep_outcomes(campaign, sent, failed)
  local rules = decode(mark_of('campaign_rules', campaign))
  if not (rules and tonumber(rules.hold_at)) then return end
  local name = key('recent:' .. campaign)
  local outcomes = {}
  for i = 1, math.min(sent + failed, RECENT_OUTCOMES) do outcomes[i] = i <= failed and '1' or '0' end
  redis.call('LPUSH', name, unpack(outcomes))
  redis.call('LTRIM', name, 0, RECENT_OUTCOMES - 1)
end

-- A campaign's rate is counted in periods of this length, of which this many are kept.
local RATE_PERIOD_MS, RATE_PERIODS = 10000, 6

local function count_rate(campaign, jobs)
  local name, period = key('campaign_rate:' .. campaign), math.floor(NOW / RATE_PERIOD_MS)
  if redis.call('HINCRBY', name, int(period), jobs) > jobs then return end
  for _, other in ipairs(redis.call('HKEYS', name)) do
    -- A period to come was counted before the clock was set back.
    if math.abs(period - number(other)) >= RATE_PERIODS then redis.call('HDEL', name, other) end
  end
end

-- How long the counts of one minute are kept: an hour is charted.
local MINUTES_KEPT_SECONDS = 2 * 3600

local function write_counts()
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

-- The next turn in a page's round of campaigns: behind all others.
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

-- A lane within a page: that of its jobs without campaign, or of one campaign.
local function lane_name(page_id, campaign)
  return campaign and page_id .. '/' .. campaign or page_id
end

-- Whether a job has failed since it was enqueued or replayed. A throttled call is no failure.
local function has_failed(job)
  return number(job.attempts) > number(job.attempts_before_replay)
end

-- The list in which a job waits.
local function list_of(job)
  if job.urgent == '1' and not job.campaign then return 'urgent:' .. job.page_id end
  return (has_failed(job) and 'again:' or 'ready:') .. lane_name(job.page_id, job.campaign)
end

-- Ids pushed by one command; many thousand are more than unpack() returns.
local IDS_PER_PUSH = 1000

-- Put ids into the list in which `job` waits, as the others do: at the end in order, or (released
-- unsent) at the front. `job` has page_id, campaign, urgent, attempts and attempts_before_replay.
local function to_lane(ids, job, at_front)
  local lane = key(list_of(job))
  local push = at_front and 'LPUSH' or 'RPUSH'
  for first = 1, #ids, IDS_PER_PUSH do
    local last = math.min(first + IDS_PER_PUSH - 1, #ids)
    redis.call(push, lane, unpack(ids, first, last))
  end
  if at_front and job.campaign and not has_failed(job) and mark_of('canaries', job.campaign) then
    redis.call('HINCRBY', key('canaries'), job.campaign, #ids)
  end
  open_lane(job.page_id, job.campaign)
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

-- The hash behind an id as a table, or nil if there is none.
local function read_job(id)
  local flat = redis.call('HGETALL', key('job:' .. id))
  if #flat == 0 then return nil end
  local job = {}
  for i = 1, #flat, 2 do job[flat[i]] = flat[i + 1] end
  return job
end

-- Some fields of a job as a table, without those it does not have.
local function read_fields(id, names)
  local job, values = {}, redis.call('HMGET', key('job:' .. id), unpack(names))
  for i = 1, #names do job[names[i]] = values[i] or nil end
  return job
end

-- A long text of a job: longer ones go on in further fields; see ledger/job_hash.py.
local function long_text(job, name)
  local text, part = job[name], 1
  while text and job[name .. '+' .. part] do
    text, part = text .. job[name .. '+' .. part], part + 1
  end
  return text
end

-- The idempotency key of a whole job, or nil. An empty one stands for the key of a job of a campaign
-- that was enqueued without one.
local function idempotency_key_of(job)
  if job.idempotency_key ~= '' then return job.idempotency_key end
  return table.concat({ job.campaign or '', job.page_id or '', job.recipient_id or '',
    long_text(job, 'payload_id') or '' }, '/')
end

local KEY_PARTS = { 'recipient_id', 'payload_id', 'payload_id+1', 'payload_id+2', 'payload_id+3' }

-- What idempotency_key_of needs of a job of a campaign; the whole job if its payload_id is longer.
local function read_key_parts(id, job)
  local parts = read_fields(id, KEY_PARTS)
  if parts['payload_id+3'] then return read_job(id) end
  parts.idempotency_key, parts.campaign, parts.page_id = '', job.campaign, job.page_id
  return parts
end

-- Stands for the fingerprint of any body.
local ANY_FINGERPRINT = string.rep('?', 12)

-- End a job, of which the caller has read `state`, `page_id`, `campaign`, `idempotency_key` and
-- `error_code`. A sent or canceled one is kept for `ttl_s` seconds; a failed one until the sweep forgets it.
-- `fields` are further fields and values to set.
local function end_job(id, job, state, ttl_s, fields)
  redis.call('HSET', key('job:' .. id), 'state', state, 'finished_at', int(NOW), unpack(fields))
  redis.call('ZREM', key('due'), id)
  moved(job, job.state, state)
  if state == 'failed' then
    index_failed(id, job, NOW)
    return
  end
  redis.call('EXPIRE', key('job:' .. id), ttl_s)
  if job.idempotency_key then
    local whole = job.idempotency_key == '' and read_key_parts(id, job) or job
    -- That of a campaign's job outlives the job, so that the same file sends nothing twice.
    local key_ttl_s = job.campaign and math.max(tonumber(ttl_s), CAMPAIGN_TTL_S) or tonumber(ttl_s)
    redis.call('EXPIRE', key('idem:' .. idempotency_key_of(whole)), int(key_ttl_s))
  end
  redis.call('LPUSH', key(state), id)
end

-- The states in which a job can be canceled.
local CANCELABLE = { scheduled = true, queued = true, retrying = true }

-- Cancel a whole job in one of these states. Of a queued one, the caller takes the id out of its lane,
-- or notes it in `canceled_in_lane`.
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
--   {id, pauses in a row of its lane, and of its token, lease_ended (0 or 1), defect or "", whether
--    its page has a rate (0 or 1), {field, value, …}}, …
local claimed = {}

local INCOMPLETE = 'no complete job was stored under this id'

-- Claim a job: only who shows `token` may record how it ends, until the lease ends.
--
-- `job` is what read_job returned for `id`. `how` is nil, or {page_id: of the lane it was in; level,
-- token_level: pauses in a row; is_paced}. `defect`, if any, is why the job cannot be sent: the holder
-- records that. It is kept in the job, in case the holder dies first; and what the job lacks is added,
-- so that it can be recorded.
local function claim_job(id, job, token, lease_ms, how, defect)
  how = how or {}
  local name = key('job:' .. id)
  if defect then
    redis.call('HSETNX', name, 'attempts', '0')
    redis.call('HSETNX', name, 'enqueued_at', int(NOW))
    if how.page_id then redis.call('HSETNX', name, 'page_id', how.page_id) end
    redis.call('HSET', name, 'defect', defect)
  end
  moved(job or {}, job and job.state, 'sending')
  redis.call('HSET', name, 'state', 'sending', 'claim', token)
  redis.call('ZADD', key('due'), int(NOW + lease_ms), id)
  local lease_ended = not defect and job.state == 'sending'
  local flat = {}
  for field, value in pairs(defect and read_job(id) or job) do
    flat[#flat + 1] = field
    flat[#flat + 1] = value
  end
  claimed[#claimed + 1] = {
    id, how.level or 0, how.token_level or 0, lease_ended and 1 or 0, defect or '',
    how.is_paced and 1 or 0, flat
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

-- Campaigns of a page whose waiting jobs are counted for the log.
local CAMPAIGNS_COUNTED = 100

-- How many jobs wait in the lane of a page; without those of held campaigns.
local function waiting_on(page_id)
  local lanes = { page_id }
  for _, campaign in ipairs(redis.call('ZRANGE', key('campaign_lanes:' .. page_id), 0,
      CAMPAIGNS_COUNTED - 1)) do
    lanes[#lanes + 1] = lane_name(page_id, campaign)
  end
  local jobs = redis.call('LLEN', key('urgent:' .. page_id))
  for _, lane in ipairs(lanes) do
    jobs = jobs + redis.call('LLEN', key('ready:' .. lane)) + redis.call('LLEN', key('again:' .. lane))
  end
  return jobs
end

-- What became of pages (or "token:<fingerprint>": all pages of a token) in this call, for the caller's log:
--   {page_id, "paused", "probed" or "resumed", reason, error_code or "", until_ms, waiting jobs}, …
local page_changes = {}

local function note_page_change(page_id, what, pause)
  page_changes[#page_changes + 1] = {
    page_id, what, pause.reason or '', pause.error_code or '', int(pause.until_ms), waiting_on(page_id)
  }
end

-- What the hash `tokens` has for a token's fingerprint, as JSON. A token that has no limit and is not
-- paused has nothing there.
--
--   spent, at_ms     how full the bucket of its calls is, and when
--   limit, limit_ms  how many calls the API's own bucket holds, as a reply said it, and when
--   level, reason, error_code, since_ms, until_ms, probe   as of a page's pause; probe is 1 while the
--                    outcome of its probe is awaited
local TOKEN_NUMBERS = {
  'spent', 'at_ms', 'limit', 'limit_ms', 'level', 'since_ms', 'until_ms', 'length_ms', 'probe',
  'recovered_ms', 'recovered_level'
}
-- Replies no longer say what the limit is after this time (ms) without any.
local LIMIT_KNOWN_MS = 600000
-- Haravan's bucket leaks a twentieth of what it holds per second. Above four fifths it is not filled:
-- other programs use the token as well.
local LEAK_PART, FILLED_PART = 1 / 20, 0.8

local tokens_read = {}

local function token_of(fingerprint)
  local known = tokens_read[fingerprint]
  if known then return known end
  local found = decode(redis.call('HGET', key('tokens'), fingerprint)) or {}
  local api_token = texts_and_numbers(found, PAUSE_TEXTS, TOKEN_NUMBERS)
  tokens_read[fingerprint] = api_token
  if api_token.at_ms > NOW then
    -- The clock was set back since.
    api_token.until_ms = api_token.until_ms - (api_token.at_ms - NOW)
    api_token.at_ms = NOW
  end
  if math.abs(NOW - api_token.limit_ms) > LIMIT_KNOWN_MS then api_token.limit = 0 end
  return api_token
end

-- Calls a second of a token, and how many at once: by the setting and by what replies said. A rate of
-- 0 is no limit.
local function limits_of(api_token, rate, burst)
  local limit = api_token.limit
  if limit <= 0 then return rate, burst end
  if rate <= 0 then return limit * LEAK_PART, limit * FILLED_PART end
  return math.min(rate, limit * LEAK_PART), math.min(burst, limit * FILLED_PART)
end

-- Let leak what has leaked until now.
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
