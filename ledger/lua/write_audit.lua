-- Add an audit entry for a change that has no script of its own.
--
-- ARGV[1]  operation id
-- ARGV[2]  the entry as JSON, without `at_ms` and `count`
-- ARGV[3]  number of changed jobs or pages
-- returns  {}
--
-- needs audit

write_audit(ARGV[1], ARGV[2], tonumber(ARGV[3]))
return {}
