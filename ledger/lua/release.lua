-- Undo a claim whose reply was lost: its jobs return to the front of their lanes, unsent. If the
-- claim is executed after this (from a buffer of a server that hung), it does nothing.
--
-- ARGV[1]  claim token, "holder:number", of the lost claim
-- ARGV[2]  lease (ms)
-- returns  {jobs released}
--
-- needs counts, lanes, jobs, endings

local token = ARGV[1]
local holder, claim_number = string.match(token, '^(.*):(%d+)$')
redis.call('SET', key('revoked_claims:' .. holder), claim_number, 'PX', ARGV[2])

local released = 0
local ids = decode(redis.call('GET', key('last_claim:' .. holder))) or {}
if ids[1] == token then
  -- In reverse, so that the original order is restored.
  for i = #ids, 2, -1 do
    local job = type(ids[i]) == 'string' and read_job(ids[i])
    -- If the job's page_id is missing, the sweep claims it later.
    if job and job.page_id and job.state == 'sending' and job.claim == token then
      redis.call('HSET', key('job:' .. ids[i]), 'state', 'queued')
      redis.call('HDEL', key('job:' .. ids[i]), 'claim')
      redis.call('ZREM', key('due'), ids[i])
      moved(job, 'sending', 'queued')
      if is_canceled(job.campaign) then
        job.state = 'queued'
        cancel_job(ids[i], job)
      else
        to_lane({ ids[i] }, job, true)
      end
      released = released + 1
    end
  end
end
write_collected()
return { released }
