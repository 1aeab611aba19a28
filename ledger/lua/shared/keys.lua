-- Time, keys, repairs and the version of the keys. This file is loaded in front of each script,
-- followed by the shared files that the script names after "needs".
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

-- Start or restart the scan of all jobs that rebuilds the content of the key `name`.
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
