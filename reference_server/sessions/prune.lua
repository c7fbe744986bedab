-- KEYS online; ARGV longest age, s. Users of a node that ended without a word. Returns how many went.
return redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', redis.call('TIME')[1] - ARGV[1])
