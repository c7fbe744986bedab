-- KEYS nodes; ARGV prefix. Returns the incarnations without a lease.
local dead = {}
for _, one in ipairs(redis.call('HKEYS', KEYS[1])) do
  if redis.call('EXISTS', ARGV[1] .. 'lease:' .. one) == 0 then dead[#dead + 1] = one end
end
return dead
