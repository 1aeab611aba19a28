-- Read a page of an index of jobs by time, wherever in it the page begins: in time that grows with
-- the logarithm of its size.
--
-- ARGV[1]   index: failed, failed:<error_code>, failed_on:<page_id> or due
-- ARGV[2]   another of these, in which an id must be too, or ""
-- ARGV[3]   falling: the latest first; rising: the earliest first
-- ARGV[4]   not before this time (ms), or -inf
-- ARGV[5]   not after this time (ms), or +inf
-- ARGV[6]   time (ms) of the entry to go on after, or ""
-- ARGV[7]   its id; the entry itself may be gone by now
-- ARGV[8]   ids at most
-- ARGV[9]   entries to look at, at most
-- returns   {1 if nothing comes after, else 0,
--            time and id of the last entry looked at (those of ARGV[6] and ARGV[7] if none was),
--            entries looked at, id, id, …}

local index, other = key(ARGV[1]), ARGV[2] ~= '' and key(ARGV[2])
local falling = ARGV[3] == 'falling'
local earliest, latest = ARGV[4], ARGV[5]
local last_ms, last_id = ARGV[6], ARGV[7]
local limit, budget = tonumber(ARGV[8]), tonumber(ARGV[9])
local RANGE, RANK = 'ZRANGE', 'ZRANK'
if falling then RANGE, RANK = 'ZREVRANGE', 'ZREVRANK' end
local CHUNK = 200

local function count_before(ms, itself_too)
  local bound = itself_too and ms or '(' .. ms
  if falling then return redis.call('ZCOUNT', index, bound, '+inf') end
  return redis.call('ZCOUNT', index, '-inf', bound)
end

local function first_rank()
  if last_ms == '' then return count_before(falling and latest or earliest) end
  if tonumber(redis.call('ZSCORE', index, last_id) or -1) == tonumber(last_ms) then
    return redis.call(RANK, index, last_id) + 1
  end
  -- It is gone: look for its place among those of the same time, which are in the order of ids.
  local low, high = count_before(last_ms), count_before(last_ms, true)
  while low < high do
    local middle = math.floor((low + high) / 2)
    local id = redis.call(RANGE, index, middle, middle)[1]
    if (falling and id > last_id) or (not falling and id < last_id) then
      low = middle + 1
    else
      high = middle
    end
  end
  return low
end

local function is_beyond(ms)
  if falling then return earliest ~= '-inf' and ms < tonumber(earliest) end
  return latest ~= '+inf' and ms > tonumber(latest)
end

local ids, looked_at = {}, 0

local function look(rank)
  while #ids < limit and looked_at < budget do
    local wanted = math.min(CHUNK, budget - looked_at)
    local entries = redis.call(RANGE, index, rank, rank + wanted - 1, 'WITHSCORES')
    for i = 1, #entries, 2 do
      if is_beyond(tonumber(entries[i + 1])) then return 1 end
      if #ids == limit then return 0 end
      last_id, last_ms = entries[i], entries[i + 1]
      looked_at = looked_at + 1
      if not other or redis.call('ZSCORE', other, last_id) then ids[#ids + 1] = last_id end
    end
    if #entries < 2 * wanted then return 1 end
    rank = rank + wanted
  end
  return 0
end

local at_end = look(first_rank())
return { at_end, last_ms, last_id, looked_at, unpack(ids) }
