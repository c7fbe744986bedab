-- KEYS nodes, lease; ARGV incarnation, window_ms. The node ends in order: what is not resumed is its peers' to
-- see to when the window is over. Returns 1.
redis.call('HSET', KEYS[1], ARGV[1], 'drained')
redis.call('PEXPIRE', KEYS[2], ARGV[2])
return 1
