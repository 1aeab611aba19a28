-- End the pause of all pages. Pauses of single pages stay in effect.
--
-- ARGV[1]  operation id of the audit entry
-- ARGV[2]  that entry as JSON, without `at_ms` and `count`
-- returns  {ring (0 or 1), whether all pages were paused (0 or 1)}
--
-- needs audit, doorbell

local was_paused = redis.call('DEL', key('paused_all'))
local ready = redis.call('ZCOUNT', key('lanes'), '-inf', int(NOW)) > 0
if was_paused == 1 then write_audit(ARGV[1], ARGV[2], 1) end
return { ready and should_ring() and 1 or 0, was_paused }
