-- Store new jobs in their lanes, or in `due` if they are scheduled for later.
--
-- ARGV[1]    lifetime of a job without expires_at (ms), from now or its send_at
-- ARGV[2]    1: skip jobs in conflict and store the others; 0: if one is in conflict, store none
-- ARGV[3]    JSON array with one array per job: [id, page_id, idempotency_key or "",
--            send_at_ms or 0, expires_at_ms or 0, urgent (0 or 1), campaign or "",
--            fingerprint of the body (12 characters) if it has a campaign and a key, else "",
--            [field, value, field, value, …]]
-- returns    {ring (0 or 1), answer, answer, …}, with one answer per job, in order:
--              1                   the job was stored
--              {id, 'known'}       the job with this id has the same idempotency key and body
--              {id, 'conflict', field, …}
--                                  the job with this id has the same idempotency key and another
--                                  body. The fields are those that differ, or `body` if the job is
--                                  gone and only its fingerprint is left. The job may be one of
--                                  this call; then it is not stored if ARGV[2] is 0
--            If a job's id is already stored, the job is not changed and the answer is 1. The same
--            call may therefore be repeated after a lost reply.
--
-- needs counts, lanes, jobs, endings, doorbell

-- Length of a job id (characters).
local ID_LENGTH = 32

local default_life_ms, skips_conflicts = tonumber(ARGV[1]), ARGV[2] == '1'

-- Two jobs are the same message if these fields are equal. The other options may differ: a repeated
-- call with send_at="in two hours" has another time.
local BODY = { 'page_id', 'recipient_id', 'payload_id', 'metadata' }

local function differing_fields(job, other)
  local differs, names = {}, {}
  for _, pair in ipairs({ { job, other }, { other, job } }) do
    for name, value in pairs(pair[1]) do
      -- `metadata+1` is a part of `metadata`.
      if pair[2][name] ~= value then differs[string.match(name, '^[^+]*')] = true end
    end
  end
  for _, name in ipairs(BODY) do
    if differs[name] then names[#names + 1] = name end
  end
  return names
end

-- The fields of the body that are stored for a row.
local function row_job(row)
  local job, fields = { page_id = row[2] }, row[9]
  for i = 1, #fields, 2 do job[fields[i]] = fields[i + 1] end
  return job
end

-- The id and the job stored under an idempotency key; or the job's fingerprint, if the job is gone.
-- If neither exists, the key is free.
local function holder_of(idempotency_key)
  local id = redis.call('GET', key('idem:' .. idempotency_key))
  if not id then return nil end
  local fingerprint
  if #id == ID_LENGTH + #ANY_FINGERPRINT then
    id, fingerprint = string.sub(id, 1, ID_LENGTH), string.sub(id, ID_LENGTH + 1)
  end
  local job = read_job(id)
  if job or fingerprint then return { id = id, job = job, fingerprint = fingerprint } end
end

-- The fields in which a row differs from the job that has its idempotency key.
local function conflicting_fields(holder, row)
  if not holder.job and holder.fingerprint then
    local same = holder.fingerprint == row[8] or holder.fingerprint == ANY_FINGERPRINT
    return same and {} or { 'body' }
  end
  holder.job = holder.job or row_job(holder.row)
  return differing_fields(holder.job, row_job(row))
end

local rows, answers, has_conflict = cjson.decode(ARGV[3]), { 0 }, false
local holders = {} -- idempotency key -> result of holder_of, or {id, row} for a row of this call
for i, row in ipairs(rows) do
  local id, idempotency_key = row[1], row[3]
  local answer = 1
  if idempotency_key ~= '' then
    local holder = holders[idempotency_key] or holder_of(idempotency_key) or { id = id, row = row }
    holders[idempotency_key] = holder
    if holder.id ~= id then
      local names = conflicting_fields(holder, row)
      has_conflict = has_conflict or #names > 0
      answer = { holder.id, #names > 0 and 'conflict' or 'known', unpack(names) }
    end
  end
  answers[i + 1] = answer
end
if has_conflict and not skips_conflicts then return answers end

-- The ids grouped by list, so that a batch needs one command per list.
local lists, by_name = {}, {}
local function list_for(page_id, urgent, campaign)
  local name = urgent .. page_id .. '/' .. campaign
  if not by_name[name] then
    local job = { page_id = page_id, urgent = urgent == 1 and '1' or nil }
    if campaign ~= '' then job.campaign = campaign end
    by_name[name] = { job = job, ids = {} }
    lists[#lists + 1] = by_name[name]
  end
  return by_name[name]
end

local any_ready = false
for i, row in ipairs(rows) do
  local id, page_id, idempotency_key, send_at, expires_at, urgent, campaign, fingerprint, fields =
    unpack(row)
  local name = key('job:' .. id)
  if answers[i + 1] == 1 and redis.call('EXISTS', name) == 0 then
    local later, list = send_at > NOW, list_for(page_id, urgent, campaign)
    local state = later and 'scheduled' or 'queued'
    if expires_at == 0 then expires_at = math.max(NOW, send_at) + default_life_ms end
    redis.call('HSET', name, 'state', state, 'page_id', page_id, 'attempts', '0',
      'enqueued_at', int(NOW), 'expires_at', int(expires_at), unpack(fields))
    if idempotency_key ~= '' then
      redis.call('SET', key('idem:' .. idempotency_key), id .. fingerprint)
    end
    moved(list.job, nil, state)
    if is_canceled(list.job.campaign) then
      cancel_job(id, read_job(id))
    elseif later then
      redis.call('ZADD', key('due'), int(send_at), id)
    else
      list.ids[#list.ids + 1], any_ready = id, true
    end
  end
end
for _, list in ipairs(lists) do
  if #list.ids > 0 then to_lane(list.ids, list.job) end
end

write_collected()
-- One doorbell is enough, even an old one: if it was lost, the sweep of a worker rings again.
-- Otherwise doorbells would accumulate while no worker runs.
if any_ready then
  local bell = redis.call('GET', key('bell'))
  if (not bell or bell == 'attentive') and should_ring() then answers[1] = 1 end
end
return answers
