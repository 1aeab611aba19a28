-- Set a page's own rate, or reset it to the default.
--
-- ARGV[1]  page_id
-- ARGV[2]  JSON object {rate, burst, by}; "" to reset to the default
-- ARGV[3]  operation id of the audit entry
-- ARGV[4]  that entry as JSON, without `at_ms` and `count`
-- returns  {ring (0 or 1), whether the page had its own rate (0 or 1)}
--
-- needs audit, doorbell, pauses

local page_id = ARGV[1]
local had = redis.call('HEXISTS', key('rates'), page_id)
if ARGV[2] == '' then
  redis.call('HDEL', key('rates'), page_id)
else
  local rate = cjson.decode(ARGV[2])
  rate.at_ms = NOW
  redis.call('HSET', key('rates'), page_id, cjson.encode(rate))
end
-- The lane's time may come from a much lower rate, so the next claim computes it again.
reschedule_lane(page_id, pause_of(page_id))
if ARGV[2] ~= '' or had == 1 then write_audit(ARGV[3], ARGV[4], 1) end
return { should_ring() and 1 or 0, had }
