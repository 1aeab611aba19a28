-- Queue jobs that are due, claim jobs whose lease ended, delete jobs past their retention, and
-- return whether to ring a doorbell. Bounded, and safe to run in all workers at once.
--
-- ARGV[1]  maximum number of entries of each kind to process
-- ARGV[2]  1: claim jobs whose lease ended; 0: leave them for now
-- ARGV[3]  claim token, "holder:number", required to record the results of the claimed jobs
-- ARGV[4]  lease (ms). If the caller dies before it records them, another sweep claims them after
--          this time
-- ARGV[5]  random seed for the choice of the entries to check
-- ARGV[6]  how long a failed job is kept (ms)
-- returns  {ring (0 or 1), number of jobs queued,
--           more (0 or 1): whether to sweep again at once,
--           rebuild (0 or 1): whether to call rebuild.lua,
--           {text, …}: repairs since the last sweep, for the log,
--           now_ms, claim, …}: jobs whose lease ended and entries of `due` without a complete job,
--          claimed for the caller; see claim_job
--
-- needs counts, lanes, jobs, endings, claims, doorbell, pauses, tokens

-- The clock was set back if the latest sweep is this much (ms) in the future.
local SET_BACK_MS = 1000

local limit, end_leases = tonumber(ARGV[1]), ARGV[2] == '1'
local lease, failed_ttl_ms = { token = ARGV[3], ms = tonumber(ARGV[4]) }, tonumber(ARGV[6])
math.randomseed(tonumber(ARGV[5]))

local made_ready = 0
local more = false

-- Process an entry that is due. Returns whether it was moved or claimed.
local function move_on(id)
  local job, flat = read_job(id)
  local state = job and job.state
  local defect = not ENDED[state] and (not (state and job.page_id) and INCOMPLETE or job.defect)
  if defect or state == 'sending' then
    if not (defect or end_leases) then return false end
    claim_job(id, job, flat, lease, {}, defect)
  else
    redis.call('ZREM', key('due'), id)
    if (state == 'scheduled' or state == 'retrying') and is_canceled(job.campaign) then
      cancel_job(id, job)
    elseif state == 'scheduled' or state == 'retrying' then
      redis.call('HSET', key('job:' .. id), 'state', 'queued')
      moved(job, state, 'queued')
      to_lane({ id }, job)
      made_ready = made_ready + 1
    end
  end
  return true
end

if number(redis.call('GET', key('clock'))) > NOW + SET_BACK_MS then
  -- Otherwise lanes would stay closed until the clock reaches its old time. All lanes are opened,
  -- and the next claim closes those that are paused or over their rate.
  redis.call('ZUNIONSTORE', key('lanes'), 1, key('lanes'), 'WEIGHTS', 0)
  -- `bell` would also expire too late.
  redis.call('DEL', key('bell'))
end
redis.call('SET', key('clock'), int(NOW))

local due = redis.call('ZRANGEBYSCORE', key('due'), '-inf', int(NOW), 'LIMIT', 0, limit)
local moved_on = false
for _, id in ipairs(due) do
  if move_on(id) then moved_on = true end
end
more = moved_on and #due == limit

local function forget_failed(id)
  local job = read_job(id) or {}
  unindex_failed(id, job)
  -- Another client may have put the id of any job here.
  if job.state and job.state ~= 'failed' then return end
  if job.idempotency_key then
    local name = key('idem:' .. idempotency_key_of(job))
    local lives_ms = job.campaign and number(job.finished_at) + CAMPAIGN_TTL_S * 1000 - NOW or 0
    if lives_ms > 0 then
      redis.call('PEXPIRE', name, int(lives_ms))
    else
      redis.call('DEL', name)
    end
  end
  redis.call('DEL', key('job:' .. id))
end

local forgotten = redis.call('ZRANGEBYSCORE', key('failed'), '-inf', int(NOW - failed_ttl_ms),
  'LIMIT', 0, limit)
for _, id in ipairs(forgotten) do forget_failed(id) end
more = more or #forgotten == limit

-- Records of sent and canceled jobs expire in Redis. Remove their ids from these lists.
for _, name in ipairs({ 'sent', 'cancelled' }) do
  for i = 1, limit do
    local id = redis.call('LINDEX', key(name), -1)
    if not id or redis.call('EXISTS', key('job:' .. id)) == 1 then break end
    redis.call('RPOP', key(name))
    more = more or i == limit
  end
end

