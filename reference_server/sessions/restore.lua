-- KEYS session; ARGV record, session_ttl_ms. A login that Redis has lost. Returns 1, or 0: it is there.
if redis.call('EXISTS', KEYS[1]) == 1 then return 0 end
put(KEYS[1], ARGV[1], ARGV[2])
return 1
