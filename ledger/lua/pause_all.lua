-- Pause all pages, until an operator resumes them or a time has passed.
--
-- ARGV[1]  JSON object {reason, by}
-- ARGV[2]  duration (ms); 0: until they are resumed
-- ARGV[3]  operation id of the audit entry
-- ARGV[4]  that entry as JSON, without `at_ms` and `count`
-- returns  {}
--
-- needs audit

local for_ms = tonumber(ARGV[2])
local manual = cjson.decode(ARGV[1])
manual.at_ms = NOW
if for_ms > 0 then
  manual.until_ms = NOW + for_ms
  redis.call('SET', key('paused_all'), cjson.encode(manual), 'PX', int(for_ms))
else
  redis.call('SET', key('paused_all'), cjson.encode(manual))
end
write_audit(ARGV[3], ARGV[4], 1)
return {}