-- Number of entries of an index of failed jobs that each sweep checks, from a random position.
local CHECKED = 100

-- Another client, or a Redis that is short of memory, may delete failed jobs; their ids stay in
-- these indexes. Remove ids whose job is not failed, or has another value of the field.
local function check(index, field, value)
  local last = math.max(0, redis.call('ZCARD', key(index)) - CHECKED)
  local first = math.random(0, last)
  for _, id in ipairs(redis.call('ZRANGE', key(index), first, first + CHECKED - 1)) do
    local job = redis.call('HMGET', key('job:' .. id), 'state', field)
    local failed = job[1] == 'failed'
    if not failed then redis.call('ZREM', key('failed'), id) end
    if not failed or job[2] ~= value then redis.call('ZREM', key(index), id) end
  end
end

local function check_one_of(names, index_prefix, field)
  local count = redis.call('ZCARD', key(names))
  if count == 0 then return end
  local rank = math.random(0, count - 1)
  local name = redis.call('ZRANGE', key(names), rank, rank)[1]
  check(index_prefix .. name, field, name)
  if redis.call('EXISTS', key(index_prefix .. name)) == 0 then
    redis.call('ZREM', key(names), name)
  end
end

check('failed', 'state', 'failed')
check_one_of('failed_codes', 'failed:', 'error_code')
check_one_of('failed_pages', 'failed_on:', 'page_id')
check_one_of('failed_campaigns', 'failed_of:', 'campaign')

-- Number of pages whose ended pauses each sweep deletes. A claim does not do this for pages that
-- have no jobs.
local TIDIED = 20

for _, page_id in ipairs(redis.call('HRANDFIELD', key('pauses'), TIDIED) or {}) do
  local pause = pause_of(page_id)
  if pause then tidy_pause(page_id, pause) else redis.call('HDEL', key('pauses'), page_id) end
end

for _, fingerprint in ipairs(redis.call('HRANDFIELD', key('tokens'), TIDIED) or {}) do
  -- The token was not used for a while, so its state is no longer needed.
  local api_token = token_of(fingerprint)
  if NOW - api_token.at_ms > LIMIT_KNOWN_MS and api_token.until_ms <= NOW then
    redis.call('HDEL', key('tokens'), fingerprint)
  end
end

write_collected()

-- Maximum delay (ms) of a rebuild that is needed.
local MAX_BETWEEN_REBUILDS_MS = 600000

-- Queued jobs of campaigns that are held or canceled: their lanes may be closed.
local function held_jobs()
  local jobs = 0
  for campaign in pairs(marked_campaigns()) do
    jobs = jobs + number(redis.call('HGET', key('campaign:' .. campaign), 'queued'))
  end
  return jobs
end

-- Whether the counts match the indexes.
local function agrees()
  local counts = redis.call('HMGET', key('counts'), 'scheduled', 'sending', 'retrying', 'queued',
    'rebuild_from')
  if not counts[5] then return false end
  -- An expensive rebuild must not run often: see the end of recount in rebuild.lua.
  local wait_ms = number(counts[5]) - NOW
  if wait_ms > 0 and wait_ms < MAX_BETWEEN_REBUILDS_MS then return true end
  local due = number(counts[1]) + number(counts[2]) + number(counts[3])
  return due == redis.call('ZCARD', key('due'))
    and (number(counts[4]) == 0 or redis.call('ZCARD', key('lanes')) > 0
      or number(counts[4]) <= held_jobs())
end

-- Remove entries with an impossible time. The rebuild restores them with another time.
for _, name in ipairs({ 'due', 'lanes' }) do
  if redis.call('ZREMRANGEBYSCORE', key(name), '(' .. int(LATEST_MS), '+inf') > 0 then
    note_repair(name .. ' had a time after the year 9999')
    start_rebuild()
  end
end
local rebuild = redis.call('EXISTS', key('rebuild'))
if rebuild == 0 and not agrees() then
  if redis.call('EXISTS', key('counts')) == 1 then
    note_repair('counts, lanes and due did not match: all jobs are scanned')
  end
  start_rebuild()
  rebuild = 1
end

local repairs = redis.call('LRANGE', key('repairs'), 0, -1)
if #repairs > 0 then redis.call('DEL', key('repairs')) end

local ring = 0
if redis.call('ZCOUNT', key('lanes'), '-inf', int(NOW)) > 0 and should_ring() then ring = 1 end
return { ring, made_ready, more and 1 or 0, rebuild, repairs, int(NOW), unpack(claimed) }
