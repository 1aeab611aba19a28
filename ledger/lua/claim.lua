-- Claim jobs that may be sent now. The lanes take turns.
--
-- ARGV[1]  claim token, "holder:number", required to record an outcome
-- ARGV[2]  maximum number of jobs: the caller's free slots
-- ARGV[3]  lease (ms)
-- ARGV[4]  messages per second of a page without its own rate; 0 means no limit
-- ARGV[5]  burst: messages at once of a page without its own rate
-- ARGV[6]  how long a paused lane waits for the outcome of its probe (ms). A restricted or refused
--          lane waits at least as long as its pause was
-- ARGV[7]  JSON object: page_id -> the caller's calls in flight
-- ARGV[8]  1: this call answers the doorbell
-- ARGV[9]  time (ms) within which the caller claims again, so that no doorbell is needed until
--          then; 0: the caller may stop after this call
-- ARGV[10] 1: the caller has a possible poison in flight: a job whose last holder stopped while it
--          sent the job. The job may have killed that process, so a process never has two of them
--          in flight. Otherwise one poisonous job would spend the attempts of the others
-- ARGV[11] how long (ms) after the claim a request of a page with a rate may begin
-- ARGV[12] fingerprint of the token of pages without their own token; "" if there is none
-- ARGV[13] calls per second of one token, over all its pages; 0 means no limit
-- ARGV[14] burst: calls of one token at once
-- returns  {ring (0 or 1), wait_ms until the next lane opens (-1: no lane waits), now_ms,
--          {page change, …}, claim, …}; see note_page_change and claim_job
--
-- Jobs whose deadline has passed and entries without a complete job are claimed as well. The caller
-- records them as failed. They do not count toward their page's rate.
--
-- needs counts, lanes, jobs, claims, doorbell, pauses, tokens

local lease, max_jobs = { token = ARGV[1], ms = tonumber(ARGV[3]) }, tonumber(ARGV[2])
local default_rate, default_burst = tonumber(ARGV[4]), tonumber(ARGV[5])
local probe_ms, start_within_ms = tonumber(ARGV[6]), tonumber(ARGV[11])
local default_token, token_rate, token_burst = ARGV[12], tonumber(ARGV[13]), tonumber(ARGV[14])
local in_flight = cjson.decode(ARGV[7])
local has_possible_poison = ARGV[10] == '1'

local holder, claim_number = string.match(lease.token, '^(.*):(%d+)$')

-- Most calls find none of these keys, so one command checks all of them.
local revoked_claims = key('revoked_claims:' .. holder)
local any_rare = redis.call('EXISTS', revoked_claims, key('paused_all'), key('canceled_in_lane'),
  key('rates'), key('tokens')) > 0
local function has(name) return any_rare and redis.call('EXISTS', key(name)) == 1 end

-- The caller has given up on this call (see release.lua), so it would never send the jobs.
local revoked = any_rare and number(redis.call('GET', revoked_claims)) or 0
if revoked >= tonumber(claim_number) then return { 0, -1, int(NOW), {} } end

local has_canceled, has_rates = has('canceled_in_lane'), has('rates')

-- Entries that this call may still take out of lanes, plus lanes that it may find closed or empty.
local scans_left = 500 + 2 * max_jobs
-- Maximum number of possible poisons of one lane that one call moves to the end of the lane.
local MAX_POSTPONED = 10
-- Maximum number of jobs of one lane that one call moves to the end because their payload failed.
local MAX_AVOIDED = 50

-- If a lane has both kinds of jobs, every fourth job is one that has failed before.
local AGAIN_EVERY = 4
-- Maximum number of a page's campaigns that are searched for a probe.
local PROBED_CAMPAIGNS = 50

-- The jobs to pop from a lane: jobs that have not failed yet, jobs that have, or both in turn.
local FRESH, FAILED, BOTH = 'fresh', 'failed', 'both'

local function pop_from(list)
  return function(how_many) return redis.call('LPOP', list, how_many) or {} end
end

