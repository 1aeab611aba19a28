-- Queue failed jobs again, with all their attempts to spend anew and a new deadline.
--
-- ARGV[1]    how long each job lives from now (ms)
-- ARGV[2..]  ids
-- returns    {ring (0 or 1), for each job its state before this call}: those that were "failed" are
--            queued now. It is "" where there is no job, or one of other hands that has no page.

local life_ms = tonumber(ARGV[1])
local answer = { 0 }

for i = 2, #ARGV do
  local id = ARGV[i]
  local job = read_job(id)
  local state = job and job.page_id and job.state or ''
  answer[#answer + 1] = state
  if state == 'failed' then
    unindex_failed(id, job)
    redis.call('HDEL', key('job:' .. id), 'error_code', 'error_message', 'http_status', 'finished_at')
    redis.call('HSET', key('job:' .. id), 'state', 'queued', 'attempts_before_replay',
      job.attempts or '0', 'expires_at', int(NOW + life_ms))
    to_lane({ id }, job.page_id, job.urgent == '1')
    moved(nil, 'queued')
  end
end
write_counts()
if #answer > 1 and redis.call('ZCOUNT', key('lanes'), '-inf', int(NOW)) > 0 and should_ring() then
  answer[1] = 1
end
return answer
