-- KEYS session, status; ARGV prefix, per_device, slot, session_id, owner, session_ttl_ms, status_ttl_ms, node,
-- known: epoch and run_id of the Redis that has had all of the node's records.
-- Writes, and so brings back what vanished. Returns the older owners whose records it took, or 0: a newer
-- connection has the records, or somebody has ended the session. A logout is told once more, to the owner's node.
local prefix, slot, session, owner = ARGV[1], ARGV[3], ARGV[4], ARGV[5]
local mine, my_status = slot .. '|' .. owner, session .. '|' .. owner
local record, status = redis.call('GET', KEYS[1]), redis.call('GET', KEYS[2])
local took = {}
if record ~= mine or status ~= my_status then
  local _, before, other, displaced = '', '', session, ''
  if record then _, before = split(record) end
  if status then other, displaced = split(status) end
  -- Where Redis has lost nothing since, whoever else has the records came later, whatever the clocks say.
  local known = ARGV[9] == (redis.call('GET', prefix .. 'epoch') or '') .. run_id()
  for _, theirs in ipairs({before, displaced}) do
    if newer(theirs, owner) or known and theirs ~= owner and incarnation(theirs) ~= '' then return 0 end
  end
  local how = not record and redis.call('GET', prefix .. 'ended:' .. session)
  if how and how ~= 'reaped' then
    kick(prefix, ':0', owner, how)
    return took
  end
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
