-- Store the tokens of pages.
--
-- ARGV     pairs: page_id, fingerprint of its token; "" if it no longer has its own token
-- returns  {}

for i = 1, #ARGV, 2 do
  if ARGV[i + 1] == '' then
    redis.call('HDEL', key('page_tokens'), ARGV[i])
  else
    redis.call('HSET', key('page_tokens'), ARGV[i], ARGV[i + 1])
  end
end
return {}
