-- Do one step of the work that follows a release or a cancellation, and delete old campaigns.
--
-- After a release, the campaign's lanes are added to their pages again. After a cancellation, its
-- jobs are canceled: first those in lanes, then those in `due`. Any process may continue the work:
-- every sweep calls this script too.
--
-- ARGV[1]  name of the campaign, or "" for any campaign that has work left
-- ARGV[2]  maximum number of jobs or lanes to process
-- returns  {ring (0 or 1), more (0 or 1), jobs canceled}
--
-- needs counts, lanes, jobs, endings, doorbell

local campaign, limit = ARGV[1], tonumber(ARGV[2])
local canceled = 0

-- Cancel jobs in one list of a lane. Returns whether it is empty.
local function cancel_list(name)
  while limit > 0 do
    local id = redis.call('LPOP', key(name))
    if not id then return true end
    limit = limit - 1
    local job = read_job(id)
    if job and job.state == 'queued' and job.campaign == campaign then
      cancel_job(id, job)
      canceled = canceled + 1
    else
      -- The job was deleted; only its id was left in the lane.
      redis.call('SREM', key('canceled_in_lane'), id)
    end
  end
  return false
end

-- Returns whether the lane is done.
local function process_lane(page_id)
  local lane = lane_name(page_id, campaign)
  if not is_canceled(campaign) then
    if redis.call('EXISTS', key('ready:' .. lane), key('again:' .. lane)) > 0 then
      open_lane(page_id, campaign)
    end
    return true
  end
  if not (cancel_list('ready:' .. lane) and cancel_list('again:' .. lane)) then return false end
  redis.call('ZREM', key('campaign_lanes:' .. page_id), campaign)
  redis.call('HDEL', key('again_turns'), lane)
  return true
end

-- Returns the cursor to continue at, and whether all lanes are done.
local function process_lanes(cursor)
  local found = redis.call('HSCAN', key('campaign_pages:' .. campaign), cursor, 'COUNT', 100)
  for i = 1, #found[2], 2 do
    local page_id = string.match(found[2][i], '^(.*)|queued$')
    -- Also if none is queued: the ids of canceled jobs may be left in the lane.
    if page_id and not process_lane(page_id) then
      return cursor, false
    end
  end
  return found[1], found[1] == '0'
end

-- Returns the cursor to continue at, and whether all of `due` is done.
local function cancel_due(cursor)
  local found = redis.call('ZSCAN', key('due'), cursor, 'COUNT', limit)
  for i = 1, #found[2], 2 do
    local id = found[2][i]
    if redis.call('HGET', key('job:' .. id), 'campaign') == campaign then
      local job = read_job(id)
      if job.state == 'scheduled' or job.state == 'retrying' then
        cancel_job(id, job)
        canceled = canceled + 1
      end
    end
  end
  return found[1], found[1] == '0'
end

-- Returns whether work is left.
local function work()
  local kind, cursor =
    string.match(redis.call('HGET', key('campaign_work'), campaign) or '', '^(%a+):(%d+)$')
  if not cursor or #cursor > 18 then kind, cursor = 'lanes', '0' end
  local done
  if kind == 'due' then
    cursor, done = cancel_due(cursor)
  else
    cursor, done = process_lanes(cursor)
    if done and is_canceled(campaign) then kind, cursor, done = 'due', '0', false end
  end
  if done then
    redis.call('HDEL', key('campaign_work'), campaign)
  else
    redis.call('HSET', key('campaign_work'), campaign, kind .. ':' .. cursor)
  end
  return not done
end

-- Maximum number of old campaigns that one call deletes.
local MAX_FORGOTTEN = 10

local function forget(name)
  for _, prefix in ipairs({
    'campaign:', 'campaign_pages:', 'campaign_errors:', 'campaign_rate:', 'recent:'
  }) do redis.call('DEL', key(prefix .. name)) end
  for _, hash in ipairs({
    'held_campaigns', 'canceled_campaigns', 'canaries', 'campaign_rules', 'campaign_work'
  }) do redis.call('HDEL', key(hash), name) end
  redis.call('ZREM', key('campaigns'), name)
end

local function forget_old()
  local ttl_ms = CAMPAIGN_TTL_S * 1000
  for _, name in ipairs(redis.call('ZRANGEBYSCORE', key('campaigns'), '-inf', int(NOW - ttl_ms),
      'LIMIT', 0, MAX_FORGOTTEN)) do
    local waiting = 0
    for _, jobs in ipairs(redis.call('HMGET', key('campaign:' .. name), 'scheduled', 'queued',
        'sending', 'retrying')) do
      waiting = waiting + number(jobs)
    end
    if waiting > 0 or redis.call('EXISTS', key('failed_of:' .. name)) == 1 then
      -- Its jobs can still be sent, now or after a replay. Check again later.
      redis.call('ZADD', key('campaigns'), int(NOW - ttl_ms * 29 / 30), name)
    else
      forget(name)
    end
  end
end

if campaign == '' then
  forget_old()
  campaign = redis.call('HKEYS', key('campaign_work'))[1]
end
local more = false
if campaign and redis.call('HEXISTS', key('campaign_work'), campaign) == 1 then more = work() end
write_collected()
local ready = redis.call('ZCOUNT', key('lanes'), '-inf', int(NOW)) > 0
return { ready and should_ring() and 1 or 0, more and 1 or 0, canceled }
