-- KEYS lease; ARGV ttl_ms, nonce. Every record is asserted. Returns 1, or 0: the lease was lost meanwhile.
if redis.call('GET', KEYS[1]) ~= 'back:' .. ARGV[2] then return 0 end
redis.call('SET', KEYS[1], 'held:' .. run_id(), 'PX', ARGV[1])
return 1