-- Returns a function that pops the next ids of a lane (see lane_name), at most as many as its
-- argument; none if the lane is empty. `canary` is nil or {left: number of jobs that may be claimed
-- for the first time}.
local function popper(lane, kinds, canary)
  local fresh, again = key('ready:' .. lane), key('again:' .. lane)
  local failed = kinds ~= FRESH and redis.call('LLEN', again) or 0
  local has_fresh = kinds ~= FAILED
  local pop_fresh, pop_again, turn = pop_from(fresh), pop_from(again), nil
  return function(how_many)
    if canary then
      has_fresh = has_fresh and canary.left > 0
      how_many = math.min(how_many, math.max(1, canary.left))
    end
    if has_fresh and failed == 0 then return pop_fresh(how_many) end
    if failed == 0 then return {} end
    if has_fresh then
      turn = (turn or number(redis.call('HGET', key('again_turns'), lane))) + 1
      local ids = turn < AGAIN_EVERY and pop_fresh(1) or {}
      if #ids > 0 then
        redis.call('HSET', key('again_turns'), lane, int(turn))
        return ids
      end
      has_fresh = turn >= AGAIN_EVERY
    end
    failed = failed - 1
    if turn then
      turn = 0
      redis.call('HDEL', key('again_turns'), lane)
    end
    return pop_again(1)
  end
end

-- Process an id popped from the page's lane. Returns "to send" if the job is claimed and may be
-- sent, "postponed" if it is a possible poison that the caller must not get now, "avoided" if it is
-- not suitable as a probe, else "cleared"; and the job.
local function take(id, how)
  local page_id = how.page_id
  if has_canceled and redis.call('HGET', key('job:' .. id), 'state') == 'cancelled' then
    -- There may be thousands of these: to read each whole hash would block Redis.
    redis.call('SREM', key('canceled_in_lane'), id)
    return 'cleared'
  end
  local job, flat = read_job(id)
  local state = job and job.state
  if state ~= 'queued' and redis.call('SREM', key('canceled_in_lane'), id) == 1 then
    -- The job was deleted; only its id was left in the lane.
    return 'cleared'
  end
  if state and state ~= 'queued' then return 'cleared' end -- no longer queued

  local defect = not state and INCOMPLETE or job.defect
  if not defect and job.page_id ~= page_id then
    defect = "the job's page_id is not the page whose lane it was in"
  end
  local may_send = not defect and number(job.expires_at) > NOW
  if may_send and job.error_code == 'unknown_outcome' then
    if has_possible_poison then return 'postponed', job end
    has_possible_poison = true
  end
  if may_send and how.avoided_payloads and how.avoided_payloads[job.payload_id] then
    return 'avoided', job
  end
  claim_job(id, job, flat, lease, how, defect)
  return may_send and 'to send' or 'cleared'
end

-- The limit of one lane: at most four times the slots that stay free. A page whose calls hang can
-- therefore never hold all slots (design promise 8).
local function lane_limit(page_id, share)
  local free = max_jobs - #claimed
  local fair = math.ceil((4 * free - (tonumber(in_flight[page_id]) or 0)) / 5)
  return math.min(share, free, math.max(0, fair))
end

-- The rate of a page (messages per second; 0 means no limit), and its burst.
local function rate_of(page_id)
  local own = has_rates and decode(redis.call('HGET', key('rates'), page_id))
  if own and type(own.rate) == 'number' and type(own.burst) == 'number'
      and own.rate >= 0 and own.rate <= MAX_RATE and own.burst >= 1 and own.burst <= MAX_BURST then
    return own.rate, own.burst
  end
  return default_rate, default_burst
end

local function write_bucket(page_id, spent, rate)
  redis.call('SET', key('spent:' .. page_id), string.format('%.6f ', spent) .. int(NOW), 'PX',
    math.ceil(spent / rate * 1000) + 1)
end

-- A page's rate is a leaky bucket: each message adds one, and it leaks at the rate. Returns the
-- bucket's level.
local function bucket_of(page_id, rate)
  local found = redis.call('GET', key('spent:' .. page_id))
  local messages, at_ms = string.match(found or '', '^(%S+) (%d+)$')
  local spent = number(messages)
  local passed_ms = NOW - number(at_ms)
  -- More than any burst: written by another client.
  if spent > MAX_BURST then return 0 end
  if passed_ms < 0 and spent > 0 then
    -- Written before the clock was set back. The level stays, and leaks from now on.
    write_bucket(page_id, spent, rate)
    return spent
  end
  return math.max(0, spent - passed_ms * rate / 1000)
end

-- How many messages a claim may take at once, so that the burst also holds at the API. Requests
-- begin up to `start_within_ms` after the claim, so the messages of several claims may arrive
-- together.
local function at_once(rate, burst)
  return math.max(1, burst - rate * start_within_ms / 1000)
