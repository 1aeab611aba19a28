-- Doorbells, which wake workers; see broker/doorbell.py.

-- A doorbell that is not answered within this time (ms) counts as lost. If several are unanswered,
-- the pumps are probably busy: a longer time keeps doorbells from accumulating.
local BELL_LOST_AFTER_MS, ONE_OF_MANY_LOST_AFTER_MS, MANY_BELLS = 2000, 4500, 4

-- When the latest doorbell was rung (ms), and the number of unanswered doorbells.
local function bells_out(bell)
  local rung_ms, unanswered = string.match(bell or '', '^(%d+) (%d+)$')
  return number(rung_ms), number(unanswered)
end

-- Whether to ring a doorbell for jobs that are ready now. True only once, until that doorbell is
-- answered or counts as lost. An attentive pump needs no doorbell; this function wakes it.
local function should_ring()
  if redis.call('GET', key('paused_all')) then return false end
  local bell = redis.call('GET', key('bell'))
  -- A bell without a lifetime was written by another client, and would block all doorbells.
  if bell == 'attentive' and redis.call('PTTL', key('bell')) >= 0 then
    -- One entry is enough: the pump that takes it wakes another if it cannot take all jobs.
    if redis.call('LLEN', key('wake')) == 0 then redis.call('LPUSH', key('wake'), '1') end
    return false
  end
  local rung_ms, unanswered = bells_out(bell)
  -- A time in the future was written before the clock was set back, and is ignored.
  local age = NOW - rung_ms
  local lost_after = unanswered < MANY_BELLS and BELL_LOST_AFTER_MS or ONE_OF_MANY_LOST_AFTER_MS
  if age >= 0 and age < lost_after then return false end
  redis.call('SET', key('bell'), int(NOW) .. ' ' .. int(unanswered + 1))
  return true
end

local function answer_bell()
  local _, unanswered = bells_out(redis.call('GET', key('bell')))
  if unanswered > 1 then
    redis.call('SET', key('bell'), '0 ' .. int(unanswered - 1))
  else
    redis.call('DEL', key('bell'))
  end
end
