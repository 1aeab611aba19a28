-- Read jobs, and build their idempotency keys.

-- A job's hash as a table, and as {field, value, …}; or nil if there is no such job.
local function read_job(id)
  local flat = redis.call('HGETALL', key('job:' .. id))
  if #flat == 0 then return nil end
  local job = {}
  for i = 1, #flat, 2 do job[flat[i]] = flat[i + 1] end
  return job, flat
end

-- Some fields of a job as a table, without missing fields.
local function read_fields(id, names)
  local job, values = {}, redis.call('HMGET', key('job:' .. id), unpack(names))
  for i = 1, #names do job[names[i]] = values[i] or nil end
  return job
end

-- A text of a job that may be split into several fields; see ledger/job_hash.py.
local function long_text(job, name)
  local text, part = job[name], 1
  while text and job[name .. '+' .. part] do
    text, part = text .. job[name .. '+' .. part], part + 1
  end
  return text
end

-- The idempotency key of a complete job, or nil. An empty one means the default key of a campaign's
-- job.
local function idempotency_key_of(job)
  if job.idempotency_key ~= '' then return job.idempotency_key end
  return table.concat({ job.campaign or '', job.page_id or '', job.recipient_id or '',
    long_text(job, 'payload_id') or '' }, '/')
end

local KEY_PARTS = { 'recipient_id', 'payload_id', 'payload_id+1', 'payload_id+2', 'payload_id+3' }

-- The fields of a campaign's job that idempotency_key_of needs; all fields if its payload_id is
-- longer.
local function read_key_parts(id, job)
  local parts = read_fields(id, KEY_PARTS)
  if parts['payload_id+3'] then return read_job(id) end
  parts.idempotency_key, parts.campaign, parts.page_id = '', job.campaign, job.page_id
  return parts
end

-- Matches the fingerprint of any body.
local ANY_FINGERPRINT = string.rep('?', 12)
