-- Queue failed jobs again, with the full number of attempts and a new deadline.
--
-- ARGV[1]    lifetime of each job from now (ms)
-- ARGV[2]    operation id of the audit entry
-- ARGV[3]    that entry as JSON, without `at_ms` and `count`
-- ARGV[4..]  ids
-- returns    {ring (0 or 1), for each job its state before this call}: jobs that were "failed" are
--            queued now. The state is "" if there is no such job or it has no page_id, and
--            "cancelled" for a failed job of a canceled campaign, which stays failed.
--
-- needs counts, lanes, jobs, endings, audit, doorbell

local life_ms = tonumber(ARGV[1])
local answer, replayed = { 0 }, 0
local audit = cjson.decode(ARGV[3])

-- Maximum number of replays kept in a job's record.
local REPLAYS_KEPT = 20

-- Store in the job's record when it was replayed, and by whom.
local function add_replay(id, job)
  local last = 0
  for field in pairs(job) do
    last = math.max(last, number(string.match(field, '^replayed:(%d+)$')))
  end
  redis.call('HSET', key('job:' .. id), 'replayed:' .. int(last + 1),
    cjson.encode({ NOW, audit.by, audit.via, number(job.attempts) }))
  redis.call('HDEL', key('job:' .. id), 'replayed:' .. int(last + 1 - REPLAYS_KEPT))
end

for i = 4, #ARGV do
  local id = ARGV[i]
  local job = read_job(id)
  local state = job and job.page_id and job.state or ''
  -- No job of a canceled campaign is sent.
  if state == 'failed' and is_canceled(job.campaign) then state = 'cancelled' end
  answer[#answer + 1] = state
  if state == 'failed' then
    unindex_failed(id, job)
    job.attempts_before_replay = job.attempts or '0'
    redis.call('HDEL', key('job:' .. id), 'error_code', 'error_message', 'http_status',
      'finished_at')
    redis.call('HSET', key('job:' .. id), 'state', 'queued', 'attempts_before_replay',
      job.attempts_before_replay, 'expires_at', int(NOW + life_ms))
    to_lane({ id }, job)
    moved(job, 'failed', 'queued')
    add_replay(id, job)
    replayed = replayed + 1
  end
end
write_collected()
if replayed > 0 then write_audit(ARGV[2], ARGV[3], replayed) end
if #answer > 1 and redis.call('ZCOUNT', key('lanes'), '-inf', int(NOW)) > 0 and should_ring() then
  answer[1] = 1
end
return answer
