-- End pauses of pages whose token has changed since it was refused.
--
-- ARGV     pairs: page_id, fingerprint of the token that was refused
-- returns  {ring (0 or 1), {page change, …}}: see note_page_change
--
-- needs doorbell, pauses

local resumed = false
for i = 1, #ARGV, 2 do
  local pause = pause_of(ARGV[i])
  if pause and pause.level > 0 and pause.reason == 'auth'
      and pause.token_fingerprint == ARGV[i + 1] then
    pause.level = 0
    write_pause(ARGV[i], pause)
    reschedule_lane(ARGV[i], pause)
    note_page_change(ARGV[i], 'resumed', pause)
    resumed = true
  end
end
return { resumed and should_ring() and 1 or 0, page_changes }
