-- Record that a pump stops claiming: the next enqueue rings a doorbell again.
--
-- returns  {ring (0 or 1)}: whether to ring for jobs that are ready now
--
-- needs doorbell

if redis.call('GET', key('bell')) == 'attentive' then redis.call('DEL', key('bell')) end
local ready = redis.call('ZCOUNT', key('lanes'), '-inf', int(NOW)) > 0
return { ready and should_ring() and 1 or 0 }
