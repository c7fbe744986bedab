"""The Lua scripts of nodes: leases, the reaping of a node that ended, and who holds which user.

Keys, below the gateway's prefix:

    nodes                  hash: incarnation to "up" or "drained"; those whose sessions are not all seen to
    lease:{incarnation}    "back:{nonce}" while the node asserts its records, then "held:{run_id}", which names
                           the start of Redis that it holds for; TTL lease_ttl
    epoch                  made by whoever finds none: another one means that Redis has lost everything

The records' own scripts, and what keys they have, are in `scripts.py`. Every script may be executed twice.
"""

from __future__ import annotations

from reference_server.lua import PRELUDE
from reference_server.store import Script

__all__ = ["DEAD", "HELD", "HOLD", "NODE_SCRIPTS", "ONLINE", "REAP", "RENEW", "RETIRE", "SEND",
           "SESSIONS_OF"]  # fmt: skip

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
