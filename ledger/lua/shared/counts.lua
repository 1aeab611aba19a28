-- The counts of jobs by state, in total and by campaign, and the marks of campaigns.

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
