-- Read some ids from the ends of lanes, with the times of their jobs.
--
-- ARGV[1]   number of ids to skip at the end of each list
-- ARGV[2]   maximum number of ids of each list
-- ARGV[3..] lists: ready:<page_id> or urgent:<page_id>
-- returns   for each list {id, its job's enqueued_at or "", id, …}, the last one first

local last = -1 - tonumber(ARGV[1])
local first = last + 1 - tonumber(ARGV[2])

local answer = {}
for i = 3, #ARGV do
  local found = {}
  local ids = redis.call('LRANGE', key(ARGV[i]), first, last)
  for rank = #ids, 1, -1 do
    found[#found + 1] = ids[rank]
    found[#found + 1] = redis.call('HGET', key('job:' .. ids[rank]), 'enqueued_at') or ''
  end
  answer[#answer + 1] = found
end
return answer
