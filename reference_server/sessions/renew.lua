-- KEYS nodes, lease, epoch; ARGV incarnation, ttl_ms, nonce, new nonce.
-- Returns {'held' | 'back' | 'lost', epoch, run_id}; lost: the lease is new, so assert every record, then HOLD.
redis.call('HSET', KEYS[1], ARGV[1], 'up')
redis.call('SET', KEYS[3], ARGV[4], 'NX')
local epoch, run, lease = redis.call('GET', KEYS[3]), run_id(), redis.call('GET', KEYS[2])
local state = 'lost'
if lease == 'held:' .. run then state = 'held' elseif lease == 'back:' .. ARGV[3] then state = 'back' end
if state == 'lost' then
  redis.call('SET', KEYS[2], 'back:' .. ARGV[4], 'PX', ARGV[2])
else
  redis.call('PEXPIRE', KEYS[2], ARGV[2])
end
return {state, epoch, run}
