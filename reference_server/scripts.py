"""The Lua scripts that change session records: each is one atomic step in Redis.

Keys, below the gateway's prefix:

    session:{session_id}   "{user_id}|{owner}"       string, TTL session_ttl; owner "" until connected
    status:{user_id}       "{session_id}|{owner}"    string, TTL status_ttl; a TTL of 0 ms is none
    code:{user_id}         see codes.py
    online                 zset: user_id by the time last seen (Redis's own clock, seconds)
    presence               pub/sub: {"type": "online"|"offline", "user_id", "session_id", "node"}

The owner is the connection that wrote a record last. A connection changes or deletes only what names it,
so whatever arrives late from an older one does nothing. Every script may be executed twice.

The status key is found in the session record, so it is not among KEYS: one Redis, not a Redis Cluster.
Nothing newer than Redis 6.2 is used.
"""

from __future__ import annotations

from reference_server.store import Script

__all__ = ["CLEAR", "CONNECT", "LOGIN", "LOGOUT", "PRUNE", "REFRESH", "RELEASE", "SCRIPTS"]

_PUT = """
local function put(key, value, ttl_ms)
  if ttl_ms == '0' then redis.call('SET', key, value) else redis.call('SET', key, value, 'PX', ttl_ms) end
end
"""

_PRELUDE = (
    _PUT
    + """
local function split(record)
  return string.match(record, '^(.*)|([^|]*)$')
end
local function tell(prefix, kind, user, session, node)
  redis.call('PUBLISH', prefix .. 'presence', cjson.encode(
    {type = kind, user_id = user, session_id = session, node = node}))
end
local function seen(prefix, user)
  redis.call('ZADD', prefix .. 'online', redis.call('TIME')[1], user)
end
"""
)

LOGIN = Script(
    _PUT
    + """
-- KEYS session, status; ARGV record, session_ttl_ms, refuse, status ('': not yet), status_ttl_ms.
-- Returns 1, or 0: refused.
if ARGV[3] == '1' and redis.call('EXISTS', KEYS[2]) == 1 then return 0 end
put(KEYS[1], ARGV[1], ARGV[2])
if ARGV[4] ~= '' then put(KEYS[2], ARGV[4], ARGV[5]) end
return 1
"""
)

CONNECT = Script(
    _PRELUDE
    + """
-- KEYS session; ARGV prefix, session_id, owner, session_ttl_ms, status_ttl_ms, refuse, node,
-- user ('': whoever it is). Returns {'ok', user, owner before, owner that the status named}, {'unknown'},
-- {'refused'} or {'wrong_user'}.
local prefix, session, owner = ARGV[1], ARGV[2], ARGV[3]
local record = redis.call('GET', KEYS[1])
if not record then return {'unknown'} end
local user, before = split(record)
if ARGV[8] ~= '' and ARGV[8] ~= user then return {'wrong_user'} end
local status_key = prefix .. 'status:' .. user
local status = redis.call('GET', status_key)
local displaced = ''
local online = false
if status then
  local other
  other, displaced = split(status)
  online = displaced ~= ''
  if other ~= session then
    if ARGV[6] == '1' then return {'refused'} end
    -- A newer session of the user: the older one must not come back and take over in its turn.
    local other_key = prefix .. 'session:' .. other
    if redis.call('GET', other_key) == user .. '|' .. displaced then
      redis.call('DEL', other_key)
    end
  end
end
put(KEYS[1], user .. '|' .. owner, ARGV[4])
put(status_key, session .. '|' .. owner, ARGV[5])
seen(prefix, user)
if not online then tell(prefix, 'online', user, session, ARGV[7]) end
return {'ok', user, before, displaced}
"""
)

REFRESH = Script(
    _PRELUDE
    + """
-- KEYS session, status; ARGV prefix, user, session_id, owner, session_ttl_ms, status_ttl_ms.
-- Writes, and so brings back what vanished. Returns 1, or 0: a newer connection has the records.
local mine, my_status = ARGV[2] .. '|' .. ARGV[4], ARGV[3] .. '|' .. ARGV[4]
local record, status = redis.call('GET', KEYS[1]), redis.call('GET', KEYS[2])
if (record and record ~= mine) or (status and status ~= my_status) then return 0 end
put(KEYS[1], mine, ARGV[5])
put(KEYS[2], my_status, ARGV[6])
seen(ARGV[1], ARGV[2])
return 1
"""
)

CLEAR = Script(
    _PRELUDE
    + """
-- KEYS session; ARGV prefix, session_id, owner, user ('': as the record says), node.
-- Returns 1 when the user is offline now, 0 when a newer connection has the records or there were none.
local prefix, session, owner, user = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
local record = redis.call('GET', KEYS[1])
if record then
  local of, by = split(record)
  if by ~= owner then return 0 end
  user = of
  redis.call('DEL', KEYS[1])
end
if user == '' then return 0 end
local status_key = prefix .. 'status:' .. user
local status = redis.call('GET', status_key)
if status and status ~= session .. '|' .. owner then return 0 end
redis.call('DEL', status_key)
-- No status of anybody: it expired, or the store was flushed; those who watch still have to be told.
redis.call('ZREM', prefix .. 'online', user)
tell(prefix, 'offline', user, session, ARGV[5])
return 1
"""
)

RELEASE = Script(
    _PRELUDE
    + """
-- KEYS session, status; ARGV user, session_id, owner, window_ms. What is left of the records' life when
-- nobody is there any more to delete them. Returns how many keys it shortened.
local shortened = 0
if redis.call('GET', KEYS[1]) == ARGV[1] .. '|' .. ARGV[3] then
  shortened = shortened + redis.call('PEXPIRE', KEYS[1], ARGV[4])
end
if redis.call('GET', KEYS[2]) == ARGV[2] .. '|' .. ARGV[3] then
  shortened = shortened + redis.call('PEXPIRE', KEYS[2], ARGV[4])
end
return shortened
"""
)

LOGOUT = Script(
    _PRELUDE
    + """
-- KEYS session; ARGV prefix, session_id, node, user ('': whoever it is).
-- Returns {user, owner}; {} for an unknown session; {user} for another user's, which is left alone.
local record = redis.call('GET', KEYS[1])
if not record then return {} end
local user, owner = split(record)
if ARGV[4] ~= '' and ARGV[4] ~= user then return {user} end
redis.call('DEL', KEYS[1])
local status_key = ARGV[1] .. 'status:' .. user
local status = redis.call('GET', status_key)
if status and split(status) == ARGV[2] then
  redis.call('DEL', status_key)
  redis.call('ZREM', ARGV[1] .. 'online', user)
  tell(ARGV[1], 'offline', user, ARGV[2], ARGV[3])
end
return {user, owner}
"""
)

PRUNE = Script("""
-- KEYS online; ARGV longest age, s. Users of a node that ended without a word. Returns how many went.
return redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', redis.call('TIME')[1] - ARGV[1])
""")

SCRIPTS = (LOGIN, CONNECT, REFRESH, CLEAR, RELEASE, LOGOUT, PRUNE)
