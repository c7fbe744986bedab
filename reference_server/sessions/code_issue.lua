-- KEYS code; ARGV digest, ttl_ms, guesses. Returns 1.
redis.call('DEL', KEYS[1])
redis.call('HSET', KEYS[1], 'digest', ARGV[1], 'left', ARGV[3])
redis.call('PEXPIRE', KEYS[1], ARGV[2])
return 1
