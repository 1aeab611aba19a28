-- Scan all jobs, some in each call, and restore those that are missing from an index. At the end,
-- count the jobs again. A rebuild begins if a key of an index had the wrong type, or if the counts
-- do not match the indexes (see sweep.lua).
--
-- ARGV[1]  number of keys of the database to scan (COUNT of SCAN)
-- ARGV[2]  lease (ms)
-- ARGV[3]  longest wait for a retry (ms)
-- returns  {more (0 or 1)}: whether to call this again
--
-- needs counts, lanes, jobs, endings

local lease_ms, retry_max_ms = tonumber(ARGV[2]), tonumber(ARGV[3])
local DUE = { scheduled = true, sending = true, retrying = true }
-- Maximum number of jobs in `due` that are counted by state: about 20 ms of the server's time.
local COUNTED = 20000
-- After a rebuild, the next one waits this many times as long as the rebuild took.
local REST_FACTOR = 10

local flat = redis.call('HGETALL', key('rebuild'))
local rebuild = {}
for i = 1, #flat, 2 do rebuild[flat[i]] = flat[i + 1] end
if #flat == 0 then return { 0 } end

local found = 0

-- Whether an entry that was added at `since_ms` is missing from a list. Decided by the time,
-- because a search in the list would take too long. A job that returned to its lane later may
-- therefore be in the lane twice. A claim ignores an id whose job is no longer queued.
local function is_lost(list, since_ms)
  return rebuild[list] and since_ms <= number(rebuild[list])
end

local function due_ms(job)
  if job.state == 'scheduled' then return number(job.send_at) end
  if job.state == 'sending' then return NOW + lease_ms end
  -- Retry-After is unknown: use the longest wait of a retry, but not past the deadline.
  return NOW + math.max(0, math.min(retry_max_ms, (number(job.expires_at) - NOW) / 2))
end

local function put_back_queued(id, job)
  local lane = list_of(job)
  if not rebuild[lane] and redis.call('EXISTS', key(lane)) == 0 then
    -- A queued job is always in its lane, so this lane was deleted.
    rebuild[lane] = int(NOW)
    redis.call('HSET', key('rebuild'), lane, rebuild[lane])
  end
  if is_lost(lane, math.max(number(job.enqueued_at), number(job.send_at))) then
    to_lane({ id }, job)
    found = found + 1
  else
    open_lane(job.page_id, job.campaign)
  end
end

local function put_back(id)
  local job = read_job(id)
  if not job or not job.state then return end
  local ended_ms = number(job.finished_at)
  if DUE[job.state] then
    found = found + redis.call('ZADD', key('due'), 'NX', int(due_ms(job)), id)
  elseif job.state == 'queued' and job.page_id then
    put_back_queued(id, job)
  elseif job.state == 'failed' then
    local failed_ms = ended_ms > 0 and ended_ms or NOW
    found = found + index_failed(id, job, failed_ms)
  elseif is_lost(job.state, ended_ms) then
    -- The list `sent` or `cancelled`.
    redis.call('RPUSH', key(job.state), id)
    found = found + 1
  end
  local idem = job.idempotency_key and key('idem:' .. idempotency_key_of(job))
  if idem and redis.call('EXISTS', idem) == 0 then
    -- The job's fingerprint was lost with the key, so use one that matches every body.
    redis.call('SET', idem, job.campaign and id .. ANY_FINGERPRINT or id)
    local ttl_ms = redis.call('PTTL', key('job:' .. id))
    if ttl_ms > 0 then
      if job.campaign then ttl_ms = math.max(ttl_ms, ended_ms + CAMPAIGN_TTL_S * 1000 - NOW) end
      redis.call('PEXPIRE', idem, int(ttl_ms))
    end
  end
end

local function queued_in(lane)
  return redis.call('LLEN', key('ready:' .. lane)) + redis.call('LLEN', key('again:' .. lane))
end

local function recount()
  local counts = { scheduled = 0, sending = 0, retrying = 0, queued = 0 }
  local ids = redis.call('ZRANGE', key('due'), 0, COUNTED - 1)
  -- The others are due much later, so they are scheduled.
  counts.scheduled = redis.call('ZCARD', key('due')) - #ids
  for _, id in ipairs(ids) do
    local state = redis.call('HGET', key('job:' .. id), 'state')
    if not DUE[state] then state = 'scheduled' end
    counts[state] = counts[state] + 1
  end
  local pages = redis.call('ZRANGE', key('lanes'), 0, -1)
  for _, page_id in ipairs(pages) do
    counts.queued = counts.queued + redis.call('LLEN', key('urgent:' .. page_id))
      + queued_in(page_id)
    for _, campaign in ipairs(redis.call('ZRANGE', key('campaign_lanes:' .. page_id), 0, -1)) do
      counts.queued = counts.queued + queued_in(lane_name(page_id, campaign))
    end
  end
  -- The lanes of these campaigns may be closed.
  for campaign in pairs(marked_campaigns()) do
    local pages = redis.call('HGETALL', key('campaign_pages:' .. campaign))
    for i = 1, #pages, 2 do
      local page_id = string.match(pages[i], '^(.*)|queued$')
      if page_id and not (redis.call('ZSCORE', key('lanes'), page_id)
          and redis.call('ZSCORE', key('campaign_lanes:' .. page_id), campaign)) then
        counts.queued = counts.queued + queued_in(lane_name(page_id, campaign))
      end
    end
  end
  -- Without an id in a lane, nothing is left to skip.
  if counts.queued == 0 then redis.call('DEL', key('canceled_in_lane')) end
  counts.queued = math.max(0, counts.queued - redis.call('SCARD', key('canceled_in_lane')))
  redis.call('DEL', key('counts'))
  for state, jobs in pairs(counts) do redis.call('HSET', key('counts'), state, int(jobs)) end
  local took_ms = NOW - number(rebuild.started_ms or NOW)
  redis.call('HSET', key('counts'), 'rebuild_from', int(NOW + REST_FACTOR * took_ms))
end

local cursor = string.match(rebuild.cursor or '', '^%d+$')
-- A longer number is not a valid cursor for SCAN.
if not cursor or #cursor > 18 then cursor = '0' end
local job_prefix = key('job:')
local scanned = redis.call('SCAN', cursor, 'MATCH', job_prefix .. '*', 'COUNT', ARGV[1])
redis.call('HSETNX', key('rebuild'), 'started_ms', int(NOW))
-- Stored before the jobs are read: a broken key among them restarts the rebuild.
redis.call('HSET', key('rebuild'), 'cursor', scanned[1])
for _, name in ipairs(scanned[2]) do put_back(string.sub(name, #job_prefix + 1)) end

local all_found = redis.call('HINCRBY', key('rebuild'), 'found', found)

if scanned[1] ~= '0' then return { 1 } end
recount()
if rebuild_started then return { 1 } end
if all_found > 0 then note_repair(int(all_found) .. ' jobs were put back into their indexes') end
redis.call('DEL', key('rebuild'))
return { 0 }
