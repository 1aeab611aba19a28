-- Read a page of one index of jobs by time, or of several merged indexes, from any position. The
-- time needed grows with the logarithm of the size of the indexes.
--
-- ARGV[1]   desc: latest first; asc: earliest first
-- ARGV[2]   earliest time (ms), or -inf
-- ARGV[3]   latest time (ms), or +inf
-- ARGV[4]   cursor: time (ms) of the entry to continue after, or ""
-- ARGV[5]   cursor: id of that entry, which may no longer exist
-- ARGV[6]   maximum number of ids
-- ARGV[7]   maximum number of entries to scan
-- ARGV[8]   field of the job to return with each id, or ""
-- ARGV[9]   JSON object of conditions: field of the job -> accepted values
-- ARGV[10]  number of indexes
-- ARGV[11…] indexes: failed, failed:<error_code>, failed_on:<page_id>, failed_of:<campaign> or
--           due
-- returns   {1 at the end, else 0,
--            time and id of the last scanned entry (those of the cursor if none was scanned),
--            number of scanned entries, id, value of the field or "", id, …}

local desc = ARGV[1] == 'desc'
local earliest, latest = ARGV[2], ARGV[3]
local last_ms, last_id = ARGV[4], ARGV[5]
local limit, scan_limit = tonumber(ARGV[6]), tonumber(ARGV[7])
local returned_field = ARGV[8]
local RANGE, RANK = 'ZRANGE', 'ZRANK'
if desc then RANGE, RANK = 'ZREVRANGE', 'ZREVRANK' end

local indexes, conditions = {}, {}
for i = 11, 10 + ARGV[10] do indexes[#indexes + 1] = { name = key(ARGV[i]) } end
for field, values in pairs(cjson.decode(ARGV[9])) do
  local wanted = {}
  for _, value in ipairs(values) do wanted[value] = true end
  conditions[#conditions + 1] = { field = field, wanted = wanted }
end
-- Number of entries read at once from each index.
local CHUNK = math.max(10, math.floor(math.min(200, scan_limit) / #indexes))

local function count_before(index, ms, inclusive)
  local bound = inclusive and ms or '(' .. ms
  if desc then return redis.call('ZCOUNT', index.name, bound, '+inf') end
  return redis.call('ZCOUNT', index.name, '-inf', bound)
end

local function first_rank(index)
  if last_ms == '' then return count_before(index, desc and latest or earliest) end
  local score = redis.call('ZSCORE', index.name, last_id)
  if score and tonumber(score) == tonumber(last_ms) then
    return redis.call(RANK, index.name, last_id) + 1
  end
  -- The entry is not in this index. Find its position among entries with the same time, by id.
  local low, high = count_before(index, last_ms), count_before(index, last_ms, true)
  while low < high do
    local middle = math.floor((low + high) / 2)
    local id = redis.call(RANGE, index.name, middle, middle)[1]
    if (desc and id > last_id) or (not desc and id < last_id) then
      low = middle + 1
    else
      high = middle
    end
  end
  return low
end

local function is_out_of_range(ms)
  if desc then return earliest ~= '-inf' and ms < tonumber(earliest) end
  return latest ~= '+inf' and ms > tonumber(latest)
end

-- Set the index's current entry: `id`, `ms` (as text) and `time` (as number). `id` is nil at the
-- end of the index.
local function advance(index)
  if not index.entries or (index.position > #index.entries and not index.is_read) then
    index.rank = index.rank or first_rank(index)
    index.entries =
      redis.call(RANGE, index.name, index.rank, index.rank + CHUNK - 1, 'WITHSCORES')
    index.rank = index.rank + CHUNK
    index.is_read = #index.entries < 2 * CHUNK
    index.position = 1
  end
  index.id, index.ms = index.entries[index.position], index.entries[index.position + 1]
  index.position = index.position + 2
  index.time = tonumber(index.ms)
  if index.id and is_out_of_range(index.time) then index.id = nil end
end

local function comes_before(a, b)
  if a.time ~= b.time then
    if desc then return a.time > b.time end
    return a.time < b.time
  end
  if desc then return a.id > b.id end
  return a.id < b.id
end

local function next_index()
  local first
  for _, index in ipairs(indexes) do
    if index.id and (not first or comes_before(index, first)) then first = index end
  end
  return first
end

local function field_of(id, field)
  return redis.call('HGET', key('job:' .. id), field) or ''
end

local function fits(id)
  for _, condition in ipairs(conditions) do
    if not condition.wanted[field_of(id, condition.field)] then return false end
  end
  return true
end

for _, index in ipairs(indexes) do advance(index) end

local answer, found, scanned = { 0, '', '', 0 }, 0, 0
while true do
  local index = next_index()
  if not index then
    answer[1] = 1
    break
  end
  if found == limit or scanned >= scan_limit then break end
  -- An entry in several indexes counts once.
  if index.id ~= last_id or tonumber(last_ms) ~= index.time then
    last_ms, last_id = index.ms, index.id
    scanned = scanned + 1
    if fits(last_id) then
      found = found + 1
      answer[#answer + 1] = last_id
      answer[#answer + 1] = returned_field == '' and '' or field_of(last_id, returned_field)
    end
  end
  advance(index)
end
answer[2], answer[3], answer[4] = last_ms, last_id, scanned
return answer
