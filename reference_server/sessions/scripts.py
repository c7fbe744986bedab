"""The Lua scripts that change session records: each is one atomic step in Redis.

Keys, below the gateway's prefix:

    session:{session_id}     "{slot}|{owner}"          string, TTL session_ttl; owner "" until connected
    status:{slot}            "{session_id}|{owner}"    string, TTL status_ttl; a TTL of 0 ms is none
    code:{user_id}           see codes.py
    online                   zset: user_id by the time last seen (Redis's own clock, seconds)
    devices:{user_id}        set of the devices online, TTL status_ttl; only with one connection a device
    node:{incarnation}:sessions    hash: session_id to what its session record says; who holds what
    presence                 pub/sub: {"type": "online"|"offline", "user_id", "session_id", "node"}
    to:{incarnation}         pub/sub: what one node is told, see `gateway.py`

A slot is what has one connection at most: a user ("ann"), or one of her devices ("ann/phone"). The owner
is the connection that wrote a record last, and says which node holds it (`owners.py`). A connection changes
or deletes only what names it or an older one, so whatever arrives late from an older one does nothing. Every
script may be executed twice. Leases and nodes are in `node_scripts.py`.

Other keys are found in the session record, so they are not among KEYS: one Redis, not a Redis Cluster.
Nothing newer than Redis 6.2 is used.

Lua functions that the scripts share: what a record says, which of two owners is newer, who is told.

Text that is put before a script's own. What the keys are is in `scripts.py`.

The Lua scripts of nodes: leases, the reaping of a node that ended, and who holds which user.

Keys, below the gateway's prefix:

    nodes                  hash: incarnation to "up" or "drained"; those whose sessions are not all seen to
    lease:{incarnation}    "back:{nonce}" while the node asserts its records, then "held:{run_id}", which names
                           the start of Redis that it holds for; TTL lease_ttl
    epoch                  made by whoever finds none: another one means that Redis has lost everything

The records' own scripts, and what keys they have, are in `scripts.py`. Every script may be executed twice.
"""

from __future__ import annotations

from reference_server.sessions.redis_writer import Script

__all__ = [
    "CLEAR",
    "CONNECT",
    "DEAD",
    "HELD",
    "HOLD",
    "LOGIN",
    "LOGOUT",
    "NODE_SCRIPTS",
    "ONLINE",
    "PRELUDE",
    "PRUNE",
    "PUT",
    "REAP",
    "REFRESH",
    "RELEASE",
    "RENEW",
    "RESTORE",
    "RETIRE",
    "SCRIPTS",
    "SEND",
    "SESSIONS_OF",
]

PUT = """
local function put(key, value, ttl_ms)
  if ttl_ms == '0' then redis.call('SET', key, value) else redis.call('SET', key, value, 'PX', ttl_ms) end
end
"""

PRELUDE = (
    PUT
    + """
local function split(record)
  return string.match(record, '^(.*)|([^|]*)$')
end
local function number(owner)
  return tonumber(string.match(owner, ':(%x+)$') or '0', 16) or 0
end
local function newer(a, b)
  local n, m = number(a), number(b)
  if n ~= m then return n > m end
  return a > b
end
local function incarnation(owner)
  return string.match(owner, '^(.*):') or ''
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
  redis.call('PUBLISH', prefix .. 'presence', cjson.encode(
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
local function kick(prefix, by, owner, how)
  -- Its node ends the connection; the one that asks does so itself.
  if owner ~= '' and incarnation(owner) ~= incarnation(by) then
    redis.call('PUBLISH', prefix .. 'to:' .. incarnation(owner), cjson.encode({type = how, owner = owner}))
  end
end
"""
)


RENEW = Script(
    PRELUDE
    + """
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
"""
)

