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
"""

from __future__ import annotations

from reference_server.lua import PRELUDE, PUT
from reference_server.store import Script

__all__ = [
    "CLEAR",
    "CONNECT",
    "LOGIN",
    "LOGOUT",
    "PRUNE",
    "REFRESH",
    "RELEASE",
    "RESTORE",
    "SCRIPTS",
]

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
