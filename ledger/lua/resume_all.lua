-- End the pause of every page. Pages that are paused for themselves stay paused.
--
-- returns  {ring (0 or 1), whether there was such a pause (0 or 1)}

local was_paused = redis.call('DEL', key('paused_all'))
local ready = redis.call('ZCOUNT', key('lanes'), '-inf', int(NOW)) > 0
return { ready and should_ring() and 1 or 0, was_paused }