end

-- The current rate and burst of a page that recovers from a pause.
local function ramped(pause, rate, burst)
  local ramp = ramp_rate(pause)
  if not ramp or (rate > 0 and rate <= ramp) then return rate, burst end
  local ramp_burst = math.max(1, ramp / 8) + ramp * start_within_ms / 1000
  return ramp, rate > 0 and math.min(burst, ramp_burst) or ramp_burst
end

-- `how` in the functions below, for one page: {page_id, level, token_level, is_paced: see
-- claim_job; kinds: FRESH, FAILED or BOTH; avoided_payloads: nil, or payload -> true if its jobs
-- are not suitable as a probe; postponed, avoided: {id, job} of these jobs, added by take_from}.

-- How many ids may be popped now. Each may be claimed, postponed or avoided.
local function room_for(taken, limit, how)
  return math.min(limit - taken, max_jobs - #claimed, scans_left,
    MAX_POSTPONED - #how.postponed, MAX_AVOIDED - #how.avoided)
end

-- Take up to `limit` jobs to send, with ids from `pop`. Returns their number, and whether no id is
-- left.
local function take_from(pop, limit, how, canary)
  local taken, room = 0, room_for(0, limit, how)
  while room > 0 do
    local ids = pop(room)
    if #ids == 0 then return taken, true end
    scans_left = scans_left - #ids
    for _, id in ipairs(ids) do
      local claimed_before = #claimed
      local what, job = take(id, how)
      if canary and #claimed > claimed_before and not has_failed(job or {}) then
        canary.left = canary.left - 1
      end
      if what == 'to send' then taken = taken + 1 end
      if what == 'postponed' then how.postponed[#how.postponed + 1] = { id, job } end
      if what == 'avoided' then how.avoided[#how.avoided + 1] = { id, job } end
    end
    room = room_for(taken, limit, how)
  end
  return taken, false
end

-- Like take_from, for one campaign's lane. A held campaign also counts as empty: the release adds
-- its lane again.
local function take_from_campaign(campaign, limit, how)
  if is_canceled(campaign) then
    -- Jobs that entered the lane late are still to be canceled.
    redis.call('HSETNX', key('campaign_work'), campaign, 'lanes:0')
    return 0, true
  end
  if mark_of('held_campaigns', campaign) then return 0, true end
  local lane, left = lane_name(how.page_id, campaign), mark_of('canaries', campaign)
  local canary = left and { left = number(left) }
  local taken, empty = take_from(popper(lane, how.kinds, canary), limit, how, canary)
  if canary then redis.call('HSET', key('canaries'), campaign, int(canary.left)) end
  if empty and how.kinds ~= BOTH then
    -- Jobs of the other kind may be left.
    empty = redis.call('EXISTS', key('ready:' .. lane), key('again:' .. lane)) == 0
  end
  return taken, empty
end

-- Like take_from, for the page's campaigns in turn. Each gets a share of `limit`.
local function take_from_campaigns(limit, how)
  local lanes, taken, moved_on = key('campaign_lanes:' .. how.page_id), 0, true
  while moved_on do
    moved_on = false
    local wanted = how.kinds == BOTH and limit - taken or PROBED_CAMPAIGNS
    local campaigns = redis.call('ZRANGE', lanes, 0, wanted - 1)
    if #campaigns == 0 then return taken, true end
    local turn, share = last_turn(how.page_id), math.ceil((limit - taken) / #campaigns)
    for _, campaign in ipairs(campaigns) do
      local jobs, empty = take_from_campaign(campaign, math.min(share, limit - taken), how)
      taken = taken + jobs
      if empty then
        redis.call('ZREM', lanes, campaign)
        scans_left, moved_on = scans_left - 1, true
      elseif jobs > 0 then
        redis.call('ZADD', lanes, int(turn), campaign)
        turn, moved_on = turn + 1, true
      end
      if room_for(taken, limit, how) <= 0 then return taken, false end
    end
  end
  return taken, true
end

-- Like take_from, for all jobs of the page: urgent jobs, then single jobs, then campaigns.
local function take_from_page(limit, how)
  local urgent, taken, empty, jobs = key('urgent:' .. how.page_id), 0, true, 0
  if how.kinds == BOTH and redis.call('EXISTS', urgent, key('again:' .. how.page_id),
      key('campaign_lanes:' .. how.page_id)) == 0 then
    -- Most pages have no other jobs.
    return take_from(pop_from(key('ready:' .. how.page_id)), limit, how)
  end
  if how.kinds ~= FAILED then
    taken, empty = take_from(pop_from(urgent), limit, how)
  end
  if empty then
    jobs, empty = take_from(popper(how.page_id, how.kinds), limit - taken, how)
    taken = taken + jobs
  end
  if empty then
    jobs, empty = take_from_campaigns(limit - taken, how)
    taken = taken + jobs
  end
  return taken, empty
end

local has_tokens = token_rate > 0 or has('tokens')
-- A page of a paused token is checked again after this time (ms): the pause may end early.
local LOOK_AT_TOKEN_MS = 1000

-- Returns the token of a page, if it has a limit or is paused; the number of calls it may make now,
-- at most `limit`; and if that is 0, when to check the page again (ms).
local function token_allows(page_id, limit)
  if not has_tokens then return nil, limit end
  local fingerprint = redis.call('HGET', key('page_tokens'), page_id) or default_token
  if fingerprint == '' then return nil, limit end
  local api_token = token_of(fingerprint)
  if api_token.level > 0 then
    if api_token.until_ms > NOW then
      return api_token, 0, math.min(api_token.until_ms, NOW + LOOK_AT_TOKEN_MS)
    end
    limit = math.min(limit, 1)
  end
  local rate, burst = limits_of(api_token, token_rate, token_burst)
  if rate <= 0 then return api_token, limit end
  leak(api_token, rate)
  local allowed = math.floor(math.max(1, burst) - api_token.spent + 1e-6)
  if allowed < 1 then
    return api_token, 0, NOW + (api_token.spent + 1 - math.max(1, burst)) / rate * 1000
  end
  return api_token, math.min(limit, allowed)
end

local function spend_token(api_token, taken)
  if limits_of(api_token, token_rate, token_burst) > 0 then
    api_token.spent, api_token.at_ms, api_token.changed = api_token.spent + taken, NOW, true
  end
  if api_token.level > 0 then
    api_token.until_ms, api_token.probe, api_token.at_ms = NOW + probe_ms, 1, NOW
    api_token.changed = true
  end
end

-- Take the probe of a paused page: preferably a job that has not failed yet, with a payload that
-- did not fail recently. A failure of a job that always fails does not show whether the page works.
local function take_probe(limit, how, pause)
  how.kinds, how.avoided_payloads = FRESH, {}
  for _, payload_id in ipairs(pause.failed_payloads or {}) do
    how.avoided_payloads[payload_id] = true
  end
  local taken, empty = take_from_page(limit, how)
  how.avoided_payloads = nil
  if taken == 0 and limit > 0 and how.avoided[1] then
    take(table.remove(how.avoided, 1)[1], how)
    return 1, false
  end
  if taken == 0 and empty then
    how.kinds = FAILED
    return take_from_page(limit, how)
  end
  return taken, empty
end

-- Claim jobs of a lane. Returns when it may be served again (ms), or nil if it is empty.
local function serve(page_id, share)
  local limit, level, is_probe = lane_limit(page_id, share), 0, false
  local rate, burst = rate_of(page_id)
  local pause = pause_of(page_id)
  if pause then
    local until_ms = paused_until(pause)
    if until_ms > 0 then return until_ms end
    tidy_pause(page_id, pause)
    if pause.level > 0 then
      level, is_probe, limit = pause.level, true, math.min(limit, 1)
    elseif pause.recovered_ms > 0 then
      level = pause.recovered_level
      rate, burst = ramped(pause, rate, burst)
    end
  end

  local spent, room = 0, 0
  if rate > 0 then
    spent, room = bucket_of(page_id, rate), at_once(rate, burst)
    local allowed = math.floor(room - spent + 1e-6)
    if allowed < 1 then return NOW + (spent + 1 - room) / rate * 1000 end
    limit = math.min(limit, allowed)
  end

  local api_token, token_limit, look_at = token_allows(page_id, limit)
  if look_at then return look_at end
  limit = token_limit

  local how = {
    page_id = page_id, level = level, token_level = api_token and api_token.level,
    is_paced = rate > 0 and not is_probe, kinds = BOTH, postponed = {}, avoided = {}
  }
  local taken, empty
  if is_probe then
    taken, empty = take_probe(limit, how, pause)
  else
    taken, empty = take_from_page(limit, how)
  end
  -- Moved to the end only now: otherwise this call would pop them again.
  for _, each in ipairs(how.postponed) do to_lane({ each[1] }, each[2]) end
  for _, each in ipairs(how.avoided) do to_lane({ each[1] }, each[2]) end
  in_flight[page_id] = (tonumber(in_flight[page_id]) or 0) + taken

  local next_at = NOW
  if api_token and taken > 0 then spend_token(api_token, taken) end
  if rate > 0 and taken > 0 then
    spent = spent + taken
    write_bucket(page_id, spent, rate)
    next_at = math.max(NOW, NOW + (spent + 1 - room) / rate * 1000)
  end
  if is_probe and taken > 0 then
    -- Stored in the pause too, because an empty lane is removed from `lanes`.
    pause.until_ms = NOW + (IS_STUBBORN[pause.reason] and math.max(probe_ms, pause.length_ms)
      or probe_ms)
    write_pause(page_id, pause)
    note_page_change(page_id, 'probed', pause)
    next_at = pause.until_ms
  end
  if empty and #how.postponed + #how.avoided == 0 then return nil end
  return next_at
end

if ARGV[8] == '1' then answer_bell() end

if any_rare and redis.call('GET', key('paused_all')) then return { 0, -1, int(NOW), {} } end

local function next_open_lanes(how_many)
  -- Includes the whole current millisecond: scores have fractions of it (see `turn`).
  return redis.call('ZRANGEBYSCORE', key('lanes'), '-inf', '(' .. int(NOW + 1),
    'LIMIT', 0, how_many)
end

-- Orders the lanes that are served within one millisecond. Never 0, because a lane that opened in
-- this millisecond comes first.
local turn = math.max(1, tonumber(clock[2]) % 1000)

-- Returns whether another pass may find more jobs: this pass claimed some, or found closed lanes.
local function pass()
  local claimed_before, closed = #claimed, 0
  local lanes, times = next_open_lanes(max_jobs), {}
  local share = math.ceil((max_jobs - #claimed) / math.max(1, #lanes))
  for _, page_id in ipairs(lanes) do
    -- The remaining lanes keep their turn.
    if #claimed >= max_jobs or scans_left <= 0 then break end
    local next_at = serve(page_id, share)
    if next_at ~= NOW then closed, scans_left = closed + 1, scans_left - 1 end
    if next_at then
      -- A lane that was just served goes to the back. A closed lane gets a later millisecond, so
      -- that the next pass of this call does not list it again.
      next_at = next_at == NOW and NOW + turn / 1000 or math.max(NOW + 1, math.ceil(next_at))
      times[#times + 1], times[#times + 2] = string.format('%.3f', next_at), page_id
    elseif redis.call('EXISTS', key('urgent:' .. page_id), key('ready:' .. page_id),
        key('again:' .. page_id), key('campaign_lanes:' .. page_id)) == 0 then
      redis.call('ZREM', key('lanes'), page_id)
    end
  end
  call_with_all('ZADD', 'lanes', times)
  return #claimed < max_jobs and scans_left > 0 and (#claimed > claimed_before or closed > 0)
end

-- A second pass gives the unused share of one lane to others, and serves lanes behind closed lanes.
while pass() do end

write_tokens()
write_collected()

-- Stored in case this reply is lost: see release.lua.
if #claimed > 0 then
  local ids = { lease.token }
  for i, each in ipairs(claimed) do ids[i + 1] = each[1] end
  redis.call('SET', key('last_claim:' .. holder), cjson.encode(ids), 'PX', lease.ms)
end

local wait_ms, ring = -1, 0
local first = redis.call('ZRANGE', key('lanes'), 0, 0, 'WITHSCORES')
local opens_ms = tonumber(first[2])
-- Other lanes wait for an operator, or have a time that the sweep repairs.
if opens_ms and opens_ms < LATEST_MS then
  wait_ms = math.max(0, math.ceil(opens_ms - NOW - 1))
end
if wait_ms == 0 then
  -- There are more jobs than this caller can take, so another pump is woken.
  if should_ring() then ring = 1 end
elseif tonumber(ARGV[9]) > 0 then
  -- This replaces the record of earlier doorbells.
  redis.call('SET', key('bell'), 'attentive', 'PX', ARGV[9])
elseif redis.call('GET', key('bell')) == 'attentive' then
  redis.call('DEL', key('bell'))
end
return { ring, wait_ms, int(NOW), page_changes, unpack(claimed) }