HOLD = Script(
    PRELUDE
    + """
-- KEYS lease; ARGV ttl_ms, nonce. Every record is asserted. Returns 1, or 0: the lease was lost meanwhile.
if redis.call('GET', KEYS[1]) ~= 'back:' .. ARGV[2] then return 0 end
redis.call('SET', KEYS[1], 'held:' .. run_id(), 'PX', ARGV[1])
return 1
"""
)

RETIRE = Script("""
-- KEYS nodes, lease; ARGV incarnation, window_ms. The node ends in order: what is not resumed is its peers' to
-- see to when the window is over. Returns 1.
redis.call('HSET', KEYS[1], ARGV[1], 'drained')
redis.call('PEXPIRE', KEYS[2], ARGV[2])
return 1
""")

DEAD = Script("""
-- KEYS nodes; ARGV prefix. Returns the incarnations without a lease.
local dead = {}
for _, one in ipairs(redis.call('HKEYS', KEYS[1])) do
  if redis.call('EXISTS', ARGV[1] .. 'lease:' .. one) == 0 then dead[#dead + 1] = one end
end
return dead
""")

REAP = Script(
    PRELUDE
    + """
-- KEYS nodes, the dead node's list; ARGV prefix, per_device, dead incarnation, about how many, reaping node.
-- Returns {'up' | 'drained', sessions left, then session, slot, owner of each that was ended here}.
local prefix, per_device, dead, node = ARGV[1], ARGV[2], ARGV[3], ARGV[5]
if redis.call('EXISTS', prefix .. 'lease:' .. dead) == 1 then return {'up', 0} end
local answer = {redis.call('HGET', KEYS[1], dead) or 'up', 0}
local found = redis.call('HSCAN', KEYS[2], '0', 'COUNT', ARGV[4])[2]
for n = 1, #found, 2 do
  local session, record = found[n], found[n + 1]
  local slot, owner = split(record)
  redis.call('HDEL', KEYS[2], session)
  local session_key, status_key = prefix .. 'session:' .. session, prefix .. 'status:' .. slot
  local now, status = redis.call('GET', session_key), redis.call('GET', status_key)
  if now == record then redis.call('DEL', session_key) end
  -- Another record or status: a newer connection's, and the user is not offline.
  if (not now or now == record) and (not status or status == session .. '|' .. owner) then
    redis.call('DEL', status_key)
    go_offline(prefix, per_device, slot, session, node)
    for _, field in ipairs({session, slot, owner}) do answer[#answer + 1] = field end
  end
end
answer[2] = redis.call('HLEN', KEYS[2])
if answer[2] == 0 then redis.call('HDEL', KEYS[1], dead) end
return answer
"""
)

HELD = Script("""
-- KEYS a node's list; ARGV cursor, about how many. Returns {next cursor, session, record, ...}.
local page = redis.call('HSCAN', KEYS[1], ARGV[1], 'COUNT', ARGV[2])
table.insert(page[2], 1, page[1])
return page[2]
""")

ONLINE = Script("""
-- KEYS online; ARGV prefix, users. Returns for each nil: offline, or the session that has the user's records.
local answer = {}
for n = 2, #ARGV do
  local status = redis.call('ZSCORE', KEYS[1], ARGV[n]) and
    (redis.call('GET', ARGV[1] .. 'status:' .. ARGV[n]) or '')
  answer[n - 1] = status and (string.match(status, '^(.*)|') or '')
end
return answer
""")

_STATUSES = """
local function statuses(prefix, per_device, user)
  if per_device ~= '1' then return {redis.call('GET', prefix .. 'status:' .. user) or nil} end
  local found = {}
  for _, device in ipairs(redis.call('SMEMBERS', prefix .. 'devices:' .. user)) do
    found[#found + 1] = redis.call('GET', prefix .. 'status:' .. user .. '/' .. device) or nil
  end
  return found
end
"""

