-- KEYS session, status; ARGV slot, session_id, owner, window_ms, survives. What is left of the records' life when
-- nobody is there any more to delete them. Returns how many keys it shortened.
local shortened = 0
if ARGV[5] == '0' and redis.call('GET', KEYS[1]) == ARGV[1] .. '|' .. ARGV[3] then
  shortened = shortened + redis.call('PEXPIRE', KEYS[1], ARGV[4])
end
if redis.call('GET', KEYS[2]) == ARGV[2] .. '|' .. ARGV[3] then
  shortened = shortened + redis.call('PEXPIRE', KEYS[2], ARGV[4])
end
return shortened
