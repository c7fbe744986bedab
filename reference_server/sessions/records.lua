local function split(record)
  return string.match(record, '^(.*)|([^|]*)$')
end
local function number(owner)
  return tonumber(string.match(owner, ':(%x+)$') or '0', 16) or 0
end
local function incarnation(owner)
  return string.match(owner, '^(.*):') or ''
end
local function newer(a, b)
  local n, m = number(a), number(b)
  if n ~= m then return n > m end
  return incarnation(a) ~= '' and a > b
end
local function held_by(prefix, owner)
  return prefix .. 'node:' .. incarnation(owner) .. ':sessions'
end
local function let_go(prefix, session, record)
  -- The node's list names a session once, so only this very record's entry goes.
  local _, owner = split(record)
  local list = held_by(prefix, owner)
  if redis.call('HGET', list, session) ~= record then return false end
  redis.call('HDEL', list, session)
  return true
end
local function run_id()
  return string.match(redis.call('INFO', 'server'), 'run_id:(%x+)') or ''
end
local function lost_nothing(prefix, owner)
  -- The node has its lease, and has asserted all its records since this Redis started.
  local lease = redis.call('GET', prefix .. 'lease:' .. incarnation(owner))
  return lease and lease == 'held:' .. run_id()
end
local function person(per_device, slot)
  if per_device ~= '1' then return slot, nil end
  return string.match(slot, '^(.*)/([^/]*)$')
end
local function tell(prefix, kind, user, session, node, again)
  -- Whoever watches somebody hears one of 4,096 channels, not everybody's news.
  redis.call('PUBLISH', prefix .. 'presence:' .. string.sub(redis.sha1hex(user), 1, 3), cjson.encode(
    {type = kind, user_id = user, session_id = session, node = node, again = again}))
end
local function on_another_device(prefix, user, device)
  if not device then return false end
  local devices = prefix .. 'devices:' .. user
  for _, other in ipairs(redis.call('SMEMBERS', devices)) do
    if other ~= device then
      if redis.call('EXISTS', prefix .. 'status:' .. user .. '/' .. other) == 1 then return true end
      redis.call('SREM', devices, other)
    end
  end
  return false
end
local function go_online(prefix, per_device, slot, session, node, ttl_ms, new, again)
  local user, device = person(per_device, slot)
  if new and not on_another_device(prefix, user, device) then
    tell(prefix, 'online', user, session, node, again)
  end
  if device then
    redis.call('SADD', prefix .. 'devices:' .. user, device)
    if ttl_ms ~= '0' then redis.call('PEXPIRE', prefix .. 'devices:' .. user, ttl_ms) end
  end
  redis.call('ZADD', prefix .. 'online', redis.call('TIME')[1], user)
end
local function go_offline(prefix, per_device, slot, session, node)
  local user, device = person(per_device, slot)
  if device then redis.call('SREM', prefix .. 'devices:' .. user, device) end
  if on_another_device(prefix, user, device) then return end
  redis.call('ZREM', prefix .. 'online', user)
  tell(prefix, 'offline', user, session, node)
end
local function end_other_session(prefix, other, record)
  -- A newer session has the slot: the older one must not come back and take over in its turn.
  local key = prefix .. 'session:' .. other
  if redis.call('GET', key) == record then redis.call('DEL', key) end
  let_go(prefix, other, record)
end
local function end_record(key, slot, owner, survivor_ttl_ms)
  -- A session that survives its connection waits for its client with an owner that is no node's, and whose number
  -- a slower node's connection has yet to pass.
  if survivor_ttl_ms == '' then redis.call('DEL', key) else
    put(key, slot .. '|' .. string.match(owner, ':%x+$'), survivor_ttl_ms)
  end
end
local function kick(prefix, by, owner, how)
  -- Its node ends the connection; the one that asks does so itself.
  if incarnation(owner) ~= '' and incarnation(owner) ~= incarnation(by) then
    redis.call('PUBLISH', prefix .. 'to:' .. incarnation(owner), cjson.encode({type = how, owner = owner}))
  end
end