SEND = Script(
    PRELUDE
    + _STATUSES
    + """
-- ARGV prefix, per_device, user, text. Returns to how many of the user's connections the text is on its way.
local reached = 0
for _, status in ipairs(statuses(ARGV[1], ARGV[2], ARGV[3])) do
  local _, owner = split(status)
  reached = reached + redis.call('PUBLISH', ARGV[1] .. 'to:' .. incarnation(owner), cjson.encode(
    {type = 'message', owner = owner, text = ARGV[4]}))
end
return reached
"""
)

SESSIONS_OF = Script(
    PRELUDE
    + _STATUSES
    + """
-- ARGV prefix, per_device, user. Returns the sessions that the user is online with.
local sessions = {}
for n, status in ipairs(statuses(ARGV[1], ARGV[2], ARGV[3])) do sessions[n] = split(status) end
return sessions
"""
)

NODE_SCRIPTS = (RENEW, HOLD, RETIRE, DEAD, REAP, HELD, ONLINE, SEND, SESSIONS_OF)


LOGIN = Script(
    PUT
    + """
-- KEYS session, status; ARGV record, session_ttl_ms, refuse, status ('': not yet), status_ttl_ms.
-- Returns 1, or 0: refused.
if ARGV[3] == '1' and redis.call('EXISTS', KEYS[2]) == 1 then return 0 end
put(KEYS[1], ARGV[1], ARGV[2])
if ARGV[4] ~= '' then put(KEYS[2], ARGV[4], ARGV[5]) end
return 1
"""
)

RESTORE = Script(
    PUT
    + """
-- KEYS session; ARGV record, session_ttl_ms. A login that Redis has lost. Returns 1, or 0: it is there.
if redis.call('EXISTS', KEYS[1]) == 1 then return 0 end
put(KEYS[1], ARGV[1], ARGV[2])
return 1
"""
)

CONNECT = Script(
    PRELUDE
    + """
-- KEYS session; ARGV prefix, per_device, session_id, owner, session_ttl_ms, status_ttl_ms, refuse, node,
-- user ('': whoever it is). Returns {'ok', slot, owner before, owner that the status named}, {'unknown'},
-- {'refused'}, {'wrong_user'} or {'older', owner}: a newer connection has the records.
local prefix, session, owner = ARGV[1], ARGV[3], ARGV[4]
local record = redis.call('GET', KEYS[1])
if not record then return {'unknown'} end
local slot, before = split(record)
if ARGV[9] ~= '' and ARGV[9] ~= person(ARGV[2], slot) then return {'wrong_user'} end
if newer(before, owner) then return {'older', before} end
local status_key = prefix .. 'status:' .. slot
local status = redis.call('GET', status_key)
local displaced = ''
local online = false
if status then
  local other
  other, displaced = split(status)
  online = displaced ~= ''
  if newer(displaced, owner) then return {'older', displaced} end
  if other ~= session then
    if ARGV[7] == '1' then return {'refused'} end
    end_other_session(prefix, other, slot .. '|' .. displaced)
  end
end
if before ~= '' then let_go(prefix, session, record) end
local mine = slot .. '|' .. owner
put(KEYS[1], mine, ARGV[5])
put(status_key, session .. '|' .. owner, ARGV[6])
redis.call('HSET', held_by(prefix, owner), session, mine)
go_online(prefix, ARGV[2], slot, session, ARGV[8], ARGV[6], not online)
kick(prefix, owner, before, 'taken_over')
if displaced ~= before then kick(prefix, owner, displaced, 'taken_over') end
return {'ok', slot, before, displaced}
"""
)

