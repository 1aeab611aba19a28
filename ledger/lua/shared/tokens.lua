-- The limits and pauses of tokens. All pages of one token share them.
--
-- needs pauses

-- The JSON value of a token in the hash `tokens`, by its fingerprint. A token without a limit that
-- is not paused has no entry.
--
--   spent, at_ms     level of the bucket of its calls, and when it was computed
--   limit, limit_ms  size of the API's own bucket according to a reply, and when it was received
--   level, reason, error_code, since_ms, until_ms, probe   as for a page's pause; probe is 1 until
--                    the outcome of the probe is recorded
local TOKEN_NUMBERS = {
  'spent', 'at_ms', 'limit', 'limit_ms', 'level', 'since_ms', 'until_ms', 'length_ms', 'probe',
  'recovered_ms', 'recovered_level'
}
-- The limit from a reply is ignored after this time (ms).
local LIMIT_KNOWN_MS = 600000
-- Haravan's bucket leaks a twentieth of its size per second. Only four fifths of it are used,
-- because other programs use the token as well.
local LEAK_PART, FILLED_PART = 1 / 20, 0.8

local tokens_read = {}

local function token_of(fingerprint)
  local known = tokens_read[fingerprint]
  if known then return known end
  local found = decode(redis.call('HGET', key('tokens'), fingerprint)) or {}
  local api_token = texts_and_numbers(found, PAUSE_TEXTS, TOKEN_NUMBERS)
  tokens_read[fingerprint] = api_token
  if api_token.at_ms > NOW then
    -- The clock was set back.
    api_token.until_ms = api_token.until_ms - (api_token.at_ms - NOW)
    api_token.at_ms = NOW
  end
  if math.abs(NOW - api_token.limit_ms) > LIMIT_KNOWN_MS then api_token.limit = 0 end
  return api_token
end

-- Calls per second and burst of a token, from the settings and the replies. A rate of 0 means
-- no limit.
local function limits_of(api_token, rate, burst)
  local limit = api_token.limit
  if limit <= 0 then return rate, burst end
  if rate <= 0 then return limit * LEAK_PART, limit * FILLED_PART end
  return math.min(rate, limit * LEAK_PART), math.min(burst, limit * FILLED_PART)
end

-- Reduce the level of a token's bucket by what has leaked until now.
local function leak(api_token, rate)
  api_token.spent = math.max(0, api_token.spent - (NOW - api_token.at_ms) * rate / 1000)
  api_token.at_ms = NOW
end

local function write_tokens()
  for fingerprint, api_token in pairs(tokens_read) do
    if api_token.changed then
      api_token.changed = nil
      if api_token.level > 0 or api_token.limit > 0 or api_token.spent > 0 then
        redis.call('HSET', key('tokens'), fingerprint, cjson.encode(api_token))
      else
        redis.call('HDEL', key('tokens'), fingerprint)
      end
    end
  end
end
