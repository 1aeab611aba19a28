-- Store new jobs: into their lanes, or among the due if they are for later.
--
-- ARGV[1]    how long a job lives where it says nothing (ms), from now or its send_at
-- ARGV[2]    1: leave out jobs in conflict, and store the others; 0: if any is, store none
-- ARGV[3]    JSON array with one array per job: [id, page_id, idempotency_key or "",
--            send_at_ms or 0, expires_at_ms or 0, urgent (0 or 1), [field, value, field, value, …]]
-- returns    {ring (0 or 1), answer, answer, …}, for each job, in order, one of
--              1                   it was stored
--              {id, 'known'}       the job of this id has its idempotency key, and the same body
--              {id, 'conflict', field, …}
--                                  the job of this id has its idempotency key, and another body:
--                                  the fields of the hash that differ. It may be a job of this
--                                  very call, which is not stored if ARGV[2] is 0
--            A job whose id is stored already is left as it is and answered by 1, so the same call
--            may be repeated when its reply was lost.

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
  local job, fields = { page_id = row[2] }, row[7]
  for i = 1, #fields, 2 do job[fields[i]] = fields[i + 1] end
  return job
end

-- The id and the job stored under an idempotency key. A key whose job is gone is free again.
local function holder_of(idempotency_key)
  local id = redis.call('GET', key('idem:' .. idempotency_key))
  local job = id and read_job(id)
  if job then return { id, job } end
end

local rows, answers, has_conflict = cjson.decode(ARGV[3]), { 0 }, false
local holders = {} -- idempotency key -> {id, job, or nil: that of the row, row}
for i, row in ipairs(rows) do
  local id, idempotency_key = row[1], row[3]
  local answer = 1
  if idempotency_key ~= '' then
    local holder = holders[idempotency_key] or holder_of(idempotency_key) or { id, nil, row }
    holders[idempotency_key] = holder
    if holder[1] ~= id then
      holder[2] = holder[2] or row_job(holder[3])
      local names = differing_fields(holder[2], row_job(row))
      has_conflict = has_conflict or #names > 0
      answer = { holder[1], #names > 0 and 'conflict' or 'known', unpack(names) }
    end
  end
  answers[i + 1] = answer
end
if has_conflict and not skips_conflicts then return answers end

-- Ids for the lanes, by page, so that a batch costs one command a lane.
local ready, urgent_ready = {}, {}
for i, row in ipairs(rows) do
  local id, page_id, idempotency_key, send_at, expires_at, urgent, fields = unpack(row)
  local job = key('job:' .. id)
  if answers[i + 1] == 1 and redis.call('EXISTS', job) == 0 then
    local later = send_at > NOW
    local state = later and 'scheduled' or 'queued'
    if expires_at == 0 then expires_at = math.max(NOW, send_at) + default_life_ms end
    redis.call('HSET', job, 'state', state, 'page_id', page_id, 'attempts', '0',
      'enqueued_at', int(NOW), 'expires_at', int(expires_at), unpack(fields))
    if idempotency_key ~= '' then redis.call('SET', key('idem:' .. idempotency_key), id) end
    if later then
      redis.call('ZADD', key('due'), int(send_at), id)
    else
      local ids_by_page = urgent == 1 and urgent_ready or ready
      local ids = ids_by_page[page_id] or {}
      ids_by_page[page_id], ids[#ids + 1] = ids, id
    end
    moved(nil, state)
  end
end
for page_id, ids in pairs(ready) do to_lane(ids, page_id) end
for page_id, ids in pairs(urgent_ready) do to_lane(ids, page_id, true) end

write_counts()
-- One doorbell is enough, however old: if it was lost, the sweep of the first worker rings again.
-- Ringing again would heap them up while no worker runs.
if next(ready) or next(urgent_ready) then
  local bell = redis.call('GET', key('bell'))
  if (not bell or bell == 'attentive') and should_ring() then answers[1] = 1 end
end
return answers
