-- What every script shares: time, keys, and the ways a job moves from state to state. It is put in
-- front of each script when that is loaded; it does nothing by itself.
--
-- KEYS[1]  the prefix "{namespace}:" of every key. All keys have this one hash tag, so that one
--          script may touch them, also in a cluster; which job and lane keys a script touches is
--          known only once it has read the lanes, so the prefix stands for them.
--
--   job:<id>             hash    the job; see ledger/job_hash.py for its fields
--   ready:<page_id>      list    ids that wait in the page's lane, oldest first
--   urgent:<page_id>     list    the same for urgent jobs; served before ready
--   lanes                zset    page_id -> earliest time (ms) its lane may send; lanes with jobs only
--   pauses               hash    page_id -> JSON {reason, level, failures, written_ms, until_ms,
--                                token_fingerprint, error_code}: lanes that failed of late, or are paused
--   tat:<page_id>        string  a rate-limited lane's theoretical arrival time (ms); GCRA
--   due                  zset    id -> when to look again (ms): send_at, a retry, or a lease's end
--   failed               zset    id -> when it failed (ms); also failed:<error_code>, failed_on:<page_id>
--   failed_codes         zset    error_code -> when it last failed; also failed_pages, by page_id
--   sent, cancelled      list    ids, latest first
--   called_off           set     ids cancelled in their lane, until their turn there comes
--   counts               hash    state -> jobs now in it (scheduled, queued, sending, retrying)
--   idem:<key>           string  idempotency key -> job id
--   last_claim:<holder>  string  JSON [token, id, …]: what a process claimed last
--   void:<holder>        string  claims of this process up to this number are void
--   clock                string  time (ms) of the latest sweep; one to come shows that the clock was set back
--   bell                 string  doorbells are out ("<time of the latest> <how many unanswered>"), or
--                                a pump is looking ("attentive")

local PREFIX = KEYS[1]

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

-- Put a job into its lane: at the end, or (given back unsent) at the front.
local function to_lane(id, page_id, urgent, at_front)
  local lane = key((urgent and 'urgent:' or 'ready:') .. page_id)
  local push = at_front and 'LPUSH' or 'RPUSH'
  if type(redis.pcall(push, lane, id)) == 'table' then
    -- Not a list: out of the way, or the lane would never move again.
    redis.call('DEL', lane)
    redis.call(push, lane, id)
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

-- Jobs that this call failed: {id, page_id or "", error_code}, …
local failed_here = {}

local function fail(id, page_id, error_code, error_message, http_status)
  local job = key('job:' .. id)
  failed_here[#failed_here + 1] = { id, page_id or '', error_code }
  redis.call('HSET', job, 'state', 'failed', 'finished_at', int(NOW), 'error_code', error_code)
  redis.call('HDEL', job, 'claim', 'error_message', 'http_status')
  if error_message and error_message ~= '' then
    redis.call('HSET', job, 'error_message', error_message)
  end
  if http_status and http_status ~= '' then
    redis.call('HSET', job, 'http_status', http_status)
  end
  redis.call('ZREM', key('due'), id)
  redis.call('ZADD', key('failed'), int(NOW), id)
  redis.call('ZADD', key('failed:' .. error_code), int(NOW), id)
  redis.call('ZADD', key('failed_codes'), int(NOW), error_code)
  if page_id then
    redis.call('ZADD', key('failed_on:' .. page_id), int(NOW), id)
    redis.call('ZADD', key('failed_pages'), int(NOW), page_id)
  end
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

-- Keep a failed record of an entry that is no job of ours: a hash that lacks what a job has, a key
-- of another type, or an id with nothing behind it.
local function fail_invalid(id, page_id, what)
  local job = key('job:' .. id)
  if redis.call('TYPE', job)['ok'] ~= 'hash' then redis.call('DEL', job) end
  redis.call('HSETNX', job, 'attempts', '0')
  redis.call('HSETNX', job, 'enqueued_at', int(NOW))
  if page_id then redis.call('HSETNX', job, 'page_id', page_id) end
  fail(id, page_id, 'invalid_job', what)
end

-- The hash behind an id as a table, or nil if it is no hash or has no fields.
local function read_job(id)
  local flat = redis.pcall('HGETALL', key('job:' .. id))
  if flat.err or #flat == 0 then return nil end
  local job = {}
  for i = 1, #flat, 2 do job[flat[i]] = flat[i + 1] end
  return job
end

-- When the latest doorbell was rung (ms), and how many are unanswered.
local function bells_out(bell)
  local rung_ms, unanswered = string.match(bell or '', '^(%d+) (%d+)$')
  return number(rung_ms), number(unanswered)
end

-- Whether a doorbell should be rung for work that is ready now: true at most once, until that
-- doorbell is answered or must be taken for lost.
local function should_ring()
  local bell = redis.call('GET', key('bell'))
  if bell == 'attentive' then return false end
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

local function write_pause(page_id, pause)
  pause.written_ms = NOW
  redis.call('HSET', key('pauses'), page_id, cjson.encode(pause))
end

local function pause_of(page_id)
  local text = redis.call('HGET', key('pauses'), page_id)
  if not text then return nil end
  local fine, pause = pcall(cjson.decode, text)
  if not fine or type(pause) ~= 'table' then return nil end
  for _, name in ipairs({ 'level', 'failures', 'written_ms', 'until_ms' }) do
    pause[name] = number(pause[name])
  end
  if pause.written_ms > NOW then
    -- The clock was set back since: it begins anew, so that it ends neither early nor much later.
    pause.until_ms = NOW + pause.until_ms - pause.written_ms
    write_pause(page_id, pause)
  end
  return pause
end
