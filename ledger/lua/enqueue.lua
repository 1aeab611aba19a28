-- Store new jobs: into their lanes, or among the due if they are for later.
--
-- ARGV[1]    how long a job lives where it says nothing (ms), from now or its send_at
-- ARGV[2]    1: leave out jobs in conflict, and store the others; 0: if any is, store none
-- ARGV[3]    JSON array with one array per job: [id, page_id, idempotency_key or "",
--            send_at_ms or 0, expires_at_ms or 0, urgent (0 or 1), campaign or "",
--            fingerprint of the body (12 characters) if it has a campaign and a key, else "",
--            [field, value, field, value, …]]
-- returns    {ring (0 or 1), answer, answer, …}, for each job, in order, one of
--              1                   it was stored
--              {id, 'known'}       the job of this id has its idempotency key, and the same body
--              {id, 'conflict', field, …}
--                                  the job of this id has its idempotency key, and another body:
--                                  the fields of the hash that differ; or body, if that job is
--                                  gone and only its fingerprint is left. It may be a job of this
--                                  very call, which is not stored if ARGV[2] is 0
--            A job whose id is stored already is left as it is and answered by 1, so the same call
--            may be repeated when its reply was lost.

-- Of the ids that the producer makes.
local ID_LENGTH = 32

local default_life_ms, skips_conflicts = tonumber(ARGV[1]), ARGV[2] == '1'

-- What makes two jobs the same message. When and how it is sent does not: a repeated call with
-- send_at="in two hours" means another time.
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

-- A row as the hash that is stored for it, as far as the body goes.
local function row_job(row)
  local job, fields = { page_id = row[2] }, row[9]
  for i = 1, #fields, 2 do job[fields[i]] = fields[i + 1] end
  return job
end

-- The id and the job stored under an idempotency key; or the fingerprint of the job, if that is gone.
-- A key without either is free again.
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
local holders = {} -- idempotency key -> what holder_of returns; or {id, row}, of a row of this call
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

-- Jobs that wait in the same list: one of them, as to_lane takes it, and the ids, so that a batch
-- costs one command a list.
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

write_counts()
-- One doorbell is enough, however old: if it was lost, the sweep of the first worker rings again.
-- Ringing again would heap them up while no worker runs.
if any_ready then
  local bell = redis.call('GET', key('bell'))
  if (not bell or bell == 'attentive') and should_ring() then answers[1] = 1 end
end
return answers
