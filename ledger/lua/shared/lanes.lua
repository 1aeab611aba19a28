-- The lanes in which queued jobs wait.
--
-- needs counts

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
