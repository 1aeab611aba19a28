-- Pause a page, until an operator resumes it or a time has passed. Takes constant time.
--
-- ARGV[1]  page_id
-- ARGV[2]  JSON object {reason, by}
-- ARGV[3]  duration (ms); 0: until it is resumed
-- ARGV[4]  operation id of the audit entry
-- ARGV[5]  that entry as JSON, without `at_ms` and `count`
-- returns  {}
--
-- needs audit, pauses

local page_id, for_ms = ARGV[1], tonumber(ARGV[3])
local pause = pause_of(page_id) or new_pause()
pause.manual = cjson.decode(ARGV[2])
pause.manual.at_ms = NOW
if for_ms > 0 then pause.manual.until_ms = NOW + for_ms end
write_pause(page_id, pause)
reschedule_lane(page_id, pause)
write_audit(ARGV[4], ARGV[5], 1)
return {}
