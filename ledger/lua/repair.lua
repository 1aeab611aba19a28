-- Run commands that read, for their effect on keys of the wrong type (see redis.call).
--
-- ARGV     JSON arrays: [command, key, argument, …]
-- returns  {}

for i = 1, #ARGV do redis.call(unpack(cjson.decode(ARGV[i]))) end
return {}
