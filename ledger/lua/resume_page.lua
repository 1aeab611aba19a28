-- End a page's pause by an operator. If there is none, send the probe of its automatic pause at
-- once.
--
-- ARGV[1]  page_id
-- ARGV[2]  operation id of the audit entry
-- ARGV[3]  that entry as JSON, without `at_ms` and `count`
-- returns  {ring (0 or 1), "manual", "automatic" or "nothing": the kind of pause}
--
-- needs audit, doorbell, pauses

local page_id = ARGV[1]
local pause = pause_of(page_id)
if not pause or not (pause.manual or pause.level > 0) then return { 0, 'nothing' } end

local lifted = pause.manual and 'manual' or 'automatic'
if pause.manual then
  pause.manual = nil
else
  pause.until_ms = NOW
end
write_pause(page_id, pause)
reschedule_lane(page_id, pause)
write_audit(ARGV[2], ARGV[3], 1)
return { should_ring() and 1 or 0, lifted }
