local function statuses(prefix, per_device, user)
  if per_device ~= '1' then return {redis.call('GET', prefix .. 'status:' .. user) or nil} end
  local found = {}
  for _, device in ipairs(redis.call('SMEMBERS', prefix .. 'devices:' .. user)) do
    found[#found + 1] = redis.call('GET', prefix .. 'status:' .. user .. '/' .. device) or nil
  end
  return found
end