REFRESH = Script(
    PRELUDE
    + """
-- KEYS session, status; ARGV prefix, per_device, slot, session_id, owner, session_ttl_ms, status_ttl_ms, node.
-- Writes, and so brings back what vanished. Returns the older owners whose records it took, or 0: a newer
-- connection has the records, or somebody has ended the session.
local prefix, slot, session, owner = ARGV[1], ARGV[3], ARGV[4], ARGV[5]
local mine, my_status = slot .. '|' .. owner, session .. '|' .. owner
local record, status = redis.call('GET', KEYS[1]), redis.call('GET', KEYS[2])
local took = {}
if record ~= mine or status ~= my_status then
  local _, before, other, displaced = '', '', session, ''
  if record then _, before = split(record) end
  if status then other, displaced = split(status) end
  if newer(before, owner) or newer(displaced, owner) then return 0 end
  -- Not there, not known to be held, and nothing was lost: it was ended, and nobody could tell us.
  if not record and redis.call('HGET', held_by(prefix, owner), session) ~= mine
    and lost_nothing(prefix, owner) then return 0 end
  if before ~= '' and before ~= owner then
    let_go(prefix, session, record)
    kick(prefix, owner, before, 'taken_over')
    took[#took + 1] = before
  end
  if other ~= session then end_other_session(prefix, other, slot .. '|' .. displaced) end
  if displaced ~= '' and displaced ~= owner and displaced ~= before then
    kick(prefix, owner, displaced, 'taken_over')
    took[#took + 1] = displaced
  end
  redis.call('HSET', held_by(prefix, owner), session, mine)
end
put(KEYS[1], mine, ARGV[6])
put(KEYS[2], my_status, ARGV[7])
go_online(prefix, ARGV[2], slot, session, ARGV[8], ARGV[7], not status, true)
return took
"""
)

CLEAR = Script(
    PRELUDE
    + """
-- KEYS session; ARGV prefix, per_device, session_id, owner, slot ('': as the record says), node.
-- Returns 1 when the connection was the slot's last word, 0 when a newer one has the records or there were none.
local prefix, session, owner, slot = ARGV[1], ARGV[3], ARGV[4], ARGV[5]
local record = redis.call('GET', KEYS[1])
if record then
  local of, by = split(record)
  if by ~= owner then return 0 end
  slot = of
  redis.call('DEL', KEYS[1])
end
if slot == '' then return 0 end
local held = let_go(prefix, session, slot .. '|' .. owner)
local status_key = prefix .. 'status:' .. slot
local status = redis.call('GET', status_key)
if status and status ~= session .. '|' .. owner then return 0 end
-- No status of anybody: it expired, or the store was flushed; those who watch still have to be told. But if
-- nothing was lost, whoever ended the session has told them.
if not record and not status and not held and lost_nothing(prefix, owner) then return 0 end
redis.call('DEL', status_key)
go_offline(prefix, ARGV[2], slot, session, ARGV[6])
return 1
"""
)

RELEASE = Script(
    PRELUDE
    + """
-- KEYS session, status; ARGV slot, session_id, owner, window_ms. What is left of the records' life when
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
    PRELUDE
    + """
-- KEYS session; ARGV prefix, per_device, session_id, node, user ('': whoever it is), asking incarnation, how.
-- Returns {slot, owner}; {} for an unknown session; {slot} for another user's, which is left alone.
local prefix, session = ARGV[1], ARGV[3]
local record = redis.call('GET', KEYS[1])
if not record then return {} end
local slot, owner = split(record)
if ARGV[5] ~= '' and ARGV[5] ~= person(ARGV[2], slot) then return {slot} end
redis.call('DEL', KEYS[1])
if owner ~= '' then let_go(prefix, session, record) end
local status_key = prefix .. 'status:' .. slot
local status = redis.call('GET', status_key)
if status and split(status) == session then
  redis.call('DEL', status_key)
  go_offline(prefix, ARGV[2], slot, session, ARGV[4])
end
kick(prefix, ARGV[6] .. ':0', owner, ARGV[7])
return {slot, owner}
"""
)

PRUNE = Script("""
-- KEYS online; ARGV longest age, s. Users of a node that ended without a word. Returns how many went.
return redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', redis.call('TIME')[1] - ARGV[1])
""")

SCRIPTS = (LOGIN, RESTORE, CONNECT, REFRESH, CLEAR, RELEASE, LOGOUT, PRUNE)
