-- Store new jobs: into their lanes, or among the due if they are for later.
--
-- ARGV[1]    how long a job lives where it says nothing (ms), from now or its send_at
-- ARGV[2..]  one JSON array a job: [id, page_id, idempotency_key or "", send_at_ms or 0,
--            expires_at_ms or 0, urgent (0 or 1), [field, value, field, value, …]]
-- returns    {ring (0 or 1), id, id, …}: the id of each job, in order; an earlier job's id where
--            the idempotency key is taken. A job whose id is stored already is left as it is, so
--            the same call may be made again when its reply was lost.

local default_life_ms = tonumber(ARGV[1])
local ids = { 0 }
local ready = false

for i = 2, #ARGV do
  local id, page_id, idempotency_key, send_at, expires_at, urgent, fields =
    unpack(cjson.decode(ARGV[i]))
  local idem = idempotency_key ~= '' and key('idem:' .. idempotency_key)
  local known = idem and redis.call('GET', idem)
  if known then
    ids[#ids + 1] = known
  else
    ids[#ids + 1] = id
    local job = key('job:' .. id)
    if redis.call('EXISTS', job) == 0 then
      local later = send_at > NOW
      local state = later and 'scheduled' or 'queued'
      if expires_at == 0 then expires_at = math.max(NOW, send_at) + default_life_ms end
      redis.call('HSET', job, 'state', state, 'page_id', page_id, 'attempts', '0',
        'enqueued_at', int(NOW), 'expires_at', int(expires_at), unpack(fields))
      if idem then redis.call('SET', idem, id) end
      if later then
        redis.call('ZADD', key('due'), int(send_at), id)
      else
        to_lane(id, page_id, urgent == 1)
        ready = true
      end
      moved(nil, state)
    end
  end
end

write_counts()
-- One doorbell is enough, however old: if it was lost, the sweep of the first worker rings again.
-- Ringing anew would heap them up while no worker runs.
if ready and redis.call('EXISTS', key('bell')) == 0 and should_ring() then ids[1] = 1 end
return ids
