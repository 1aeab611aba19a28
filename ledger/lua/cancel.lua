-- Cancel jobs that are scheduled, queued or retrying.
--
-- ARGV[1]    operation id of the audit entry
-- ARGV[2]    that entry as JSON, without `at_ms` and `count`
-- ARGV[3..]  ids
-- returns    {number of jobs canceled by this call, for each id the job's state after this call or
--            "" if there is no such job}
--
-- The id of a queued job stays in its lane, and the next claim skips it. To remove it from the
-- middle of a long list would cost more. The id is also added to `canceled_in_lane`, because the
-- lane may outlive the job's record.
--
-- needs counts, jobs, endings, audit

local answer = { 0 }

for i = 3, #ARGV do
  local id = ARGV[i]
  local job = read_job(id)
  local state = job and job.state or ''
  if CANCELABLE[state] then
    if state == 'queued' then redis.call('SADD', key('canceled_in_lane'), id) end
    cancel_job(id, job)
    state = 'cancelled'
    answer[1] = answer[1] + 1
  end
  answer[#answer + 1] = state
end
write_collected()
if answer[1] > 0 then write_audit(ARGV[1], ARGV[2], answer[1]) end
return answer
