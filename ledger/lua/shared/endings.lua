-- End jobs, and maintain the indexes of failed jobs.
--
-- needs counts, jobs

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
