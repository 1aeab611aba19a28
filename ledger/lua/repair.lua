-- Run commands that read, so that keys of the wrong type are repaired (see redis.call in
-- shared/keys.lua).
--
-- ARGV     JSON arrays: [command, key, argument, …]
-- returns  {}

for i = 1, #ARGV do redis.call(unpack(cjson.decode(ARGV[i]))) end
return {}
