-- Record what somebody did, where the change itself needs no script.
--
-- ARGV[1]  operation id
-- ARGV[2]  the entry as JSON, without `at_ms` and `count`
-- ARGV[3]  number of jobs or pages that were changed
-- returns  {}

write_audit(ARGV[1], ARGV[2], tonumber(ARGV[3]))
return {}
