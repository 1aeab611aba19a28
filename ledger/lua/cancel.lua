-- Call off jobs that have not been sent: scheduled, queued or retrying ones.
--
-- ARGV[1]    how long a cancelled job is kept (s)
-- ARGV[2..]  ids
-- returns    for each job its state after this call, or "" if there is none; before it the
--            number that this call cancelled
--
-- A queued job's id stays in its lane, where the next claim skips it: taking it out of the middle
-- of a long list would cost more than that. It is noted, since the lane may outlive the job's record.

local ttl_s = ARGV[1]
local answer = { 0 }

for i = 2, #ARGV do
  local id = ARGV[i]
  local job = read_job(id)
  local state = job and job.state or ''
  if state == 'scheduled' or state == 'queued' or state == 'retrying' then
    redis.call('HSET', key('job:' .. id), 'state', 'cancelled', 'finished_at', int(NOW))
    if state == 'queued' then redis.call('SADD', key('called_off'), id) end
    redis.call('ZREM', key('due'), id)
    redis.call('EXPIRE', key('job:' .. id), ttl_s)
    if job.idempotency_key then
      redis.call('EXPIRE', key('idem:' .. job.idempotency_key), ttl_s)
    end
    redis.call('LPUSH', key('cancelled'), id)
    moved(state, nil)
    answer[1] = answer[1] + 1
    state = 'cancelled'
  end
  answer[#answer + 1] = state
end
write_counts()
return answer
