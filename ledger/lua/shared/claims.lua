-- Claim jobs.
--
-- needs counts, jobs

-- Jobs that this call claimed, as claim.lua and sweep.lua return them:
--   {id, consecutive pauses of its lane, and of its token, lease_ended (0 or 1), defect or "",
--    whether its page has a rate (0 or 1), {field, value, …}}, …
local claimed = {}

local INCOMPLETE = 'no complete job was stored under this id'

-- Claim a job: until `lease` {token, ms} ends, only the holder of the token may record its result.
--
-- `job` and `flat` are the results of read_job for `id`. `how` is {page_id: of the job's lane;
-- level, token_level: consecutive pauses; is_paced}; each is optional. `defect` is nil, or the
-- reason why the job cannot be sent. The holder records it. It is also stored in the job, in case
-- the holder dies first, and required fields that are missing are added.
local function claim_job(id, job, flat, lease, how, defect)
  local name = key('job:' .. id)
  if defect then
    redis.call('HSETNX', name, 'attempts', '0')
    redis.call('HSETNX', name, 'enqueued_at', int(NOW))
    if how.page_id then redis.call('HSETNX', name, 'page_id', how.page_id) end
    redis.call('HSET', name, 'defect', defect)
  end
  moved(job or {}, job and job.state, 'sending')
  redis.call('HSET', name, 'state', 'sending', 'claim', lease.token)
  local last = #new_due
  new_due[last + 1], new_due[last + 2] = int(NOW + lease.ms), id
  local lease_ended = not defect and job.state == 'sending'
  if defect then job, flat = read_job(id) end
  claimed[#claimed + 1] = {
    id, how.level or 0, how.token_level or 0, lease_ended and 1 or 0, defect or '',
    how.is_paced and 1 or 0, flat
  }
end
