-- Cancel, or only count, the jobs that match a filter, among some ids or in some lists.
--
-- ARGV[1]   operation id of the audit entry
-- ARGV[2]   that entry as JSON, without `at_ms` and `count`; "" to only count
-- ARGV[3]   the filter as JSON: {since_ms, until_ms (bounds of enqueued_at),
--           <field of the job>: [value, …]}; every key is optional
-- ARGV[4]   maximum number of ids to scan
-- ARGV[5]   "ids" or "lists"
-- ARGV[6]   lists: number of ids to skip at the end of the first list, already scanned
-- ARGV[7…]  ids, or names of lists of lanes
-- returns   {number of lists scanned completely, number of ids to skip in the next list,
--            {state, page_id, campaign, payload_id, number of jobs}, …}: the jobs that were
--            canceled, or would be, grouped by these fields. Groups with the state "sending" are
--            jobs that match but are being sent, so they are not canceled
--
-- Lists are scanned from the end, where ids are added, because claims remove ids from the beginning
-- at the same time. Ids of canceled jobs are removed from the list, so that a lane has as many ids
-- as jobs. In the middle of a very long list that would take too long: there the ids stay, and the
-- next claim skips them, as after cancel.lua.
--
-- needs counts, jobs, endings, audit

local filter = cjson.decode(ARGV[3])
local cancels, scan_limit = ARGV[2] ~= '', tonumber(ARGV[4])
local since_ms, until_ms = filter.since_ms, filter.until_ms
filter.since_ms, filter.until_ms = nil, nil
-- Maximum number of ids between an end of a list and a removed id. Redis reads all of them: 1 ms
-- for 50,000.
local MAX_DISTANCE = 50000
-- Replaces the ids that are removed from a list. No id has this form.
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
local function cancel_if_matching(id)
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

-- Returns the number of scanned ids, and how many of them stay in the list.
local function scan_list(list, skip, limit)
  local ids = redis.call('LRANGE', list, -skip - limit, -skip - 1)
  local before = redis.call('LLEN', list) - skip - #ids
  local is_near = math.min(skip, before) <= MAX_DISTANCE
  local taken_out = 0
  for rank = #ids, 1, -1 do
    if cancel_if_matching(ids[rank]) then
      if is_near then
        redis.call('LSET', list, rank - #ids - 1 - skip, CANCELED)
        taken_out = taken_out + 1
      else
        redis.call('SADD', key('canceled_in_lane'), ids[rank])
      end
    end
  end
  -- Search from the nearer end.
  if taken_out > 0 then
    redis.call('LREM', list, skip <= before and -taken_out or taken_out, CANCELED)
  end
  return #ids, #ids - taken_out
end

local complete, skip = 0, 0
if ARGV[5] == 'ids' then
  for i = 7, #ARGV do cancel_if_matching(ARGV[i]) end
else
  skip = tonumber(ARGV[6])
  for i = 7, #ARGV do
    local limit = scan_limit
    if limit <= 0 then break end
    local scanned, kept = scan_list(key(ARGV[i]), skip, limit)
    scan_limit = scan_limit - scanned
    skip = skip + kept
    if scanned == limit then break end
    complete, skip = complete + 1, 0
  end
end
write_collected()
if canceled > 0 then write_audit(ARGV[1], ARGV[2], canceled) end
return { complete, skip, unpack(found) }
