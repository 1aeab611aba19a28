-- Cancel, or only count, the jobs that fit a filter, out of some ids or out of the ends of some lists.
--
-- ARGV[1]   operation id of the audit entry
-- ARGV[2]   that entry as JSON, without `at_ms` and `count`; "" to cancel nothing, only count
-- ARGV[3]   the filter as JSON: {since_ms, until_ms (of the enqueueing), <field of the job>: [value, …]};
--           a part that is left out is no condition
-- ARGV[4]   maximum number of ids to scan
-- ARGV[5]   "ids", or "lists"
-- ARGV[6]   lists: number of ids at the end of the first list that were scanned before, and stay
-- ARGV[7…]  ids, or names of lists of lanes
-- returns   {lists scanned to their beginning, the number to skip in the next list,
--            {state, page_id, campaign, payload_id, number of jobs}, …}: jobs that were canceled, or would
--            be, by what they have in common; and with the state "sending", jobs that fit but are being sent
--
-- Lists are scanned from their ends, where ids are added: claims take ids from their beginnings meanwhile.
-- Ids of canceled jobs are taken out of them, so that a lane has as many ids as jobs; but not far from both
-- ends of a very long list, where that would take too long. There the next claim skips them, as after cancel.lua.

local filter = cjson.decode(ARGV[3])
local cancels, scan_limit = ARGV[2] ~= '', tonumber(ARGV[4])
local since_ms, until_ms = filter.since_ms, filter.until_ms
filter.since_ms, filter.until_ms = nil, nil
-- Ids between an end of a list and those that are taken out, at most: Redis looks at each, 1 ms for 50,000.
local MAX_DISTANCE = 50000
-- In place of the ids that are to be taken out of a list: no id looks like this.
local CANCELED = 'canceled:' .. int(NOW)

local wanted = {}
for field, values in pairs(filter) do
  wanted[field] = {}
  for _, value in ipairs(values) do wanted[field][value] = true end
end

local function fits(job)
  for field, values in pairs(wanted) do
    if not (job[field] and values[job[field]]) then return false end
  end
  local enqueued_ms = number(job.enqueued_at)
  return (not since_ms or enqueued_ms >= since_ms) and (not until_ms or enqueued_ms <= until_ms)
end

local groups, found, canceled = {}, {}, 0

local function add_to_group(job)
  local facts = { job.state, job.page_id or '', job.campaign or '', job.payload_id or '' }
  local name = table.concat(facts, '\0')
  if not groups[name] then
    groups[name] = facts
    found[#found + 1] = facts
    facts[5] = 0
  end
  groups[name][5] = groups[name][5] + 1
end

-- Returns whether the job was canceled.
local function look_at(id)
  local job = read_job(id)
  if not job then return false end
  job.payload_id = long_text(job, 'payload_id')
  if job.state ~= 'sending' and not CANCELABLE[job.state] then return false end
  if not fits(job) then return false end
  add_to_group(job)
  if job.state == 'sending' or not cancels then return false end
  cancel_job(id, job)
  canceled = canceled + 1
  return true
end

-- Returns the number of ids that were scanned, and of those that stay in the list.
local function look_through(list, skip, limit)
  local ids = redis.call('LRANGE', list, -skip - limit, -skip - 1)
  local before = redis.call('LLEN', list) - skip - #ids
  local is_near = math.min(skip, before) <= MAX_DISTANCE
  local taken_out = 0
  for rank = #ids, 1, -1 do
    if look_at(ids[rank]) then
      if is_near then
        redis.call('LSET', list, rank - #ids - 1 - skip, CANCELED)
        taken_out = taken_out + 1
      else
        redis.call('SADD', key('canceled_in_lane'), ids[rank])
      end
    end
  end
  -- From the nearer end.
  if taken_out > 0 then
    redis.call('LREM', list, skip <= before and -taken_out or taken_out, CANCELED)
  end
  return #ids, #ids - taken_out
end

local complete, skip = 0, 0
if ARGV[5] == 'ids' then
  for i = 7, #ARGV do look_at(ARGV[i]) end
else
  skip = tonumber(ARGV[6])
  for i = 7, #ARGV do
    local limit = scan_limit
    if limit <= 0 then break end
    local scanned, kept = look_through(key(ARGV[i]), skip, limit)
    scan_limit = scan_limit - scanned
    skip = skip + kept
    if scanned == limit then break end
    complete, skip = complete + 1, 0
  end
end
write_counts()
if canceled > 0 then write_audit(ARGV[1], ARGV[2], canceled) end
return { complete, skip, unpack(found) }
