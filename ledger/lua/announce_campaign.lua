-- Store a campaign's number of rows and its rules, before its jobs are enqueued.
--
-- ARGV[1]  name of the campaign
-- ARGV[2]  number of rows that the campaign will have, or "" to keep the stored number
-- ARGV[3]  canary: rows to send before the others wait for a release, or ""
-- ARGV[4]  JSON object of rules, {canary, canary_max_failures, hold_at}, or ""
-- returns  {state: canceled, held or running}. A canceled campaign is not changed. The canary is
--          ignored if the campaign has begun to send
--
-- needs counts

local campaign, rows, canary, rules = unpack(ARGV)
if is_canceled(campaign) then return { 'canceled' } end
local name = key('campaign:' .. campaign)
redis.call('HSETNX', name, 'created_at', int(NOW))
redis.call('ZADD', key('campaigns'), int(NOW), campaign)
if rows ~= '' then redis.call('HSET', name, 'rows', rows) end
if rules ~= '' then redis.call('HSET', key('campaign_rules'), campaign, rules) end
if canary ~= '' and redis.call('HEXISTS', name, 'started_at') == 0 then
  redis.call('HSETNX', key('canaries'), campaign, canary)
end
local held = mark_of('held_campaigns', campaign)
  or redis.call('HEXISTS', key('canaries'), campaign) == 1
return { held and 'held' or 'running' }
