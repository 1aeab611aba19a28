-- Hold a campaign, release it, end its canary, or cancel it. Takes constant time: claim.lua and
-- campaign_work.lua process its waiting jobs.
--
-- ARGV[1]  hold, release, end_canary or cancel
-- ARGV[2]  name of the campaign
-- ARGV[3]  reason, for hold
-- ARGV[4]  who makes the change
-- ARGV[5]  hold only if it was not released since this time (ms since the epoch); "" for always
-- ARGV[6]  operation id of the audit entry
-- ARGV[7]  that entry as JSON, without `at_ms` and `count` (the campaign's waiting jobs)
-- returns  {previous state: unknown, canceled, held or running; changed (0 or 1)}. A canceled
--          campaign is not changed, and a campaign that is already held keeps its reason.
--
-- needs counts, audit

local action, campaign, reason, by, unless_released_since = unpack(ARGV)

local function state_of()
  if redis.call('EXISTS', key('campaign:' .. campaign)) == 0 then return 'unknown' end
  if is_canceled(campaign) then return 'canceled' end
  if mark_of('held_campaigns', campaign) or mark_of('canaries', campaign) then return 'held' end
  return 'running'
end

local state = state_of()
if state == 'unknown' or state == 'canceled' then return { state, 0 } end

local function audit()
  local waiting = 0
  for _, jobs in ipairs(redis.call('HMGET', key('campaign:' .. campaign), 'scheduled', 'queued',
      'retrying')) do
    waiting = waiting + number(jobs)
  end
  write_audit(ARGV[6], ARGV[7], waiting)
end

local function mark(hash)
  redis.call('HSET', key(hash), campaign,
    cjson.encode({ reason = reason ~= '' and reason or nil, by = by, at_ms = NOW }))
end

if action == 'hold' then
  local released_ms = number(redis.call('HGET', key('campaign:' .. campaign), 'released_at'))
  if unless_released_since ~= '' and released_ms >= number(unless_released_since) then
    return { state, 0 }
  end
  if mark_of('held_campaigns', campaign) then return { state, 0 } end
  mark('held_campaigns')
  audit()
  return { state, 1 }
end

if action ~= 'end_canary' then redis.call('HDEL', key('held_campaigns'), campaign) end
redis.call('HDEL', key('canaries'), campaign)
if action == 'cancel' then
  mark('canceled_campaigns')
elseif state == 'running' then
  return { state, 0 }
else
  -- The share of failures starts again.
  redis.call('DEL', key('recent:' .. campaign))
  redis.call('HSET', key('campaign:' .. campaign), 'released_at', int(NOW))
end
redis.call('HSET', key('campaign_work'), campaign, 'lanes:0')
audit()
return { state, 1 }
