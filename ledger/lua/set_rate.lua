-- Give a page a rate of its own, or the default again.
--
-- ARGV[1]  page_id
-- ARGV[2]  JSON object {rate, burst, by}; "" for the default
-- ARGV[3]  operation id of the audit entry
-- ARGV[4]  that entry as JSON, without `at_ms` and `count`
-- returns  {ring (0 or 1), whether the page had a rate of its own (0 or 1)}

local page_id = ARGV[1]
local had = redis.call('HEXISTS', key('rates'), page_id)
if ARGV[2] == '' then
  redis.call('HDEL', key('rates'), page_id)
else
  local rate = cjson.decode(ARGV[2])
  rate.at_ms = NOW
  redis.call('HSET', key('rates'), page_id, cjson.encode(rate))
end
-- Its turn may have been set by a much lower rate: the next claim decides again.
reschedule_lane(page_id, pause_of(page_id))
if ARGV[2] ~= '' or had == 1 then write_audit(ARGV[3], ARGV[4], 1) end
return { should_ring() and 1 or 0, had }
