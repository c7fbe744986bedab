-- KEYS session, status; ARGV record, session_ttl_ms, refuse, status ('': not yet), status_ttl_ms.
-- Returns 1, or 0: refused.
if ARGV[3] == '1' and redis.call('EXISTS', KEYS[2]) == 1 then return 0 end
put(KEYS[1], ARGV[1], ARGV[2])
if ARGV[4] ~= '' then put(KEYS[2], ARGV[4], ARGV[5]) end
return 1
