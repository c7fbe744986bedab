local function put(key, value, ttl_ms)
  if ttl_ms == '0' then redis.call('SET', key, value) else redis.call('SET', key, value, 'PX', ttl_ms) end
end
